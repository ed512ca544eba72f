"""Equality with timm's FasterNet, given the same weights."""

import pytest
import timm
import torch
from mmengine.registry import DefaultScope

from fasternet_mm.checkpoint import convert_state_dict
from fasternet_mm.report.measure.counting import count_parameters
from tests.helpers import build_classifier, relative_error
from tests.helpers.golden import VARIANTS, image, official_state_dict

SHAPES = [(2, 3, 128, 128), (1, 3, 96, 160)]


@pytest.fixture(scope='module', params=VARIANTS)
def pair(request):
    """Ours and timm's, with one set of weights: the statistics of BN are far from their start, too."""
    weights = official_state_dict(request.param, 'classification', seed=6)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        ours = build_classifier(request.param).eval()
    theirs = timm.create_model(f'fasternet_{request.param}').eval()
    theirs.load_state_dict(convert_state_dict(weights, 'timm'), strict=True)
    ours.load_state_dict(convert_state_dict(theirs.state_dict(), 'mm'), strict=True)
    return ours, theirs


def test_number_of_parameters(pair):
    ours, theirs = pair
    assert count_parameters(ours) == count_parameters(theirs)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_logits_and_four_features(pair, shape):
    ours, theirs = pair
    ours.backbone.out_indices = (0, 1, 2, 3)
    x = image(shape, seed=7)
    with torch.no_grad():
        features = ours.backbone(x)
        want, intermediates = theirs.forward_intermediates(x)
        assert relative_error(ours.head(features), theirs.forward_head(want)) < 1e-5
    assert len(features) == len(intermediates) == 4
    for got, want in zip(features, intermediates):
        assert relative_error(got, want) < 1e-5


@pytest.mark.usefixtures('mmpretrain_scope')
@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_gradients(mode):
    """In fp64: a training step of T0 (without drop path) is timm's."""
    weights = official_state_dict('t0', 'classification', seed=6)
    ours, theirs = build_classifier('t0').double(), timm.create_model('fasternet_t0').double()
    theirs.load_state_dict(convert_state_dict(weights, 'timm'))
    ours.load_state_dict(convert_state_dict(weights, 'mm'))
    x = image((2, 3, 64, 96), seed=7).double()
    grads = []
    for model in (ours, theirs):
        getattr(model, mode)()
        (model(x) ** 2).mean().backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    want = convert_state_dict(grads[1], 'mm')
    assert set(grads[0]) == set(want)
    for name, grad in grads[0].items():
        assert relative_error(grad, want[name]) < 1e-5, name
