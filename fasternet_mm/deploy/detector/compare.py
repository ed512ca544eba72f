"""The proof that an exported detector finds what mmdet does: detections matched, masks pixel by pixel."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import nn
from torchvision.ops import box_iou

from ...errors import UserError
from ..runtime import Detections, paste_masks

# of the longer side of the input, of scores and of IoU, and of a mask's probability
_BOX = _SCORE = 1e-5
_PIXEL = 1e-4


@dataclass
class Agreement:
    """Count what was compared; of what differs, all is within a rounding of a threshold."""

    pictures: int = 0
    detections: int = 0
    undecided: int = 0  # found by one side alone
    pixels: int = 0  # of masks
    undecided_pixels: int = 0
    box: float = 0.0  # the largest difference of a corner, in pixels
    score: float = 0.0

    def add(self, other: 'Agreement') -> None:
        """Add another picture's counts."""
        for field in fields(self):
            join = max if field.name in ('box', 'score') else lambda a, b: a + b
            setattr(self, field.name, join(getattr(self, field.name), getattr(other, field.name)))

    def __str__(self) -> str:
        return (
            f'{self.detections} of {self.detections + self.undecided} detections on {self.pictures} pictures equal, '
            f'{self.undecided} at a threshold; boxes to {self.box:.1e} px, scores to {self.score:.1e}'
            + (f'; {self.undecided_pixels} of {self.pixels} mask pixels at a threshold' if self.pixels else '')
        )


def batch_of(image: np.ndarray) -> dict:
    """Return an input of the file, (1, H, W, 3), as a batch for ``test_step`` that is not resized."""
    size = image.shape[1:3]
    sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
    pixels = torch.from_numpy(np.ascontiguousarray(image[0].transpose(2, 0, 1)))
    return dict(inputs=[pixels], data_samples=[sample])


@torch.no_grad()
def predicted(model: nn.Module, image: np.ndarray) -> Detections:
    """Return what mmdet predicts for an input of the file, (1, H, W, 3), in its own pixels."""
    (result,) = model.test_step(batch_of(image))
    found = result.pred_instances
    masks = found.masks.numpy() if 'masks' in found else None
    return Detections(found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy(), (), masks)


def compare(
    got: dict[str, np.ndarray], want: Detections, size: tuple[int, int], settings: dict, mask_threshold: float
) -> Agreement:
    """Match what a file gives for an input of H, W with what mmdet predicts for it.

    Args:
        got (dict[str, np.ndarray]): The file's outputs.
        want (Detections): Of :func:`predicted`.
        size (tuple[int, int]): H, W.
        settings (dict): The test config with score_thr, nms and max_per_img.
        mask_threshold (float): Lowest probability of a mask's pixel.

    Raises:
        UserError: If a detection differs by more than rounding and is not within it of a threshold, or a pixel does.
    """
    want = vars(want)  # named as the file's outputs are
    pairs, alone, missed = _matched(got, want, max(size))
    for side, other, left, what in (
        (got, want, alone, 'the file alone finds'),
        (want, got, missed, 'PyTorch alone finds'),
    ):
        for index in left:
            if not _undecided(side, other, index, settings):
                box, score, label = (side[name][index] for name in ('boxes', 'scores', 'labels'))
                raise UserError(
                    f'{what} class {label} with score {score:.6f} at {np.round(box, 2).tolist()} in an input of '
                    f'{size[0]} x {size[1]}, which is at no threshold{_nearest(side, other, index)}'
                )
    mine, theirs = (np.array(places, int) for places in zip(*pairs)) if pairs else (np.zeros(0, int),) * 2
    result = Agreement(1, len(pairs), len(alone) + len(missed))
    if pairs:
        result.box = float(np.abs(got['boxes'][mine] - want['boxes'][theirs]).max())
        result.score = float(np.abs(got['scores'][mine] - want['scores'][theirs]).max())
    if want['masks'] is not None:
        masks, boxes, expected = got['masks'][mine], want['boxes'][theirs], want['masks'][theirs]
        # in equal boxes, for a rounding of a box moves what is in it
        low, high = (paste_masks(masks, boxes, size, mask_threshold + side * _PIXEL) for side in (-1, 1))
        sure = low == high
        if (wrong := (sure & (low != expected)).sum((1, 2))).any():
            raise UserError(f'the mask of a detection differs in {wrong.max()} pixels from that of PyTorch')
        pasted = paste_masks(masks, got['boxes'][mine], size, mask_threshold)
        result.pixels, result.undecided_pixels = expected.size, int((pasted != expected).sum())
    return result


def _matched(got: dict, want: dict, side: int) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Return pairs of equal detections, and what is left over on either side."""
    equal = (got['labels'][:, None] == want['labels']) & (np.abs(got['scores'][:, None] - want['scores']) <= _SCORE)
    equal &= (np.abs(got['boxes'][:, None] - want['boxes']) <= _BOX * side).all(2)
    pairs, free = [], list(range(len(want['scores'])))
    for index, row in enumerate(equal):
        match = next((other for other in free if row[other]), None)
        if match is not None:
            pairs.append((index, match))
            free.remove(match)
    return pairs, sorted(set(range(len(equal))) - {index for index, _ in pairs}), free


def _nearest(side: dict, other: dict, index: int) -> str:
    """Return how far the nearest detection of the same class on the other side is."""
    same = other['labels'] == side['labels'][index]
    if not same.any():
        return ''
    boxes = np.abs(other['boxes'][same] - side['boxes'][index]).max(1)
    score = abs(float(other['scores'][same][boxes.argmin()] - side['scores'][index]))
    return f' (the nearest is {boxes.min():.1e} px off, its score {score:.1e})'


def _undecided(side: dict, other: dict, index: int, settings: dict) -> bool:
    """Return whether a detection is within rounding of the score threshold, of the last place, or of the IoU of NMS."""
    score = side['scores'][index]
    if abs(score - settings.get('score_thr', 0)) <= _SCORE:
        return True
    others = other['scores']
    if len(others) >= settings['max_per_img'] and score <= others.min() + _SCORE:
        return True
    boxes, labels = (np.concatenate([one[name] for one in (side, other)]) for name in ('boxes', 'labels'))
    rivals = np.ones(len(labels), bool) if settings['nms'].get('class_agnostic') else labels == labels[index]
    overlaps = box_iou(*(torch.from_numpy(one).double() for one in (boxes[[index]], boxes[rivals])))
    limit = settings['nms'].get('iou_threshold', settings['nms'].get('iou_thr'))
    return bool(((overlaps - limit).abs() <= _SCORE).any())
