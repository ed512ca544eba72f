"""The rows of the paper's tables 3 and 4, each with the model of an installed package where one has it."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mmdet
import torch
from mmcv.cnn.bricks import DropPath
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from mmpretrain.registry import MODELS as CLASSIFIERS
from torch import Tensor, nn

from ...errors import UserError
from ...hub import config_root
from ...models import FasterNet
from ..schema import Published

_PUBLISHED = Path(__file__).with_name('published.json')
_MASK_RCNN = Path(mmdet.__file__).parent / '.mim' / 'configs' / 'mask_rcnn'


@dataclass(frozen=True)
class Table:
    """Say what is common to the rows of one of the paper's tables."""

    kind: str  # what its models are, 'classifier' or 'detector'
    reference: str  # the row that the others take turns with
    rows: str  # where its rows are in published.json
    source: str  # what the figures are quoted from


TABLES = {
    'table3': Table('classifier', 'FasterNet-T2', 'table3_imagenet', 'table 3 of the paper (CVPR 2023)'),
    'table4': Table('detector', 'FasterNet-S', 'table4_coco_mask_rcnn_1x', 'table 4 of the paper (CVPR 2023)'),
}


@dataclass(frozen=True)
class Row:
    """Hold a row of one of the paper's tables."""

    name: str
    published: Published
    shape: tuple[int, int]  # height and width of the input that the figures are for
    build: Callable[[], nn.Module] | None  # with random weights, in eval mode; None where no installed package has it
    reason: str | None  # why `build` is None


def suite(name: str, only: Sequence[str] = ()) -> list[Row]:
    """List the rows of a table, in the paper's order.

    Args:
        name (str): 'table3', the ImageNet classifiers, or 'table4', Mask R-CNN on COCO.
        only (Sequence[str]): Names of the rows to keep, in any case; all of them if empty.

    Raises:
        UserError: There is no such table, or a name in `only` is not one of its rows.
    """
    if name not in TABLES:
        raise UserError(f'No suite {name!r}; there are {", ".join(TABLES)}.')
    entries = json.loads(_PUBLISHED.read_text())[TABLES[name].rows]
    rows = [_row(TABLES[name], Published(**entry)) for entry in entries]
    unknown = [wanted for wanted in only if wanted.lower() not in {row.name.lower() for row in rows}]
    if unknown:
        raise UserError(f'Not in {name}: {", ".join(unknown)}. Its rows are {", ".join(row.name for row in rows)}.')
    wanted = {row.lower() for row in only or [row.name for row in rows]}
    return [row for row in rows if row.name.lower() in wanted]


def published_for(model: nn.Module) -> Published | None:
    """Return the paper's row for a FasterNet that is built as the row's is, up to what only trains; None for others."""
    if not isinstance(getattr(model, 'backbone', None), FasterNet):
        return None
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    for name in TABLES:
        for row in suite(name):
            # the names and counts spare building most of them
            if row.name.startswith('FasterNet') and abs(millions / row.published.params_m - 1) < 0.02:
                with torch.device('meta'):
                    if _structure(row.build()) == _structure(model):
                        return row.published
    return None


def _structure(model: nn.Module) -> tuple:
    """Return what tells architectures apart: kinds of layers, and shapes of parameters; heads may have other losses."""
    layers = [type(layer) for layer in model.backbone.modules() if not isinstance(layer, (DropPath, nn.Identity))]
    return type(model), layers, {name: parameter.shape for name, parameter in model.named_parameters()}


def _row(table: Table, published: Published) -> Row:
    name = published.network or published.backbone
    published.source, published.hardware = table.source, 'RTX 2080 Ti, BN fused'
    published.note = next((note for prefix, note in _NOTES.items() if name.startswith(prefix)), None)
    if table.kind == 'detector':
        return Row(name, published, (800, 1280), _DETECTORS[name], None)
    build, reason = _CLASSIFIERS.get(name), None
    if name in _TIMM:
        if importlib.util.find_spec('timm') is None:
            reason = 'timm is not installed: pip install timm'
        else:
            build = partial(_from_timm, _TIMM[name])
    elif build is None:
        reason = 'no installed package builds it'
    size = 256 if name.startswith(('MobileViT', 'EdgeNeXt')) else 224
    return Row(name, published, (size, size), build, reason)


def _build(registry: Registry, cfg: dict) -> nn.Module:
    with DefaultScope.overwrite_default_scope(registry.scope):
        return registry.build(cfg).eval()


def _from_timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False).eval()


def _shufflenet(widen_factor: float, channels: int) -> nn.Module:
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='ShuffleNetV2', widen_factor=widen_factor),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=channels),
    )
    return _build(CLASSIFIERS, cfg)


class _PVT(nn.Module):
    """Classify by mmdet's Pyramid Vision Transformer, with pooled maps where the original has a class token."""

    def __init__(self, depths: Sequence[int]) -> None:
        super().__init__()
        self.backbone = _build(DETECTORS, dict(type='PyramidVisionTransformer', num_layers=depths, out_indices=(3,)))
        self.head = nn.Linear(512, 1000)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images)[0].mean((2, 3)))


def _pvt(depths: Sequence[int]) -> nn.Module:
    return _PVT(depths).eval()


def _fasternet(arch: str) -> nn.Module:
    model = Config.fromfile(config_root() / f'fasternet_{arch}_in1k.py').model
    model.train_cfg = None  # the augmentations of training
    return _build(CLASSIFIERS, model)


def _mask_rcnn(path: Path, **backbone) -> nn.Module:
    """Build the detector of a config without its pretrained weights, on another backbone if one is given."""
    model = Config.fromfile(path).model
    if backbone:
        model.backbone = backbone
        model.neck.in_channels = [64, 128, 320, 512]  # PVT's and PoolFormer's alike
    model.backbone.init_cfg = None
    return _build(DETECTORS, model)


def _mmdet(network: str, **backbone) -> Callable[[], nn.Module]:
    return partial(_mask_rcnn, _MASK_RCNN / f'mask-rcnn_{network}_fpn_1x_coco.py', **backbone)


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
    **{f'FasterNet-{arch.upper()}': partial(_fasternet, arch) for arch in ('t0', 't1', 't2', 's', 'm', 'l')},
}
_DETECTORS = {
    'ResNet50': _mmdet('r50'),
    'ResNet101': _mmdet('r101'),
    'ResNeXt101-32x4d': _mmdet('x101-32x4d'),
    'ResNeXt101-64x4d': _mmdet('x101-64x4d'),
    # the odd indices are the layers between the stages
    **{f'PoolFormer-{arch.upper()}': _mmdet('r50', type='mmpretrain.PoolFormer', arch=arch, out_indices=(0, 2, 4, 6))
       for arch in ('s24', 's36')},
    **{f'PVT-{size}': _mmdet('r50', type='PyramidVisionTransformer', num_layers=depths)
       for size, depths in _PVT_DEPTHS.items() if size != 'Tiny'},
    **{f'FasterNet-{arch.upper()}': partial(_mask_rcnn, config_root() / f'mask_rcnn_fasternet_{arch}.py')
       for arch in ('s', 'm', 'l')},
}  # fmt: skip
# why the paper's multiply-adds are others for the same network, as far as it can be seen
_NORMS_COUNT = 'the paper counts norms, too'
_NOTES = {
    'PVT': "the paper leaves out attention's matrix products",
    'MobileNetV2': _NORMS_COUNT,
    'MobileViT': _NORMS_COUNT,
    'GhostNet': _NORMS_COUNT,
}
