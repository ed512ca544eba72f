"""Random weights are made to find what a trained detector would, so that all of it is measured."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from fasternet_mm.engine.runner import load_config
from fasternet_mm.report import Subject, from_config
from fasternet_mm.report.measure.detections import make_detections
from fasternet_mm.report.measure.subject import detector_batches

from .measuring import run

DENSE = ConfigDict(nms_pre=200, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=20)


def dense(tiny: dict, head: dict) -> torch.nn.Module:
    model = dict(
        type='SingleStageDetector', backbone=dict(type='FasterNet', **tiny, out_indices=(1, 2, 3)),
        neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=16, num_outs=5, start_level=0,
                  add_extra_convs='on_output'),
        bbox_head=dict(num_classes=80, in_channels=16, feat_channels=16, stacked_convs=1, **head), test_cfg=DENSE,
        data_preprocessor=dict(type='DetDataPreprocessor'),
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(model)
    model.init_weights()
    return model.eval()


ANCHORS = dict(type='AnchorGenerator', strides=[8, 16, 32, 64, 128])
HEADS = {
    'RetinaNet': dict(type='RetinaHead', anchor_generator=dict(ANCHORS, octave_base_scale=4, scales_per_octave=3,
                                                               ratios=[0.5, 1.0, 2.0])),
    'FCOS': dict(type='FCOSHead', norm_cfg=None),
    'ATSS': dict(type='ATSSHead', norm_cfg=dict(type='GN', num_groups=4),
                 anchor_generator=dict(ANCHORS, octave_base_scale=8, scales_per_octave=1, ratios=[1.0])),
}  # fmt: skip


def found(model: torch.nn.Module, batches: list[dict]) -> list[int]:
    with torch.inference_mode():
        return [len(image.pred_instances) for batch in batches for image in model.test_step(dict(batch))]


@pytest.mark.parametrize('name', HEADS)
def test_a_dense_head_finds_what_it_may(tiny, name):
    torch.manual_seed(0)
    model = dense(tiny, HEADS[name])
    batches, *_ = detector_batches(Subject(name, 'detector', model), 1, (64, 96))
    assert found(model, batches) == [0]  # its bias starts at a score of one in a hundred
    again = copy.deepcopy(model)
    assert make_detections(model, batches) == make_detections(again, batches) == 20
    assert found(model, batches) == [20]
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_all_of_a_detector_with_random_weights_is_measured(tiny_config):
    path = str(tiny_config())
    subject = from_config(load_config(path, {'model.test_cfg.rcnn.max_per_img': 20}), path, None)
    (model,) = run([subject], modes=['eager', 'fused'], scopes=['backbone', 'detector', 'split']).models
    label = 'random weights, made to give 20 detections a picture: 20 came out'
    for row in model.measurements:
        assert row.error is None and (label in row.labels) == (row.scope == 'detector')
        assert row.detections == (20 if row.scope == 'detector' else None)
    assert label in model.split.labels and 'random weights' in model.labels


def test_trained_weights_stay_as_they_are(trained_detector):
    config, checkpoint = map(str, trained_detector)
    subject = from_config(load_config(config), config, checkpoint)
    before = copy.deepcopy(subject.model.state_dict())
    (model,) = run([subject], scopes=['detector']).models
    assert all(torch.equal(before[name], value) for name, value in subject.model.state_dict().items())
    assert not [label for label in model.measurements[0].labels if 'came out' in label]


def test_a_detector_that_finds_nothing_is_labelled(detector):
    detector.model.test_cfg.rcnn.max_per_img = None  # nobody says how many
    detector.model.roi_head.bbox_head.fc_cls.bias.data[-1] = 100
    (model,) = run([detector], scopes=['detector']).models
    assert 'no detections' in model.measurements[0].labels and model.measurements[0].detections == 0
