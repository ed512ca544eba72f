"""Least-squares fits of substitutes, beside teachers whose best substitute is known, and beside numpy."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, unfold

from fasternet_mm import PConvBlock
from fasternet_mm.study.approximation import _trained, errors
from fasternet_mm.study.rows import Moments, Rows
from fasternet_mm.study.substitutes import Alternated, GroupedPointwise, Linear, PConvPointwise, _alternate
from tests.helpers import relative_error

CHANNELS = 16
KINDS = {
    'pointwise': lambda conv: Linear(conv),
    'T-shaped': lambda conv: Linear(conv, CHANNELS // 4),
    'PConv': lambda conv: PConvPointwise(conv),
    'PConv of other channels': lambda conv: PConvPointwise(conv, torch.tensor([15, 3, 7, 8])),
    'depthwise': lambda conv: GroupedPointwise(conv, CHANNELS),
    'grouped': lambda conv: GroupedPointwise(conv, 4),
}


def make_maps(seed: int, number: int = 6) -> torch.Tensor:
    """Maps whose channels and neighbours are correlated, as those of networks are."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(number, CHANNELS, 14, 14, generator=generator)
    mixes = torch.randn(CHANNELS, CHANNELS, 1, 1, generator=torch.Generator().manual_seed(100)) / 4
    return nn.functional.avg_pool2d(conv2d(noise, mixes + torch.eye(CHANNELS)[..., None, None]), 3, 1).relu() + 0.1


def make_rows(conv: nn.Module, seed: int) -> Rows:
    """The output pixels of a layer, each with the patch before it."""
    x = make_maps(seed)
    with torch.no_grad():
        y = conv(x)
    patches = unfold(x, 3, padding=1, stride=conv.stride).transpose(1, 2).flatten(0, 1).unflatten(1, (-1, 9))
    image = torch.arange(len(x)).repeat_interleave(y[0, 0].numel())
    return Rows(patches, y.movedim(1, -1).flatten(0, 2), image)


@pytest.fixture
def conv() -> nn.Conv2d:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Conv2d(CHANNELS, 24, 3, padding=1)


def share_off(one, rows: Rows) -> float:
    """The squared error over the variance."""
    return errors(one.forward, rows).sum() / float((rows.outputs - rows.outputs.mean(0)).square().sum())


def fitted(kind: str, conv: nn.Module, rows: Rows):
    one = KINDS[kind](conv)
    one.fit(Moments.of(rows))
    return one


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('stride', [1, 2])
def test_a_teacher_that_is_the_substitute_is_reproduced_on_other_maps(kind, stride):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        conv = nn.Conv2d(CHANNELS, 24, 3, stride, 1)
        teacher = KINDS[kind](conv)

    def run(x: torch.Tensor) -> torch.Tensor:
        patches = unfold(x, 3, padding=1, stride=stride)
        rows = patches.transpose(1, 2).flatten(0, 1).unflatten(1, (-1, 9))
        size = [-(-side // stride) for side in x.shape[2:]]
        return teacher(rows).unflatten(0, (len(x), *size)).movedim(-1, 1)

    run.stride = (stride, stride)
    one = fitted(kind, conv, make_rows(run, 0))
    assert share_off(one, make_rows(run, 1)) < 1e-6


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('stride', [1, 2])
def test_as_layers_a_substitute_gives_what_it_gives_on_patches(kind, stride):
    conv = nn.Conv2d(CHANNELS, 24, 3, stride, 1)
    one, rows, x = KINDS[kind](conv), make_rows(conv, 0), make_maps(0)
    if kind == 'PConv of other channels':
        x = torch.cat((x[:, one.chosen], x[:, one.rest]), 1)
    with torch.no_grad():
        want, got = one(rows.patches), one.layer()(x)
    assert relative_error(got.movedim(1, -1).flatten(0, 2), want) < 1e-5


@pytest.mark.parametrize('kind', ['pointwise', 'T-shaped'])
def test_least_squares_are_those_of_numpy(kind, conv):
    rows = make_rows(conv, 0)
    one = fitted(kind, conv, rows)
    x = rows.patches.flatten(1)[:, one.seen].double().numpy()
    x = np.concatenate((x, np.ones((len(x), 1))), 1)
    y = rows.outputs.double().numpy()
    weight = np.linalg.lstsq(x, y, rcond=None)[0]
    assert relative_error(one.weight.detach(), weight[:-1].T) < 1e-4
    assert share_off(one, rows) == pytest.approx(((y - x @ weight) ** 2).sum() / ((y - y.mean(0)) ** 2).sum(), rel=1e-5)


def test_a_depthwise_fit_is_no_worse_than_alternating_least_squares_by_numpy(conv):
    rows = make_rows(conv, 0)
    centred = rows.patches.double().numpy() - rows.patches.double().numpy().mean(0)
    wanted = rows.outputs.double().numpy() - rows.outputs.double().numpy().mean(0)
    generator, found = np.random.default_rng(0), []
    for _ in range(3):  # filters of each channel, and what the pointwise convolution takes of them, in turn
        filters = generator.normal(size=(CHANNELS, 9))
        for _ in range(60):
            seen = np.einsum('nct,ct->nc', centred, filters)
            mixes = np.linalg.lstsq(seen, wanted, rcond=None)[0]
            # the error is linear in the filters, too: gradient zero, by normal equations of 9 * CHANNELS unknowns
            gram = np.einsum('nct,nds->ctds', centred, centred) * (mixes @ mixes.T)[:, None, :, None]
            right = np.einsum('nct,nc->ct', centred, wanted @ mixes.T)
            size = 9 * CHANNELS
            filters = np.linalg.solve(gram.reshape(size, size) + 1e-9 * np.eye(size), right.flatten()).reshape(-1, 9)
        left = wanted - np.einsum('nct,ct->nc', centred, filters) @ mixes
        found.append((left**2).sum() / (wanted**2).sum())
    assert share_off(fitted('depthwise', conv, rows), rows) < min(found) * 1.001


def test_wider_classes_come_nearer(conv):
    rows = make_rows(conv, 0)
    error = {kind: share_off(fitted(kind, conv, rows), rows) for kind in KINDS}
    assert error['T-shaped'] <= error['PConv'] <= error['pointwise'] <= 1
    assert error['depthwise'] <= error['pointwise']  # with the centre alone in each filter
    assert 0 < error['T-shaped']


@pytest.mark.parametrize('kind', KINDS)
def test_adam_comes_no_nearer_on_the_training_pixels(kind, conv):
    rows = {part: make_rows(conv, seed) for part, seed in (('train', 0), ('val', 1))}
    best = share_off(fitted(kind, conv, rows['train']), rows['train'])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one = KINDS[kind](conv)
    predict, curve, how = _trained(one, rows, 1.0, 60)
    spread = float((rows['train'].outputs - rows['train'].outputs.mean(0)).square().sum())
    assert best <= errors(predict, rows['train']).sum() / spread < 2
    assert curve.steps[0] == 10 and curve.steps[-1] == 60 and curve.errors[-1] < curve.errors[0]


def test_an_alternating_fit_never_gets_worse(conv):
    moments = Moments.of(make_rows(conv, 0))
    for groups in (CHANNELS, 4):
        for start in (0, 1):
            fit = _alternate(moments, groups, start)
            assert isinstance(fit, Alternated) and len(fit.history) > 2
            for before, after in zip(fit.history, fit.history[1:]):
                assert after <= before * (1 + 1e-9)


def test_dead_and_constant_channels_do_no_harm(conv):
    rows = make_rows(conv, 0)
    rows.patches[:, 2] = 0
    rows.patches[:, 5] = 3
    for kind in KINDS:
        one = fitted(kind, conv, rows)
        assert all(value.isfinite().all() for value in one.state_dict().values()), kind
        assert 0 < share_off(one, rows) < 1, kind


def test_pconvs_fit_is_that_of_a_block_of_ours(conv):
    rows = make_rows(conv, 0)
    one = fitted('PConv', conv, rows)
    assert isinstance(one.layer(), PConvBlock)
    assert sum(p.numel() for p in one.layer().parameters()) == sum(p.numel() for p in one.parameters())
