"""Stock detectors of mmdet around a tiny FasterNet, with random weights that find something."""

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from fasternet_mm.deploy.detector.compare import batch_of
from fasternet_mm.report.measure.detections import make_detections

STOCK = {  # configs of mmdet by name
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'Cascade R-CNN': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'Cascade Mask R-CNN': 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'RetinaNet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'FCOS': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'ATSS': 'atss/atss_r50_fpn_1x_coco.py',
    'RTMDet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
}


def stock_config(name: str) -> Config:
    """Return the config of one of :data:`STOCK` with a FasterNet of 8 channels."""
    three = name == 'RTMDet'
    text = (
        f"_base_ = 'mmdet::{STOCK[name]}'\n"
        'model = dict(\n'
        "    backbone=dict(_delete_=True, type='FasterNet', arch=dict(embed_dims=8, depths=(1, 1, 1, 1)),\n"
        f'                  out_indices={(1, 2, 3) if three else (0, 1, 2, 3)}),\n'
        f'    neck=dict(in_channels={[16, 32, 64] if three else [8, 16, 32, 64]}))\n'
    )
    return Config.fromstring(text, '.py')


def finding(name: str, size: tuple[int, int] = (128, 160)) -> tuple[nn.Module, Config]:
    """Build one of :data:`STOCK`, in evaluation mode, whose random weights find objects in noise of H, W."""
    torch.manual_seed(0)
    cfg = stock_config(name)
    for part in ('rpn', 'rcnn'):
        if part in cfg.model.test_cfg:
            cfg.model.test_cfg[part].max_per_img = 20
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model).eval()
    make_detections(model, [batch_of(noise(size))])
    return model, cfg


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return an input of an exported file, (1, H, W, 3), uint8: coarse noise, which gives different boxes."""
    coarse = np.random.RandomState(seed).randint(0, 256, (1, size[0] // 8 + 1, size[1] // 8 + 1, 3), np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)[:, : size[0], : size[1]]
