"""A whole study of substitutes on a small network."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import unfold

from fasternet_mm import PConvBlock
from fasternet_mm.errors import UserError
from fasternet_mm.report import Limits
from fasternet_mm.study import approximation, find_pictures
from fasternet_mm.study.approximation import quotient
from fasternet_mm.study.layers import regular_convs
from fasternet_mm.study.rows import rows_of
from tests.helpers.networks import t_shaped_filter

FAST = Limits(0, 0, 2)


def test_the_first_regular_convolution_of_each_stage_is_taken(net):
    assert regular_convs(net) == ['body.0', 'body.3', 'body.6', 'body.9']


def test_rows_are_what_a_layer_sees_and_gives(net, pictures):
    files = find_pictures(pictures)
    rows, size = rows_of(net, 'body.3', dict(train=files[:9], test=files[9:]), most=12 * 20)
    conv = net.model.body[3]
    assert size == (16, 16) and {part: len(each) for part, each in rows.items()} == dict(train=9 * 20, test=3 * 20)
    for each in rows.values():
        with torch.no_grad():
            want = each.patches.flatten(1) @ conv.weight.flatten(1).T + conv.bias
        assert torch.allclose(each.outputs, want, atol=1e-5)
        assert each.image.bincount().unique().tolist() == [20]
    # of a picture of its own: the same pixels as those of the whole map
    with torch.no_grad():
        before = net.model.stem(net.prepare(files[0])[None]).relu()
        for layer in net.model.body[:3]:
            before = layer(before)
    every = unfold(before, 3, padding=1, stride=2)[0].T
    for patch in rows['train'].patches[:20]:
        assert (every - patch.flatten()).abs().amax(1).min() < 1e-5


def test_a_layer_that_a_pconv_could_be_is_found_to_be_one(net, pictures):
    block = PConvBlock(32, 32)
    conv = net.model.body[6] = nn.Conv2d(32, 32, 3, 1, 1)
    with torch.no_grad():
        conv.weight.copy_(t_shaped_filter(block))
    (layer,) = approximation(net, find_pictures(pictures), ['body.6'], rows=900, steps=0, limits=FAST).layers
    by_name = {one.name: one for one in layer.substitutes}
    assert by_name['PConv + PWConv'].optimum.train_error < 1e-6
    assert by_name['PConv + PWConv'].optimum.test_error < 1e-6
    assert by_name['DWConv + PWConv'].optimum.test_error > 1e-3


def test_costs_are_those_of_the_layers(net, pictures):
    result = approximation(net, find_pictures(pictures), ['body.0', 'body.3'], rows=500, steps=20, limits=FAST)
    for layer, c, out, pixels, read in zip(result.layers, (16, 16), (16, 32), (16 * 16, 8 * 8), (16 * 16, 16 * 16)):
        by_name = {one.name: one for one in layer.substitutes}
        assert layer.multiply_adds == 9 * c * out * pixels and layer.parameters == 9 * c * out + out
        quarter = c // 4
        wanted = {
            'DWConv + PWConv': (9 * c + c * out) * pixels,
            'GConv (16) + PWConv': (9 * c * c // 16 + c * out) * pixels,
            'PConv + PWConv': 9 * quarter**2 * read + c * out * pixels,  # PConv's stride is 1
            'PWConv': c * out * pixels,
            'T-shaped conv': (9 * quarter * out + (c - quarter) * out) * pixels,  # equation 6
        }
        assert {name: by_name[name].multiply_adds for name in wanted} == wanted
        for one in layer.substitutes:
            assert one.latency_ms.n == 2 and one.trained and one.curve.steps[-1] == 20
            for fit in (one.optimum, one.trained):
                assert fit.interval[0] <= fit.test_error <= fit.interval[1]
        assert by_name['PConv + PWConv'].optimum.ratio == 1
        chosen = by_name['PConv + PWConv, best of 8 random quarters'].channels
        assert len(chosen) == quarter and by_name['PConv + PWConv'].channels is None
    assert result.layers[0].labels == []
    (label,) = result.layers[1].labels
    assert 'its stride is 2' in label and 'more multiply-adds' in label


def test_groups_that_do_not_divide_the_channels_are_said(net, pictures):
    net.model.body[9] = nn.Conv2d(32, 24, 3, 1, 1)
    net.model.body[11] = nn.Conv2d(24, 24, 3, 1, 1)
    (layer,) = approximation(net, find_pictures(pictures), ['body.11'], rows=48, steps=0, limits=FAST).layers
    assert layer.missing == {'GConv (16) + PWConv': '16 groups do not divide 24 channels'}
    assert len(layer.substitutes) == 5
    assert layer.labels[0].startswith('36 training pixels for 72 weights')


@pytest.mark.parametrize(
    ('layers', 'said'),
    [
        (['body.2'], 'body.2: it has 4 groups'),
        (['body.1'], 'body.1: its class is ReLU'),
        (['bodi.0'], "no such layer; did you mean 'body.0'"),
    ],
)
def test_layers_that_are_no_regular_convolutions_are_refused(net, pictures, layers, said):
    with pytest.raises(UserError, match=said):
        approximation(net, find_pictures(pictures), layers)


def test_an_interval_is_over_images_and_holds_the_quotient():
    above, below = np.array([1.0, 2, 3, 4]), np.array([2.0, 2, 2, 2])
    value, (low, high) = quotient(above, below)
    assert value == 1.25 and 0.5 <= low < 1.25 < high <= 2
    assert quotient(below * 3, below) == (3, [3, 3])
