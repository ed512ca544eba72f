"""Where filters are largest, and how much maps repeat one another, on networks whose answer is known."""

import numpy as np
import pytest
import torch
from torch import nn

from fasternet_mm import FasterNet
from fasternet_mm.errors import UserError
from fasternet_mm.study import Preprocessing, Subject, find_pictures, redundancy, salient
from fasternet_mm.study.redundancy import explained, measured


def test_salient_positions_are_counted_by_stage(net):
    generator = torch.Generator().manual_seed(0)
    wanted = {}
    for number, layer in enumerate((0, 3, 6, 9), 1):
        conv = net.model.body[layer]
        places = torch.randint(0, 9, (conv.out_channels,), generator=generator)
        with torch.no_grad():
            conv.weight.uniform_(-0.1, 0.1)
            # over the input channels together, not in one of them: each is small
            conv.weight.flatten(2)[torch.arange(len(places)), :, places] = 0.12
        wanted[f'stage {number}'] = torch.bincount(places, minlength=9).tolist()
    found = salient(net)
    assert {stage.name: stage.counts for stage in found.stages} == wanted
    assert [stage.layers for stage in found.stages] == [['body.0'], ['body.3'], ['body.6'], ['body.9']]
    for stage in found.stages:
        assert sum(stage.counts) == stage.filters and sum(stage.energy) == pytest.approx(1)


def test_filters_of_zeros_are_left_out(net):
    net.model.body[0].weight.data[:5] = 0
    assert salient(net).stages[0].filters == 11


def test_pconvs_own_filters_count():
    model = FasterNet('t0', out_indices=(3,)).eval()
    found = salient(Subject('t0', model, Preprocessing(64, 64), model))
    assert [len(stage.layers) for stage in found.stages] == [1, 2, 8, 2]


def test_a_network_without_such_filters_is_refused():
    model = nn.Conv2d(3, 8, 1)
    with pytest.raises(UserError, match='no regular 3x3 convolution'):
        salient(Subject('x', model, Preprocessing(), model))


def sums(values: np.ndarray) -> torch.Tensor:
    values = np.concatenate((values, np.ones((len(values), 1))), 1)
    return torch.from_numpy(values.T @ values)


def test_numbers_of_maps_are_those_of_numpy():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(4000, 3)) @ generator.normal(size=(3, 8)) + generator.normal(size=(4000, 8)) + 5
    values[:, 7] = 2  # dead
    found = measured(sums(values), sums(values))
    correlation = np.abs(np.corrcoef(values[:, :7].T)) - np.eye(7)
    spectrum = np.sort(np.linalg.eigvalsh(np.cov(values[:, :7].T)))[::-1]
    assert found['constant'] == 1
    assert found['correlation'] == pytest.approx(np.quantile(correlation.max(0), (0.25, 0.5, 0.75)).tolist())
    assert found['components'] == np.argmax(np.cumsum(spectrum) / spectrum.sum() >= 0.9) + 1
    x, y = np.c_[values[:, :2], np.ones(4000)], values[:, 2:]
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert found['explained'] == pytest.approx(1 - (left**2).sum() / ((y - y.mean(0)) ** 2).sum())


def test_what_the_first_quarter_explains_is_counted_on_other_images():
    generator = np.random.default_rng(0)
    mixes = generator.normal(size=(2, 6))

    def linear(number):
        first = generator.normal(size=(number, 2))
        return np.c_[first, first @ mixes + 1]

    assert explained(sums(linear(50)), sums(linear(50))) == pytest.approx(1)
    noise = [generator.normal(size=(12, 8)) for _ in range(2)]
    assert explained(sums(noise[0]), sums(noise[1])) < 0  # what was fitted to noise is worse than the mean


def test_repeated_channels_are_found(net, pictures):
    with torch.no_grad():
        for layer in (net.model.stem,):
            layer.weight[4:] = layer.weight[:4].repeat(3, 1, 1, 1)
            layer.bias[4:] = layer.bias[:4].repeat(3)
    result, maps = redundancy(net, find_pictures(pictures))
    assert [layer.name for layer in result.layers] == ['body.0', 'body.3', 'body.6', 'body.9']
    first = result.layers[0]
    assert first.correlation == pytest.approx([1, 1, 1], abs=1e-6) and first.components <= 4
    assert first.explained == pytest.approx(1, abs=1e-6)
    assert first.rows == 12 * 16 * 16 and result.images == dict(train=10, test=2)
    assert maps['body.0'].shape == (16, 16, 16)
    assert result.layers[1].explained < 1


def test_the_input_of_a_layer_is_seen_before_it_writes_over_it(net, pictures):
    found = redundancy(net, find_pictures(pictures), ['body.1'])
    net.model.body[1].inplace = False
    want = redundancy(net, find_pictures(pictures), ['body.1'])
    assert found[0] == want[0] and (found[1]['body.1'] < 0).any()
    torch.testing.assert_close(found[1], want[1])


def test_layers_of_other_kinds_can_be_named(net, pictures):
    result, _ = redundancy(net, find_pictures(pictures), ['body.1'])
    assert result.layers[0].channels == 16
    net.model.body.append(nn.Flatten(2)).append(nn.Linear(4, 4))
    with pytest.raises(UserError, match='takes no map'):
        redundancy(net, find_pictures(pictures), ['body.13'])
