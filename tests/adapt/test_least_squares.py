"""The closed form is the optimum: where one is known, and where descent looks for a better one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fasternet_mm import PConvBlock
from fasternet_mm.adapt.least_squares import PConvFit, SecondMoments, fit_pconv, t_shaped
from tests.helpers import relative_error


def fitted(batches, targets, n_div: int, kernel_size: int, stride: tuple[int, int], bias: bool) -> PConvFit:
    moments, conv_channels = SecondMoments(), batches[0].shape[1] // n_div
    for x, y in zip(batches, targets, strict=True):
        moments.add(t_shaped(x, conv_channels, kernel_size, stride, bias), y.flatten(2).transpose(1, 2).flatten(0, 1))
    return fit_pconv(moments, conv_channels, kernel_size, bias)


def loaded(fit: PConvFit, n_div: int, stride) -> PConvBlock:
    """A block of the fit, in float64."""
    out_channels, in_channels = fit.pointwise.shape[:2]
    block = PConvBlock(in_channels, out_channels, fit.partial.shape[-1], stride, n_div, fit.bias is not None).double()
    weights = {'pconv.partial_conv3.weight': fit.partial, 'pwconv.weight': fit.pointwise}
    block.load_state_dict(weights if fit.bias is None else dict(weights, **{'pwconv.bias': fit.bias}))
    return block


@settings(max_examples=25, deadline=None)
@given(
    channels=st.tuples(st.integers(4, 8), st.integers(1, 10)),
    n_div=st.integers(1, 4),
    kernel_size=st.sampled_from([3, 5]),
    stride=st.sampled_from([(1, 1), (2, 2), (1, 2)]),
    bias=st.booleans(),
)
@torch.no_grad()
def test_what_is_a_block_is_found_again(channels, n_div, kernel_size, stride, bias):
    old = PConvBlock(*channels, kernel_size, stride, n_div, bias)
    batches = [torch.rand(4, channels[0], 12, 9) for _ in range(3)]  # not of mean 0, as after an activation
    fit = fitted(batches, [old(x) for x in batches], n_div, kernel_size, stride, bias)
    assert fit.error < 1e-6
    x = torch.randn(2, channels[0], 8, 8).double()
    # an output whose rank is below PConv's leaves filters that have no say
    assert relative_error(loaded(fit, n_div, stride)(x), old.double()(x)) < 1e-5


def descended(x, y, stride, bias, seed: int) -> float:
    """The relative error that descent ends with, from random weights, on all of the data and with a line search."""
    torch.manual_seed(seed)
    block = PConvBlock(8, 6, 3, stride, 4, bias).double()
    optimizer = torch.optim.LBFGS(block.parameters(), max_iter=600, line_search_fn='strong_wolfe',
                                  tolerance_grad=1e-12, tolerance_change=0)  # fmt: skip

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (block(x) - y).square().sum() / y.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return closure().item() ** 0.5


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('stride', [(1, 1), (2, 2)])
def test_the_error_is_that_of_the_outputs_and_no_descent_gets_below_it(bias, stride):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 6, 3, stride, padding=1, bias=bias).double()
    mix = nn.Conv2d(8, 8, 3, padding=1).double()
    with torch.no_grad():
        x = mix(torch.randn(6, 8, 10, 10).double()).relu()  # channels and neighbours are correlated
        y = conv(x)
    fit = fitted([x[:2], x[2:]], [y[:2], y[2:]], 4, 3, stride, bias)
    with torch.no_grad():
        assert relative_error(loaded(fit, 4, stride)(x), y) == pytest.approx(fit.error, rel=1e-6)
    found = [descended(x, y, stride, bias, seed) for seed in range(3)]
    assert 0.1 < fit.error <= min(found) + 1e-9
    assert min(found) == pytest.approx(fit.error, rel=1e-4)


@torch.no_grad()
def test_batches_stream():
    x, y = torch.randn(6, 8, 7, 7), torch.randn(6, 5, 7, 7)
    whole = fitted([x], [y], 2, 3, (1, 1), True)
    parts = fitted(x.split(1), y.split(1), 2, 3, (1, 1), True)
    assert parts.error == pytest.approx(whole.error, rel=1e-9)
    torch.testing.assert_close(parts.pointwise[:, 4:], whole.pointwise[:, 4:])


@torch.no_grad()
def test_dead_channels_and_too_few_pixels_do_not_matter():
    x, y = torch.randn(1, 8, 3, 3), torch.randn(1, 5, 3, 3)
    x[:, [0, 5]] = 0
    fit = fitted([x], [y], 4, 3, (1, 1), False)
    assert all(torch.isfinite(part).all() for part in fit[:2]) and (fit.pointwise[:, 5] == 0).all()
    assert relative_error(loaded(fit, 4, 1)(x.double()), y) == pytest.approx(fit.error, abs=1e-5)
    nothing = fitted([0 * x], [0 * y], 4, 3, (1, 1), False)
    assert nothing.error == 0 and torch.isfinite(nothing.partial).all()
