import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import conv2d

from fasternet_mm import PartialConv1d, PartialConv2d, PConvBlock
from fasternet_mm.models import pconv as pconv_file
from tests.helpers import relative_error
from tests.helpers.networks import t_shaped_filter


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


def test_on_sequences_it_does_the_same():
    pconv, x = PartialConv1d(8, kernel_size=5), torch.randn(2, 8, 9)
    want = torch.nn.functional.conv1d(x[:, :2], pconv.partial_conv3.weight, padding=2)
    assert torch.equal(pconv(x), torch.cat((want, x[:, 2:]), 1))


@settings(max_examples=25, deadline=None)
@given(
    channels=st.tuples(st.integers(4, 12), st.integers(1, 12)),
    n_div=st.integers(1, 4),
    kernel_size=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2, 3, (2, 1)]),
    bias=st.booleans(),
    size=st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)),
)
def test_a_block_is_a_convolution_with_a_t_shaped_filter(channels, n_div, kernel_size, stride, bias, size):
    block = PConvBlock(*channels, kernel_size, stride, n_div, bias)
    x = torch.randn(size[0], channels[0], *size[1:])
    want = conv2d(x, t_shaped_filter(block), block.pwconv.bias, stride, kernel_size // 2)
    torch.testing.assert_close(block(x), want, rtol=1e-4, atol=1e-5)


def test_nothing_stands_between_pconv_and_the_pointwise_convolution():
    block = PConvBlock(8, 12)
    assert [type(child) for child in block.children()] == [PartialConv2d, nn.Conv2d]
    x = torch.randn(1, 8, 6, 6)
    assert torch.equal(block(x), block.pwconv(block.pconv(x)))
    with torch.no_grad():
        assert relative_error(block(2 * x) - block(x), block(x) - block(0 * x)) < 1e-5  # nothing but linear


def test_a_block_takes_what_the_convolution_took_that_it_stands_for():
    conv = nn.Conv2d(8, 12, (3, 3), stride=2, padding=1, dilation=1, groups=1, bias=False)
    block = PConvBlock(8, 12, (3, 3), stride=2, padding=1, dilation=1, groups=1, bias=False)
    for name in ('in_channels', 'out_channels', 'kernel_size', 'stride', 'padding', 'dilation', 'groups',
                 'padding_mode', 'transposed', 'output_padding'):  # fmt: skip
        assert getattr(block, name) == getattr(conv, name), name
    x = torch.randn(2, 8, 7, 10)
    assert block(x).shape == conv(x).shape


def test_names_of_weights_are_stable_and_load():
    block, other = PConvBlock(8, 12), PConvBlock(8, 12)
    assert {name: tuple(value.shape) for name, value in block.state_dict().items()} == {
        'pconv.partial_conv3.weight': (2, 2, 3, 3), 'pwconv.weight': (12, 8, 1, 1), 'pwconv.bias': (12,)
    }  # fmt: skip
    other.load_state_dict(block.state_dict())
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(other(x), block(x))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(kernel_size=4), 'kernel_size must be odd'),
        (dict(kernel_size=(3, 5)), r'kernel_size must be square, but is \(3, 5\)'),
        (dict(n_div=9), 'n_div must be from 1 to the number of channels, 8, but is 9'),
        (dict(padding=0), r'padding of a PConvBlock with kernel_size 3 is \(1, 1\), not \(0, 0\)'),
        (dict(padding='same'), 'padding of a PConvBlock'),
        (dict(dilation=2), 'dilation of a PConvBlock'),
        (dict(groups=2), 'groups of a PConvBlock with kernel_size 3 is 1, not 2'),
        (dict(padding_mode='reflect'), 'padding_mode of a PConvBlock'),
    ],
)
def test_a_block_refuses_what_it_cannot_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        PConvBlock(8, 12, **arguments)


def test_the_file_needs_torch_alone():
    code = f"""
import importlib.util, sys
for name in ('fasternet_mm', 'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg', 'timm', 'torchvision'):
    sys.modules[name] = None  # its import fails
spec = importlib.util.spec_from_file_location('pconv', {pconv_file.__file__!r})
pconv = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pconv)
import torch
print(tuple(pconv.PConvBlock(8, 16, 3, stride=2)(torch.randn(1, 8, 8, 8)).shape))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '(1, 16, 4, 4)', done.stderr[-2000:]
