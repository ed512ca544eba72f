"""Today's peers of FasterNet, which are not in the paper, all from timm."""

import importlib.util
from functools import partial

import torch
from torch import nn

from ..schema import Published
from .networks import classifiers, detectors, from_timm, mask_rcnn_on
from .rows import Row, published_rows

_STRIDES = (4, 8, 16, 32)
_FILE = 'peers.json'
# why no Mask R-CNN stands on a network
_NO_PYRAMID = {
    'SHViT-S4': 'its maps have strides 16, 32 and 64; Mask R-CNN takes 4, 8, 16 and 32',
    'EfficientFormerV2-S2': 'its attention is built for one input size',
    'EfficientFormerV2-L': 'its attention is built for one input size',
}


def peers() -> list[Row]:
    """Return classifiers at their own input sizes, and the FasterNets from T1 on beside them."""
    rows = [row for row in classifiers() if row.name.startswith('FasterNet') and row.name != 'FasterNet-T0']
    for entry in published_rows('classifiers', _FILE):
        source = f'huggingface/pytorch-image-models, results/results-imagenet.csv, {entry["weights"]}'
        published = Published(entry['network'], top1=entry['top1'], source=source, note=entry.get('note'))
        size = entry['size']
        rows.append(_row(entry['network'], published, (size, size), partial(_classifier, _model_of(entry))))
    return rows


def peers_coco() -> list[Row]:
    """Return Mask R-CNNs on the peers that give maps at strides 4 to 32 for any size, and on FasterNets."""
    quoted = {entry['backbone']: Published(**entry) for entry in published_rows('detectors', _FILE)}
    rows = [row for row in detectors() if row.name.startswith('FasterNet')]
    for entry in published_rows('classifiers', _FILE):
        name = entry['network']
        build = partial(_mask_rcnn, _model_of(entry))
        rows.append(_row(name, quoted.get(name), (800, 1280), build, _NO_PYRAMID.get(name)))
    return rows


def _model_of(entry: dict) -> str:
    return entry['weights'].partition('.')[0]


def _row(name: str, published: Published | None, shape: tuple[int, int], build, reason: str | None = None) -> Row:
    if importlib.util.find_spec('timm') is None:
        reason = 'timm is not installed: pip install timm'
    return Row(name, published, shape, None if reason else build, reason)


def _classifier(model: str) -> nn.Module:
    return _without_biases(from_timm(model))


def _without_biases(model: nn.Module) -> nn.Module:
    """Zero the random biases, in which the image would drown: modes are compared by what it changes in the outputs."""
    for name, parameter in model.named_parameters():
        if name.endswith('bias'):
            nn.init.zeros_(parameter)
    return model


def _mask_rcnn(model: str) -> nn.Module:
    import timm

    with torch.device('meta'):
        info = timm.create_model(model, features_only=True).feature_info
    places = [place for place, stride in enumerate(info.reduction()) if stride in _STRIDES]
    channels = [info.channels()[place] for place in places]
    backbone = dict(type='mmpretrain.TIMMBackbone', model_name=model, features_only=True, out_indices=places)
    detector = mask_rcnn_on(backbone, channels)
    _without_biases(detector.backbone)
    return detector
