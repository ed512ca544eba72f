import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasternet_mm import PartialConv2d


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 24),
    data=st.data(),
    kernel_size=st.sampled_from([1, 3, 5]),
    size=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
)
def test_is_a_convolution_of_the_first_channels_and_nothing_else(channels, data, kernel_size, size):
    n_div = data.draw(st.integers(1, channels))
    pconv = PartialConv2d(channels, n_div, kernel_size)
    x = torch.randn(size[0], channels, *size[1:])
    before = x.clone()
    out = pconv(x)
    first = channels // n_div
    weight = pconv.partial_conv3.weight
    assert weight.shape == (first, first, kernel_size, kernel_size) and pconv.partial_conv3.bias is None
    want = torch.nn.functional.conv2d(x[:, :first], weight, padding=kernel_size // 2)
    assert torch.equal(out[:, :first], want)
    assert torch.equal(out[:, first:], x[:, first:])
    assert torch.equal(x, before)


@pytest.mark.parametrize('n_div', [0, 5, -1])
def test_refuses_a_division_that_leaves_no_channel(n_div):
    with pytest.raises(ValueError, match=f'n_div must be from 1 to the number of channels, 4, but is {n_div}'):
        PartialConv2d(4, n_div)


def test_refuses_a_kernel_that_changes_the_size():
    with pytest.raises(ValueError, match='kernel_size must be odd'):
        PartialConv2d(4, kernel_size=2)


def test_gradient_of_the_untouched_channels_passes_as_it_is():
    x = torch.randn(2, 8, 5, 5, requires_grad=True)
    out = PartialConv2d(8)(x)
    (grad,) = torch.autograd.grad(out[:, 2:].sum(), x)
    assert torch.equal(grad[:, 2:], torch.ones(2, 6, 5, 5))
    assert torch.equal(grad[:, :2], torch.zeros(2, 2, 5, 5))
