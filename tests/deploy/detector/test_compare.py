"""What differs from mmdet's prediction by more than rounding is refused, and what lies at a threshold is counted."""

import numpy as np
import pytest

from fasternet_mm.deploy.detector.compare import compare
from fasternet_mm.deploy.runtime import Detections, paste_masks
from fasternet_mm.errors import UserError

SIZE = (120, 160)
SETTINGS = dict(score_thr=0.05, nms=dict(iou_threshold=0.5), max_per_img=100)


@pytest.fixture
def same():
    """Return a file's outputs and an equal prediction: six detections on noise-like masks."""
    random = np.random.RandomState(0)
    corners = random.uniform(0, 60, (6, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + random.uniform(20, 60, (6, 2)).astype(np.float32)], 1)
    scores = np.sort(random.uniform(0.1, 1, 6).astype(np.float32))[::-1].copy()
    labels = np.arange(6) % 3
    masks = random.uniform(0, 1, (6, 28, 28)).astype(np.float32)
    got = dict(boxes=boxes, scores=scores, labels=labels, masks=masks)
    pasted = paste_masks(masks, boxes, SIZE, 0.5)
    return got, Detections(boxes.copy(), scores.copy(), labels.copy(), (), pasted)


def without(got, index):
    return {name: np.delete(array, index, 0) for name, array in got.items()}


def test_equal_detections_are_counted_in_any_order(same):
    got, want = same
    turned = {name: array[::-1].copy() for name, array in got.items()}
    agreement = compare(turned, want, SIZE, SETTINGS, 0.5)
    assert (agreement.detections, agreement.undecided, agreement.undecided_pixels) == (6, 0, 0)
    assert agreement.pixels == 6 * 120 * 160 and agreement.box == agreement.score == 0


@pytest.mark.parametrize(
    'name, change, accepted',
    [
        ('boxes', 1e-3, True), ('boxes', 1e-2, False), ('scores', 5e-6, True), ('scores', 1e-4, False),
        ('labels', 1, False),
    ],
)  # fmt: skip
def test_bounds_of_boxes_scores_and_labels(same, name, change, accepted):
    got, want = same
    got[name][2] += np.asarray(change, got[name].dtype)
    if accepted:
        assert compare(got, want, SIZE, SETTINGS, 0.5).detections == 6
    else:
        with pytest.raises(UserError, match='the file alone finds class'):
            compare(got, want, SIZE, SETTINGS, 0.5)


def test_a_detection_that_is_missing_is_refused(same):
    got, want = same
    with pytest.raises(UserError, match='PyTorch alone finds class'):
        compare(without(got, 3), want, SIZE, SETTINGS, 0.5)


def test_swapped_mask_channels_are_refused(same):
    got, want = same
    got['masks'] = got['masks'][::-1].copy()
    with pytest.raises(UserError, match='mask of a detection differs in .* pixels'):
        compare(got, want, SIZE, SETTINGS, 0.5)


def test_pixels_at_the_threshold_are_counted(same):
    got, want = same
    got['masks'][:] = 0.5 - 4e-5
    want = Detections(want.boxes, want.scores, want.labels, (), paste_masks(got['masks'] + 8e-5, want.boxes, SIZE, 0.5))
    agreement = compare(got, want, SIZE, SETTINGS, 0.5)
    assert agreement.undecided_pixels > 0


def at_score_threshold(got):
    return dict(SETTINGS, score_thr=float(got['scores'][5]) + 4e-6)


def at_overlap(got):
    boxes = np.stack([got['boxes'][5], got['boxes'][5]])
    boxes[0, 2] = boxes[0, 0] + 2 * (boxes[1, 2] - boxes[1, 0])  # twice as wide: IoU 0.5
    got['boxes'][4], got['labels'][4] = boxes[0], got['labels'][5]
    return SETTINGS


@pytest.mark.parametrize('case', [at_score_threshold, at_overlap])
def test_a_detection_at_a_threshold_may_be_found_by_one_side(same, case):
    got, _ = same
    settings = case(got)
    pasted = paste_masks(got['masks'], got['boxes'], SIZE, 0.5)
    want = Detections(got['boxes'].copy(), got['scores'].copy(), got['labels'].copy(), (), pasted)
    agreement = compare(without(got, 5), want, SIZE, settings, 0.5)
    assert (agreement.detections, agreement.undecided) == (5, 1)


def test_the_last_place_may_go_to_either_of_two_equal_scores(same):
    got, want = same
    got['scores'][5] = want.scores[5] = got['scores'][4]
    other = Detections(*(field[:5] for field in (want.boxes, want.scores, want.labels)), (), want.masks[:5])
    agreement = compare(without(got, 4), other, SIZE, dict(SETTINGS, max_per_img=5), 0.5)
    assert (agreement.detections, agreement.undecided) == (4, 2)
