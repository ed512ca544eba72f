"""The plain-tensor form of a detector finds what mmdet's own prediction finds, with every head that is supported."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from fasternet_mm.deploy import switch_to_deploy
from fasternet_mm.deploy.detector import DetectorGraph
from fasternet_mm.deploy.detector.compare import compare, predicted
from fasternet_mm.deploy.detector.export import settings_of
from fasternet_mm.errors import UserError

from ...helpers.detectors import STOCK, finding, noise, stock_config


def outputs_of(graph, image):
    with torch.no_grad():
        return {name: out.numpy() for name, out in zip(graph.outputs, graph(torch.from_numpy(image.copy())))}


@pytest.fixture(scope='module', params=STOCK)
def detector(request):
    return finding(request.param)[0]


def test_finds_what_mmdet_finds_in_the_deploy_form(detector):
    size = (128, 160)
    graph = DetectorGraph(switch_to_deploy(copy.deepcopy(detector))).eval()
    image = noise(size)
    want = predicted(detector, image)
    agreement = compare(outputs_of(graph, image), want, size, settings_of(detector), 0.5)
    assert agreement.detections >= 5
    assert agreement.undecided <= 0.05 * agreement.detections
    assert agreement.undecided_pixels <= 1e-3 * agreement.pixels


def test_an_image_without_detections_gives_empty_outputs(detector):
    detector = copy.deepcopy(detector)
    settings_of(detector).score_thr = 1.0
    outputs = outputs_of(DetectorGraph(detector).eval(), noise((64, 96)))
    assert outputs['boxes'].shape == (0, 4) and outputs['scores'].shape == outputs['labels'].shape == (0,)
    assert 'masks' not in outputs or outputs['masks'].shape == (0, 28, 28)


def built(change, name='Mask R-CNN'):
    cfg = stock_config(name)
    change(cfg.model)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(cfg.model).eval()


@pytest.mark.parametrize(
    'change, name, message',
    [
        (lambda m: m.test_cfg.rcnn.nms.update(type='soft_nms'), 'Faster R-CNN', r'test_cfg.rcnn.nms=.*soft_nms'),
        (lambda m: m.test_cfg.rpn.nms.update(type='soft_nms'), 'Faster R-CNN', r'test_cfg.rpn.nms=.*soft_nms'),
        (lambda m: m.test_cfg.nms.update(type='soft_nms'), 'RetinaNet', r'test_cfg.nms=.*soft_nms'),
        (lambda m: m.test_cfg.update(min_bbox_size=3), 'RetinaNet', 'min_bbox_size'),
        (
            lambda m: m.roi_head.bbox_roi_extractor.update(type='GenericRoIExtractor'),
            'Faster R-CNN',
            'roi_head.bbox_roi_extractor.type=GenericRoIExtractor',
        ),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named_before_tracing(change, name, message):
    with pytest.raises(UserError, match=message):
        DetectorGraph(built(change, name))


def test_a_head_that_predicts_in_its_own_way_is_named():
    cfg = Config.fromfile(Config._get_cfg_path('mmdet::gfl/gfl_r50_fpn_1x_coco.py', '')[0])
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(ConfigDict(cfg.model))
    with pytest.raises(UserError, match='model.bbox_head.type=GFLHead: .*--what backbone.neck works'):
        DetectorGraph(model)
