"""What every detector does with boxes, in operators that ONNX has: (N, 4) tensors, x1 y1 x2 y2 in input pixels."""

import torch
from mmengine.config import ConfigDict
from torch import Tensor
from torchvision.ops import nms

from ...errors import UserError


def require_nms(settings: ConfigDict, key: str) -> None:
    """Raise UserError if the NMS of a test config, at `key`, is not the plain one."""
    unknown = set(settings) - {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
    if settings.get('type', 'nms') != 'nms' or unknown:
        raise UserError(
            f'{key}={dict(settings)}: only type="nms" with iou_threshold and class_agnostic can be exported as a '
            'detector; --what backbone+neck leaves NMS out'
        )


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return boxes with corners inside an image of H, W."""
    x, y = boxes[:, 0::2].clamp(0, size[1]), boxes[:, 1::2].clamp(0, size[0])
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def highest(scores: Tensor, most: int) -> Tensor:
    """Return the indices of the `most` highest of (N,) scores, or of all where there are fewer, by falling score."""
    return scores.topk(torch.sym_min(most, scores.shape[0]))[1]


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, settings: ConfigDict, most: int) -> Tensor:
    """Return the indices that NMS within each group keeps, at most `most`, by falling score.

    Groups are moved apart by multiples of the largest coordinate, as mmcv's ``batched_nms`` does, so that rounding is
    the same; the 0 in its maximum is for an image without boxes.
    """
    if not settings.get('class_agnostic', False):
        apart = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max() + 1
        boxes = boxes + (groups.to(boxes) * apart)[:, None]
    kept = nms(boxes, scores, settings.get('iou_threshold', settings.get('iou_thr')))
    return kept[highest(scores[kept], most)]


def with_area(least: float, boxes: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return the boxes wider and higher than `least`, and what else there is of each of them."""
    sides = boxes[:, 2:] - boxes[:, :2]
    kept = (sides > least).all(1).nonzero()[:, 0]
    return tuple(one[kept] for one in (boxes, *others))
