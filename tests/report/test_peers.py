"""Today's peers: from timm, at their own sizes, in the form that each has for inference, with named sources."""

import pytest
import timm
import torch
from mmdet.models import MaskRCNN

from fasternet_mm.deploy.onnx import relative_difference
from fasternet_mm.report import suite
from fasternet_mm.report.measure.modes import fused
from tests.helpers.networks import settled

PEERS = {row.name: row for row in suite('peers')}
DETECTORS = {row.name: row for row in suite('peers_coco')}
NEW = [name for name in PEERS if not name.startswith('FasterNet')]


def test_figures_have_a_source_and_say_who_is_distilled():
    for name in NEW:
        published = PEERS[name].published
        assert published.source.startswith('huggingface/pytorch-image-models, results/results-imagenet.csv, ')
        assert 75 < published.top1 < 85
        if '_dist' in published.source or '.dist' in published.source:
            assert published.note == 'distilled'
    for name in ('RepViT-M1.1', 'RepViT-M1.5', 'RepViT-M2.3', 'SHViT-S4'):
        assert DETECTORS[name].published.source.endswith('README.md')
    assert DETECTORS['RepViT-M2.3'].published.note == 'the backbone was distilled'
    assert not DETECTORS['StarNet-S4'].published


@pytest.mark.parametrize('name', NEW)
def test_the_size_is_that_of_the_quoted_weights(name):
    weights = PEERS[name].published.source.rpartition(', ')[2]
    assert timm.get_pretrained_cfg(weights).input_size == (3, *PEERS[name].shape)


def test_fasternets_stand_beside():
    assert [name for name in PEERS if name not in NEW] == [f'FasterNet-{arch}' for arch in ('T1', 'T2', 'S', 'M', 'L')]
    assert [name for name in DETECTORS if name not in NEW] == [f'FasterNet-{arch}' for arch in 'SML']


@pytest.mark.parametrize('model', ['repvit_m0_9', 'fastvit_t8'])
def test_branches_are_merged_and_compute_the_same(model):
    model, images = settled(timm.create_model(model)), torch.randn(1, 3, 64, 64)
    layers = len(list(model.modules()))
    with torch.no_grad():
        before = model(images)
        model = fused(model)
        assert relative_difference([model(images)], [before]) < 1e-4
    assert len(list(model.modules())) < layers
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize('name', ['RepViT-M1.1', 'MobileNetV4-Conv-M', 'FastViT-SA12'])
def test_a_detector_has_the_five_levels_of_its_pyramid(name):
    with torch.device('meta'):
        model = DETECTORS[name].build()
        assert isinstance(model, MaskRCNN) and not model.training
        levels = model.extract_feat(torch.zeros(1, 3, 128, 192))
    assert [tuple(level.shape[1:]) for level in levels] == [(256, 128 // s, 192 // s) for s in (4, 8, 16, 32, 64)]


def test_networks_without_a_pyramid_are_listed_with_the_reason():
    missing = {name: row.reason for name, row in DETECTORS.items() if row.build is None}
    assert set(missing) == {'SHViT-S4', 'EfficientFormerV2-S2', 'EfficientFormerV2-L'}
    with torch.device('meta'):
        shvit = timm.create_model('shvit_s4', features_only=True)
        assert shvit.feature_info.reduction() == [16, 32, 64]
        with pytest.raises(RuntimeError):
            timm.create_model('efficientformerv2_s2', features_only=True)(torch.zeros(1, 3, 128, 192))
