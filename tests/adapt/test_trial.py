"""Adapted configs of sixteen kinds train a step and predict, on two images of 64 pixels."""

from pathlib import Path

import pytest
from mmengine.config import Config

from fasternet_mm.adapt import adapt, read_config, try_out, with_fasternet
from fasternet_mm.adapt.maps import build_whole
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
    'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
    'mmdet::qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base.py',
    'mmdet::mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2019.py',
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
]
RE_IDENTIFICATION = 'mmdet::reid/reid_r50_8xb32-6e_mot15train80_test-mot15val20.py'
DISTILLED = 'mmdet::ld/ld_r18-gflv1-r101_fpn_1x_coco.py'


@pytest.mark.parametrize('config', PLAIN)
def test_it_trains_a_step_and_predicts(config):
    cfg = with_fasternet(read_config(config), 't0')
    backbone = cfg.model.get('detector', cfg.model).backbone
    weights = backbone.init_cfg
    trial = try_out(cfg, side=64)
    assert trial.losses['loss'] > 0
    assert len(trial.predictions.split('; ')) == 2
    assert backbone.init_cfg == weights


def test_a_network_of_re_identification_gives_features():
    assert try_out(with_fasternet(read_config(RE_IDENTIFICATION), 't0')).predictions.startswith('128 features; ')


def test_a_teachers_config_is_found_in_the_installed_mmdet():
    adaptation = adapt(read_config(DISTILLED))
    teacher = adaptation.changes['model']['teacher_config']
    assert Path(teacher).is_file() and teacher.endswith('configs/gfl/gfl_r101_fpn_ms-2x_coco.py')
    assert any('teacher_config=configs/gfl/' in note for note in adaptation.notes)
    assert try_out(adaptation.applied(read_config(DISTILLED)), side=64).losses['loss_ld'] > 0


def test_a_language_model_is_a_small_random_one():
    pytest.importorskip('transformers')
    cfg = with_fasternet(read_config('mmdet::glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py'), 't0')
    found = build_whole(cfg, 'mmdet').language_model(['bench. car'])
    assert found['embedded'].shape == (1, 256, 768) and found['masks'].sum() == 5  # with a mark at each end


def test_a_projected_detector_trains_a_step_and_predicts():
    cfg = read_config('mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py')
    assert try_out(with_fasternet(cfg, 't0', project=True), side=64).losses['off_loss'] > 0


def test_a_tracker_of_parts_predicts_alone():
    pytest.importorskip('motmetrics')
    cfg = read_config('mmdet::sort/sort_faster-rcnn_r50_fpn_8xb2-4e_mot17train_test-mot17test.py')
    trial = try_out(with_fasternet(cfg, 't0'), side=64)
    assert trial.losses == {} and 'tracks' in trial.predictions


def test_another_librarys_model_says_so():
    with pytest.raises(UserError, match='EncoderDecoder, is of mmocr: only models of mmdet, mmpretrain, mmseg'):
        try_out(Config(dict(default_scope='mmocr', model=dict(type='EncoderDecoder'))))
