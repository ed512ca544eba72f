"""What a stock config's adaptation says, by kind of neck and head, and what is refused."""

import pytest
import torch
from mmengine.config import Config

from fasternet_mm import FasterNet
from fasternet_mm.adapt import adapt, read_config, with_fasternet
from fasternet_mm.adapt.maps import build, maps_of
from fasternet_mm.errors import UserError
from fasternet_mm.models import ProjectedFasterNet

RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
THREE = (1, 2, 3)
EXPECTED = {  # t0: out_indices, and all changes of the model but the backbone's
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': (None, dict(neck=dict(in_channels=[40, 80, 160, 320]))),
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py': (
        THREE, dict(neck=dict(in_channels=[80, 160, 320], start_level=0))
    ),
    'mmdet::nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py': (
        None, dict(neck=dict(in_channels=[40, 80, 160, 320]), data_preprocessor=RGB)
    ),
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py': (
        THREE, dict(neck=dict(in_channels=[80, 160, 320]), data_preprocessor=RGB)
    ),
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py': (
        THREE, dict(neck=dict(in_channels=[80, 160, 320]), data_preprocessor=RGB)
    ),
    'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py': (
        THREE, dict(neck=dict(in_channels=[320, 160, 80]), data_preprocessor=dict(mean=RGB['mean'], std=RGB['std']))
    ),
    'mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py': ((3,), dict(neck=dict(in_channels=320), data_preprocessor=RGB)),
    'mmdet::detr/detr_r50_8xb2-150e_coco.py': ((3,), dict(neck=dict(in_channels=[320]))),
    'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py': (None, dict(neck=dict(in_channels=[40, 80, 160, 320]))),
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': (
        None, dict(panoptic_head=dict(in_channels=[40, 80, 160, 320]))
    ),
    'mmpretrain::resnet/resnet50_8xb32_in1k.py': ((3,), dict(head=dict(in_channels=320))),
}  # fmt: skip
REFUSED = {
    'mmdet::ssd/ssd300_coco.py': 'model.neck, SSDNeck, does not take 80 channels at stride 8',
    'mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py': '256 channels at stride 4, 256 channels',
    'mmdet::tridentnet/tridentnet_r50-caffe_1x_coco.py': "'FasterNet' object has no attribute 'num_branch'",
    'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py': 'model.roi_head.shared_head.layer4.0.conv1: .*1024',
    'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py': 'model.backbone: VisionTransformer gives',
    'mmdet::misc/d2_mask-rcnn_r50-caffe_fpn_ms-90k_coco.py': 'no model.backbone .* Detectron2Wrapper',
}


@pytest.mark.parametrize('config', EXPECTED)
def test_numbers_that_depended_on_the_old_backbone_follow_and_nothing_else(config):
    cfg = read_config(config)
    before = cfg.pretty_text
    changes = adapt(cfg).changes
    indices, others = EXPECTED[config]
    backbone = changes['model'].pop('backbone')
    assert backbone.pop('out_norm', False) is config.startswith('mmdet')
    assert backbone.pop('out_indices', None) == indices
    pretrained = dict(type='Pretrained', checkpoint='fasternet://fasternet_t0')
    assert backbone == dict(_delete_=True, type='FasterNet', arch='t0', init_cfg=pretrained)
    assert changes == dict(custom_imports=dict(imports=['fasternet_mm'], allow_failed_imports=False), model=others)
    assert cfg.pretty_text == before


@pytest.mark.parametrize('config', REFUSED)
def test_what_cannot_be_met_is_named_in_one_line(config):
    with pytest.raises(UserError, match=REFUSED[config]) as caught:
        adapt(read_config(config))
    assert '\n' not in str(caught.value)


def test_the_first_of_several_necks_follows_and_the_others_stay():
    cfg = read_config('mmdet::dyhead/atss_r50_fpn_dyhead_1x_coco.py')
    first, second = with_fasternet(cfg, 't1').model.neck
    assert (first.in_channels, first.start_level, first.out_channels) == ([128, 256, 512], 0, 256)
    assert second == cfg.model.neck[1]


def test_a_nested_detector_takes_it_and_all_preprocessors_follow():
    cfg = read_config('mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py')
    model = with_fasternet(cfg, 's').model
    assert model.detector.backbone.type == 'FasterNet'
    assert model.detector.neck.in_channels == [128, 256, 512, 1024]
    assert {key: model.data_preprocessor.data_preprocessor[key] for key in RGB} == RGB
    assert {key: model.detector.data_preprocessor[key] for key in RGB} == RGB


def test_random_weights_leave_the_pixels_as_they_are():
    changes = adapt(read_config('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'), 't0', 'none').changes
    assert 'data_preprocessor' not in changes['model'] and 'init_cfg' not in changes['model']['backbone']


def test_a_checkpoint_of_the_whole_old_model_is_left_out():
    adaptation = adapt(read_config('mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py'))
    assert adaptation.changes['load_from'] is None
    assert any('load_from=' in note and 'is left out' in note for note in adaptation.notes)


def test_an_optimizer_that_knows_the_old_layers_is_left_out():
    config = 'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'
    wrapper = with_fasternet(read_config(config)).optim_wrapper
    assert (wrapper.constructor, wrapper.paramwise_cfg) == ('DefaultOptimWrapperConstructor', None)
    assert wrapper.optimizer == read_config(config).optim_wrapper.optimizer


def test_sgd_stays_and_is_mentioned():
    cfg = read_config('mmdet::atss/atss_r50_fpn_1x_coco.py')
    adaptation = adapt(cfg, 'm')
    assert 'SGD' in adaptation.notes[0] and 'lr=1e-4' in adaptation.notes[1]
    assert adaptation.applied(cfg).optim_wrapper == cfg.optim_wrapper


@pytest.mark.parametrize(
    'config',
    [
        'mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py',
        'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
        'mmdet::ssd/ssd512_coco.py',
    ],
)
def test_projected_the_heads_see_what_they_saw(config):
    cfg = read_config(config)
    adapted = with_fasternet(cfg, 't0', project=True)
    with torch.device('meta'):
        assert maps_of(adapted.model.backbone, 'mmdet') == maps_of(cfg.model.backbone, 'mmdet')
        assert isinstance(build(adapted.model.backbone, 'mmdet'), ProjectedFasterNet)
    followed = ('backbone', 'data_preprocessor')
    assert {k: v for k, v in adapted.model.items() if k not in followed} == {
        k: v for k, v in cfg.model.items() if k not in followed
    }


def test_projection_starts_from_the_weights_of_a_plain_backbone(tmp_path):
    plain = FasterNet('t0')
    plain.init_weights()
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    weights = dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth'))
    projected = ProjectedFasterNet(dict(arch='t0', init_cfg=weights), [256, 64, 8], [16, 32, 8])
    projected.init_weights()
    found = projected.fasternet.state_dict()
    assert found and all(torch.equal(value, plain.state_dict()[name]) for name, value in found.items())
    assert [tuple(x.shape) for x in projected(torch.zeros(2, 3, 64, 96))] == [
        (2, 256, 4, 6),
        (2, 64, 2, 3),
        (2, 8, 8, 12),
    ]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (([], [4]), 'out_channels must be a list of ints'),
        (([8], [0]), r'out_strides\[0\] must be'),
        (([8, 8], [4]), 'out_channels has 2 entries, but out_strides 1'),
    ],
)
def test_projection_names_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProjectedFasterNet(dict(arch='t0'), *arguments)


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(default_scope='mmocr'), "default_scope is 'mmocr'"),
        (dict(model=dict(type='X')), 'no model.backbone .* its model is a X'),
        (dict(model=dict(backbone=dict(type='ResNet', depth=7))), 'model.backbone, ResNet, cannot be run here itself'),
    ],
)
def test_wrong_configs_are_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        adapt(Config(dict(dict(default_scope='mmdet'), **changes)))


@pytest.mark.parametrize('arguments', [('t9',), ('t0', 'fasternet://fasternet_t9'), ('t0', 'no_such.pth')])
def test_wrong_arguments_are_one_line(arguments):
    with pytest.raises(UserError, match='t9|no_such'):
        adapt(read_config('mmdet::atss/atss_r50_fpn_1x_coco.py'), *arguments)


def test_a_neck_that_is_not_the_backbones_is_named():
    cfg = read_config('mmdet::atss/atss_r50_fpn_1x_coco.py')
    cfg.model.neck.in_channels = [1, 2, 3, 4]
    with pytest.raises(UserError, match=r'model.neck.in_channels is \[1, 2, 3, 4\], but the backbone'):
        adapt(cfg)
