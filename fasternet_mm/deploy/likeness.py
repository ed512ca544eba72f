"""How alike the outputs of two forms of a network are, where they are not equal: int8 beside floating point."""

from collections.abc import Mapping

import numpy as np
import torch
from torchvision.ops import box_iou

_SAME = 0.5  # least IoU of boxes that are the same detection

Outputs = Mapping[str, np.ndarray]


def difference(got: Outputs, want: Outputs) -> float:
    """Return how far outputs are from those wanted: 0 if equal.

    Of detections it is 1 less the IoU of boxes and the likeness of scores and masks, over matched detections of one
    class, weighted by score; one without a match counts in full. Of other tensors it is the norm of the difference over
    the norm of what is wanted, of the tensor that is off the most.
    """
    if 'boxes' not in want:
        norms = [(np.linalg.norm(got[name] - want[name]), np.linalg.norm(want[name])) for name in want]
        return float(np.max([off / max(norm, 1e-30) for off, norm in norms]))
    pairs = match(got, want)
    alike = sum(float(want['scores'][j]) * iou * _alike(got, want, i, j) for i, j, iou in pairs)
    extra = float(np.delete(got['scores'], [i for i, *_ in pairs]).sum())
    return 1 - alike / max(float(want['scores'].sum()) + extra, 1e-30) if len(want['scores']) or extra else 0.0


def _alike(got: Outputs, want: Outputs, i: int, j: int) -> float:
    score = 1 - abs(float(got['scores'][i]) - float(want['scores'][j]))
    return score * (1 - float(np.abs(got['masks'][i] - want['masks'][j]).mean()) if 'masks' in want else 1)


def match(got: Outputs, want: Outputs) -> list[tuple[int, int, float]]:
    """Return pairs of the same detection: their places in `got` and `want`, and the IoU of their boxes, at least 0.5.

    Each one of `want`, by falling score, takes the one of `got` of its class that overlaps it most and is still free.
    """
    if not len(got['boxes']) or not len(want['boxes']):
        return []
    overlaps = box_iou(torch.from_numpy(got['boxes']), torch.from_numpy(want['boxes'])).numpy()
    overlaps[got['labels'][:, None] != want['labels'][None]] = 0
    pairs = []
    for j in range(len(want['boxes'])):
        i = int(overlaps[:, j].argmax())
        if overlaps[i, j] >= _SAME:
            pairs.append((i, j, float(overlaps[i, j])))
            overlaps[i] = 0
    return pairs
