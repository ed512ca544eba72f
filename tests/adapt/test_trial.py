"""Adapted configs of ten kinds train a step and predict, on two images of 64 pixels."""

import pytest

from fasternet_mm.adapt import read_config, try_out, with_fasternet
from fasternet_mm.errors import UserError

PLAIN = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mmdet::fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py',
    'mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
    'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
    'mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
]


@pytest.mark.parametrize('config', PLAIN)
def test_it_trains_a_step_and_predicts(config):
    cfg = with_fasternet(read_config(config), 't0')
    weights = cfg.model.backbone.init_cfg
    trial = try_out(cfg, side=64)
    assert trial.losses['loss'] > 0
    assert len(trial.predictions.split('; ')) == 2
    assert cfg.model.backbone.init_cfg == weights


def test_a_projected_detector_trains_a_step_and_predicts():
    cfg = read_config('mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py')
    assert try_out(with_fasternet(cfg, 't0', project=True), side=64).losses['off_loss'] > 0


def test_a_model_that_takes_other_inputs_says_so():
    cfg = read_config('mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py')
    with pytest.raises(UserError, match='SoftTeacher, takes other inputs than a batch of images'):
        try_out(cfg)
