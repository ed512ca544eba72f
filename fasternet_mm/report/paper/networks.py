"""The rows of the paper's tables 3 and 4, each with the model of an installed package where one has it."""

import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import mmdet
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import Config
from mmpretrain.registry import MODELS as CLASSIFIERS
from torch import Tensor, nn

from ...hub import config_root
from ..schema import Published
from .rows import PAPER, Row, build_from, published_rows

_MASK_RCNN = Path(mmdet.__file__).parent / '.mim' / 'configs' / 'mask_rcnn'


def pipeline() -> Config:
    """Return the config whose test pipeline all rows of table 4 share."""
    return Config.fromfile(_mmdet('r50'))


def classifiers() -> list[Row]:
    """Return the rows of table 3, on ImageNet."""
    rows = []
    for published in _published(3, 'table3_imagenet'):
        name, reason = published.network, None
        build = _CLASSIFIERS.get(name)
        if name in _TIMM:
            if importlib.util.find_spec('timm') is None:
                reason = 'timm is not installed: pip install timm'
            else:
                build = partial(from_timm, _TIMM[name])
        elif build is None:
            reason = 'no installed package builds it'
        size = 256 if name.startswith(('MobileViT', 'EdgeNeXt')) else 224
        labels = (_POOLED,) if name.startswith('PVT') else ()
        rows.append(Row(name, published, (size, size), build, reason, labels))
    return rows


def detectors() -> list[Row]:
    """Return the rows of table 4, Mask R-CNN on COCO."""
    rows = _published(4, 'table4_coco_mask_rcnn_1x')
    return [Row(one.backbone, one, (800, 1280), _DETECTORS[one.backbone]) for one in rows]


def _published(number: int, rows: str) -> list[Published]:
    found = []
    for entry in published_rows(rows):
        name = entry.get('network') or entry['backbone']
        note = next((note for prefix, note in _NOTES.items() if name.startswith(prefix)), None)
        source = f'table {number} {PAPER}'
        found.append(Published(**entry, source=source, hardware='RTX 2080 Ti, BN fused', note=note))
    return found


def from_timm(name: str) -> nn.Module:
    """Build a classifier of timm."""
    import timm

    return timm.create_model(name, pretrained=False).eval()


def _shufflenet(widen_factor: float, channels: int) -> nn.Module:
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='ShuffleNetV2', widen_factor=widen_factor),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=channels),
    )
    return build_from(CLASSIFIERS, cfg)


class _PVT(nn.Module):
    """Classify by mmdet's Pyramid Vision Transformer, with pooled maps where the original has a class token."""

    def __init__(self, depths: Sequence[int]) -> None:
        super().__init__()
        cfg = dict(type='PyramidVisionTransformer', num_layers=depths, out_indices=(3,))
        self.backbone = build_from(DETECTORS, cfg)
        self.head = nn.Linear(512, 1000)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images)[0].mean((2, 3)))


def _pvt(depths: Sequence[int]) -> nn.Module:
    return _PVT(depths).eval()


def fasternet(variant: str, **backbone) -> nn.Module:
    """Build the classifier of a variant's config, with other arguments of its backbone if any are given."""
    model = Config.fromfile(config_root() / f'fasternet_{variant}_in1k.py').model
    model.train_cfg = None  # the augmentations of training
    model.backbone.update(backbone)
    if 'arch' in backbone:
        model.head.in_channels = 8 * backbone['arch']['embed_dims']
    if 'act_cfg' in backbone:
        model.head.act_cfg = backbone['act_cfg']
    return build_from(CLASSIFIERS, model)


def _mask_rcnn(path: Path) -> nn.Module:
    """Build the detector of a config without its pretrained weights."""
    model = Config.fromfile(path).model
    model.backbone.init_cfg = None
    return build_from(DETECTORS, model)


def mask_rcnn_on(backbone: dict, channels: Sequence[int]) -> nn.Module:
    """Build mmdet's Mask R-CNN of ResNet50 on another backbone, whose maps have `channels`."""
    model = Config.fromfile(_mmdet('r50')).model
    model.backbone, model.neck.in_channels = backbone, list(channels)
    return build_from(DETECTORS, model)


def _mmdet(network: str) -> Path:
    return _MASK_RCNN / f'mask-rcnn_{network}_fpn_1x_coco.py'


_TIMM = {
    'MobileNetV2': 'mobilenetv2_100', 'MobileNetV2 x1.4': 'mobilenetv2_140', 'MobileViT-XXS': 'mobilevit_xxs',
    'MobileViT-XS': 'mobilevit_xs', 'MobileViT-S': 'mobilevit_s', 'EdgeNeXt-XXS': 'edgenext_xx_small',
    'EdgeNeXt-XS': 'edgenext_x_small', 'EdgeNeXt-S': 'edgenext_small', 'GhostNet x1.3': 'ghostnet_130',
    'PoolFormer-S12': 'poolformer_s12', 'PoolFormer-S24': 'poolformer_s24', 'PoolFormer-S36': 'poolformer_s36',
    'PoolFormer-M36': 'poolformer_m36', 'PoolFormer-M48': 'poolformer_m48', 'ResNet50': 'resnet50',
    'ConvNeXt-T': 'convnext_tiny', 'ConvNeXt-S': 'convnext_small', 'ConvNeXt-B': 'convnext_base',
    'Swin-T': 'swin_tiny_patch4_window7_224', 'Swin-S': 'swin_small_patch4_window7_224',
    'Swin-B': 'swin_base_patch4_window7_224',
}  # fmt: skip
_PVT_DEPTHS = dict(Tiny=(2, 2, 2, 2), Small=(3, 4, 6, 3), Medium=(3, 4, 18, 3), Large=(3, 8, 27, 3))
_CLASSIFIERS = {
    'ShuffleNetV2 x1.5': partial(_shufflenet, 1.5, 1024),
    'ShuffleNetV2 x2': partial(_shufflenet, 2.0, 2048),
    **{f'PVT-{size}': partial(_pvt, depths) for size, depths in _PVT_DEPTHS.items()},
    **{f'FasterNet-{arch.upper()}': partial(fasternet, arch) for arch in ('t0', 't1', 't2', 's', 'm', 'l')},
}
_CHANNELS = (64, 128, 320, 512)  # PVT's and PoolFormer's alike
_DETECTORS = {
    **{name: partial(_mask_rcnn, _mmdet(network))
       for name, network in {'ResNet50': 'r50', 'ResNet101': 'r101', 'ResNeXt101-32x4d': 'x101-32x4d',
                             'ResNeXt101-64x4d': 'x101-64x4d'}.items()},
    # the odd indices are the layers between the stages
    **{f'PoolFormer-{arch.upper()}': partial(
            mask_rcnn_on, dict(type='mmpretrain.PoolFormer', arch=arch, out_indices=(0, 2, 4, 6)), _CHANNELS)
       for arch in ('s24', 's36')},
    **{f'PVT-{size}': partial(
            mask_rcnn_on, dict(type='PyramidVisionTransformer', num_layers=depths), _CHANNELS)
       for size, depths in _PVT_DEPTHS.items() if size != 'Tiny'},
    **{f'FasterNet-{arch.upper()}': partial(_mask_rcnn, config_root() / f'mask_rcnn_fasternet_{arch}.py')
       for arch in ('s', 'm', 'l')},
}  # fmt: skip
_POOLED = "mmdet's PVT with pooled maps, where the original has a class token in its last stage"
# why the paper's multiply-adds are others for the same network, as far as it can be seen
_NORMS_COUNT = 'the paper counts norms, too'
_NOTES = {
    'PVT': "the paper leaves out attention's matrix products",
    'MobileNetV2': _NORMS_COUNT,
    'MobileViT': _NORMS_COUNT,
    'GhostNet': _NORMS_COUNT,
}
