"""Non-maximum suppression and overlaps of boxes."""

import torch
import torchvision
from torch import Tensor

from .common import widen


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices that greedy NMS keeps of (N, 4) boxes, by falling score."""
    boxes, scores = widen(boxes, scores)
    if offset:  # legacy boxes whose right and bottom pixels belong to them
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores, iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Fill the first k rows of `dets` (N, 5) with boxes and their decayed scores, and return the k indices.

    Soft-NMS (Bodla et al., 2017): `method` 0 drops, 1 decays linearly, 2 by a Gaussian of the overlap.
    """
    boxes, scores = widen(boxes, scores)
    corners = boxes + boxes.new_tensor([0, 0, offset, offset])
    left, scores, kept = torch.arange(len(boxes)), scores.clone(), []
    while len(left):
        best = left[scores[left].argmax()]
        dets[len(kept), :4] = boxes[best]
        dets[len(kept), 4] = scores[best]
        kept.append(int(best))
        left = left[left != best]
        overlap = torchvision.ops.box_iou(corners[best, None], corners[left])[0].nan_to_num()
        if method == 2:
            decay = torch.exp(-(overlap**2) / sigma)
        else:
            decay = torch.where(overlap >= iou_threshold, 1 - overlap if method == 1 else 0.0, 1.0)
        scores[left] *= decay
        left = left[scores[left] >= min_score]
    return torch.tensor(kept, dtype=torch.long)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Return, for each of (N, 5) boxes with scores that greedy NMS keeps, its index and those that it suppresses.

    Both the groups and the indices within one go by falling score. Unlike :func:`nms`, an overlap of `iou_threshold`
    itself suppresses.
    """
    (dets,) = widen(dets)
    boxes, left, groups = dets[:, :4], dets[:, 4].sort(descending=True, stable=True).indices, []
    while len(left):
        overlap = torchvision.ops.box_iou(boxes[left[:1]], boxes[left])[0]
        matched = overlap >= iou_threshold
        matched[0] = True  # whatever its area
        groups.append(left[matched].tolist())
        left = left[~matched]
    return groups


def bbox_overlaps(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Write the overlaps of (M, 4) with (N, 4) boxes into `ious` (M, N), or of pairs into (M,) where `aligned`.

    `mode` 0 divides the intersection by the union, 1 by the area of the first box.
    """
    first, second = widen(boxes1, boxes2)
    if not aligned:
        first = first[:, None]
    start, end = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    intersection = (end - start + offset).clamp(min=0).prod(dim=-1)
    area1, area2 = ((boxes[..., 2:] - boxes[..., :2] + offset).prod(dim=-1) for boxes in (first, second))
    ious.copy_(intersection / (area1 if mode == 1 else area1 + area2 - intersection).clamp(min=offset))
