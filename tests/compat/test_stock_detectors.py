"""Stock configs of mmdet, without a FasterNet, train and predict on mmcv-lite after ``import fasternet_mm``."""

import re
from importlib.metadata import distribution

import pytest
from mmengine.config import Config

from fasternet_mm.adapt.trial import try_out

from ..helpers import REPO

CONFIGS = [
    'carafe/mask-rcnn_r50_fpn-carafe_1x_coco.py',
    'dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco.py',
    'dyhead/atss_r50_fpn_dyhead_1x_coco.py',
    'guided_anchoring/ga-faster-rcnn_r50_fpn_1x_coco.py',
]


@pytest.mark.parametrize('name', CONFIGS)
def test_a_stock_config_trains_a_step_and_predicts(name):
    cfg = Config.fromstring(f"_base_ = 'mmdet::{name}'", '.py')
    cfg.model.backbone.update(depth=18, base_channels=8)
    neck = cfg.model.neck[0] if isinstance(cfg.model.neck, list) else cfg.model.neck
    neck.in_channels = [8, 16, 32, 64]
    if name.startswith('dcnv2'):
        cfg.model.roi_head.bbox_roi_extractor.roi_layer.deform_fc_channels = 16
    if 'rcnn' in cfg.model.get('train_cfg', {}):
        cfg.model.train_cfg.rcnn.sampler.num, cfg.model.test_cfg.rcnn.max_per_img = 16, 4
    trial = try_out(cfg, side=64)
    assert trial.losses['loss'] > 0 and trial.predictions


@pytest.mark.parametrize('package', ['mmdet', 'mmpretrain', 'mmsegmentation'])
def test_the_table_names_every_operator_that_is_imported(package):
    table = (REPO / 'docs' / 'operators.md').read_text()
    files = [file.locate() for file in distribution(package).files if file.suffix == '.py' and '.mim' not in file.parts]
    text = '\n'.join(file.read_text() for file in files)
    names = ' '.join(re.findall(r'from mmcv\.ops\S* import \(?([\w, ]+)', text)).replace(',', ' ').split()
    assert names or package == 'mmpretrain'
    missing = {name for name in names if name not in ('as', '_sigmoid_focal_loss') and f'`{name}`' not in table}
    assert not missing
