"""Stock configs of mmdet, without a FasterNet, train and predict on mmcv-lite after ``import fasternet_mm``."""

import re
from importlib.metadata import PackageNotFoundError, distribution

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope

from ..helpers import REPO

CONFIGS = [
    'carafe/mask-rcnn_r50_fpn-carafe_1x_coco.py',
    'dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco.py',
    'dyhead/atss_r50_fpn_dyhead_1x_coco.py',
    'guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py',
]


def shrunken(name):
    """A stock model with a ResNet of a few channels, without weights."""
    cfg = Config.fromstring(f"_base_ = 'mmdet::{name}'", '.py').model
    cfg.backbone.update(depth=18, base_channels=8, init_cfg=None)
    neck = cfg.neck[0] if isinstance(cfg.neck, list) else cfg.neck
    neck.in_channels = [8, 16, 32, 64]
    if 'roi_head' in cfg:
        cfg.roi_head.bbox_head.fc_out_channels, cfg.train_cfg.rcnn.sampler.num = 16, 8
    cfg.test_cfg.get('rcnn', cfg.test_cfg).update(score_thr=0.0, max_per_img=4)
    if name.startswith('dcnv2'):
        cfg.roi_head.bbox_roi_extractor.roi_layer.deform_fc_channels = 16
    return MODELS.build(cfg)


@pytest.mark.parametrize('name', CONFIGS)
def test_a_stock_config_trains_a_step_and_predicts(name):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = shrunken(name)
        two, one = (demo_mm_inputs(count, (3, 64, 64), with_mask=True) for count in (2, 1))
        losses = model.train_step(two, OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-4)))
        assert all(loss.isfinite() for loss in losses.values())
        assert all(parameter.isfinite().all() for parameter in model.parameters())
        (found,) = model.eval().test_step(one)  # guided anchoring takes one image at a time
    assert len(found.pred_instances)


@pytest.mark.parametrize('package', ['mmdet', 'mmpretrain', 'mmsegmentation'])
def test_the_table_names_every_operator_that_is_imported(package):
    table = (REPO / 'docs' / 'operators.md').read_text()
    try:
        installed = distribution(package)
    except PackageNotFoundError:
        pytest.skip(f'{package} is not installed')
    files = [file.locate() for file in installed.files if file.suffix == '.py' and '.mim' not in file.parts]
    text = '\n'.join(file.read_text() for file in files)
    names = ' '.join(re.findall(r'from mmcv\.ops\S* import \(?([\w, ]+)', text)).replace(',', ' ').split()
    assert names or package == 'mmpretrain'
    missing = {name for name in names if name not in ('as', '_sigmoid_focal_loss') and f'`{name}`' not in table}
    assert not missing
