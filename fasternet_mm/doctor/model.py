"""The model of a config beside its data: numbers of classes, and what the objects' sizes are to its anchors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import TASK_UTILS

from ..engine.checks.classes import check_heads, check_same_classes
from ..engine.explaining import explained, nodes
from ..engine.runner import build_model
from ..errors import UserError
from .coco import Content
from .findings import Finding
from .sources import Source, of_config

SMALL = 8  # pixels of the root of a box's area
IOU = 0.5


@dataclass
class Sizes:
    """The sizes of a set's objects as a detector sees them.

    Attributes:
        place (str): The key of the data set in the config.
        resize (str): The resize that was applied, in words.
        sides (np.ndarray): (n, 2) width and height of each box after it, in pixels.
        small (int): How many have a root of their area under 8 pixels.
        anchors (dict[int, np.ndarray]): (a, 2) width and height of the anchors by their stride; {} without anchors.
        reached (float | None): The share of objects that some anchor of the grid covers with an IoU of 0.5.
        told (str): What the model has in place of anchors.
    """

    place: str
    resize: str
    sides: np.ndarray
    small: int
    anchors: dict[int, np.ndarray]
    reached: float | None
    told: str = ''


def check_model(cfg: Config, sources: Sequence[Source]) -> list[Finding]:
    """Check the classes of the heads against each data set, and those of training and validation against each other."""
    read = [source for source in sources if source.dataset is not None]
    findings = []
    try:
        with explained(cfg, 'train'), torch.device('meta'):
            model = build_model(cfg)
    except UserError as error:
        findings.append(Finding('unchecked', 'model', 1, [f'the heads, as the model cannot be built: {error}']))
        model = torch.nn.Module()
    for source in read:
        try:
            check_heads(model, source.dataset, source.place)
            for other in read:
                if (source.role, other.role) == ('train', 'val'):
                    check_same_classes(source.dataset, other.dataset, MMLogger.get_current_instance())
        except UserError as error:
            findings.append(Finding('classes', source.place, 1, [str(error)]))
    return findings


def sizes_of(cfg: Config, source: Source, whole: Content, others: Sequence[Source]) -> tuple[Sizes, list[Finding]]:
    """Compare the boxes of a set, resized as its pipeline or that of one of `others` does, with the anchors."""
    x, y, width, height = whole.boxes.T
    kept = whole.wanted & ~whole.crowd & (width > 0) & (height > 0) & (whole.sizes > 0).all(1)
    boxes, image_sizes = whole.boxes[kept], whole.sizes[kept]
    transform, resize = _resize_of([source, *others])
    factors = _factors(image_sizes, transform)
    boxes, image_sizes = boxes * np.tile(factors, 2), image_sizes * factors
    small = int((np.sqrt(boxes[:, 2] * boxes[:, 3]) < SMALL).sum())
    findings, total = [], len(boxes)
    if small:
        findings.append(Finding('small', source.place, small, [f'{small} of {total} ({small / total:.1%}) {resize}']))
    generator, told = _generator(cfg)
    sizes = Sizes(source.place, resize, boxes[:, 2:], small, {}, None, told)
    if generator is not None and total:
        sizes.anchors = {stride[0]: (base[:, 2:] - base[:, :2]).numpy()
                         for stride, base in zip(generator.strides, generator.base_anchors)}  # fmt: skip
        reached = best_iou(boxes, image_sizes, generator) >= IOU
        sizes.reached = float(reached.mean())
        if missed := int((~reached).sum()):
            told = f'{missed} of {total} ({missed / total:.1%}) {resize}'
            findings.append(Finding('unreached', source.place, missed, [told]))
    return sizes, findings


def _resize_of(sources: Sequence[Source]) -> tuple[object | None, str]:
    """Return the first resize to a fixed scale of the pipelines, and how it is called."""
    for source in sources:
        for transform in source.dataset.pipeline.transforms if source.dataset is not None else ():
            if type(transform).__name__ in ('Resize', 'FixScaleResize') and getattr(transform, 'scale', None):
                width, height = transform.scale
                other = '' if source is sources[0] else f' of {source.place}'
                return transform, f'after the resize to {width} x {height}{other}'
    return None, 'as they are, as no pipeline resizes to a fixed scale'


def _factors(sizes: np.ndarray, transform) -> np.ndarray:
    """Return by what widths and heights are multiplied, (n, 2), as mmcv's ``rescale_size`` does."""
    if transform is None:
        return np.ones_like(sizes)
    scale = np.array(transform.scale, float)
    if not transform.keep_ratio:
        return scale / sizes
    factor = np.minimum(scale.max() / sizes.max(1), scale.min() / sizes.min(1))
    return np.stack([factor, factor], 1)


def _generator(cfg: Config):
    """Build the first generator of anchors of the model, and say what is there where there is none."""
    settings = [node for path, node in nodes(cfg.get('model') or {}) if path.endswith('anchor_generator')]
    if not settings:
        return None, 'the model names no anchors'
    try:
        with of_config(cfg, 'model'):
            generator = TASK_UTILS.build(settings[0])
    except UserError:  # as check_model says
        return None, 'its anchors cannot be built'
    if not hasattr(generator, 'base_anchors'):
        return None, f'the model is anchor-free ({type(generator).__name__})'
    return generator, ''


def best_iou(boxes: np.ndarray, image_sizes: np.ndarray, generator) -> np.ndarray:
    """Return the largest IoU of each box with any anchor of the grid over its image.

    For an anchor's shape, it is at the place of the grid whose centre is nearest, so that only these are looked at.

    Args:
        boxes (np.ndarray): (n, 4) x, y, width, height in pixels.
        image_sizes (np.ndarray): (n, 2) width and height of the image of each.
        generator (AnchorGenerator): Of mmdet.
    """
    best = np.zeros(len(boxes))
    centres, sides = boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]
    for stride, base in zip(generator.strides, generator.base_anchors):
        last = np.ceil(image_sizes / stride) - 1
        for anchor in base.numpy().astype(float):
            side, centre = anchor[2:] - anchor[:2], (anchor[2:] + anchor[:2]) / 2
            nearest = np.clip(np.round((centres - centre) / stride), 0, last) * stride + centre
            overlap = np.minimum(np.minimum(sides, side), (sides + side) / 2 - np.abs(centres - nearest)).clip(0)
            shared = overlap.prod(1)
            best = np.maximum(best, shared / (sides.prod(1) + side.prod() - shared))
    return best
