"""Random weights that find something: mask heads and the pasting of masks run for what is found alone."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from ...deploy.likeness import match
from ...deploy.runtime import Detections
from ..schema import Agreement

_SPREAD = 3.0  # standard deviation of the logits, at which some classes stand out
_CANDIDATES = (4, 16, 64)  # scores above the threshold for each detection that is wanted; tried in turn


def make_detections(model: nn.Module, batches: Sequence[dict]) -> int | None:
    """Scale and shift a detector's classifiers in place, so that it finds as much as its config lets through.

    Each layer of class logits is scaled to a spread at which classes stand out, and the bias of its classes, or of the
    background, is moved so that in each image at least some hundred scores pass the config's threshold.

    Args:
        model (nn.Module): An mmdet detector with random weights, in evaluation mode.
        batches (Sequence[dict]): For ``test_step``, one image each.

    Returns:
        int, optional: How many detections an image was made to give, the config's ``max_per_img``; None, and nothing is
            changed, where no such layer or number is known.
    """
    settings = getattr(model, 'test_cfg', None) or {}
    settings = settings.get('rcnn', settings)
    layers, wanted, threshold = list(_classifiers(model)), settings.get('max_per_img'), settings.get('score_thr')
    if not (layers and wanted and threshold):
        return None
    images = [_logits(model, layers, batch) for batch in batches]
    moves = []
    for number, (layer, classes, sigmoid) in enumerate(layers):
        scale = _SPREAD / torch.cat([logits[number] for logits in images]).std()
        for parameter in (layer.weight, layer.bias):
            parameter.data *= scale
        # a class with a larger bias passes more often, a background with a larger one lets less pass
        direction = torch.zeros(layer.bias.numel() // classes, classes)
        direction[:, slice(None) if sigmoid else -1] = -1 if sigmoid else 1
        most = _CANDIDATES[-1] * wanted
        slacks = [_slacks(scale * logits[number], sigmoid, threshold, most) for logits in images]
        moves.append((layer, layer.bias.data.clone(), direction.flatten(), slacks))
    for candidates in _CANDIDATES:
        for layer, bias, direction, slacks in moves:
            layer.bias.data = bias + direction * min(_passed_by(candidates * wanted, image) for image in slacks)
        with torch.inference_mode():
            found = [len(image.pred_instances) for batch in batches for image in model.test_step(dict(batch))]
        if min(found) >= wanted:
            break
    return wanted


def arrays_of(image: DetDataSample | Detections) -> dict[str, np.ndarray]:
    """Return ``boxes`` in the picture's pixels, ``scores`` and ``labels`` of what torch or a file found in an image."""
    if isinstance(image, Detections):
        return dict(boxes=image.boxes, scores=image.scores, labels=image.labels)
    names = dict(boxes='bboxes', scores='scores', labels='labels')
    return {name: image.pred_instances[key].float().cpu().numpy() for name, key in names.items()}


def agreement(found: Sequence[dict[str, np.ndarray]], wanted: Sequence[dict[str, np.ndarray]]) -> Agreement:
    """Compare detections, of :func:`arrays_of`, image by image; pairs are of one class and overlap by half or more."""
    boxes, scores = [0.0], [0.0]
    pairs = 0
    for got, want in zip(found, wanted, strict=True):
        matched = match(got, want)
        pairs += len(matched)
        for i, j, _ in matched:
            boxes.append(float(abs(got['boxes'][i] - want['boxes'][j]).max()))
            scores.append(float(abs(got['scores'][i] - want['scores'][j])))
    totals = (sum(len(image['scores']) for image in images) for images in (wanted, found))
    return Agreement(*totals, pairs, max(boxes), max(scores))


def _classifiers(model: nn.Module) -> Iterator[tuple[nn.Module, int, bool]]:
    """Yield the last layers of the box heads, how many logits a box has, and whether none of them is the background."""
    heads = getattr(model, 'roi_head', None) or getattr(model, 'bbox_head', None) or nn.Identity()
    for head in heads.modules():
        if hasattr(head, 'loss_cls') and hasattr(head, 'num_classes'):
            sigmoid = getattr(head.loss_cls, 'use_sigmoid', False)
            for name, layer in head.named_modules():
                # fc_cls, retina_cls, rtm_cls.0
                if name.rstrip('.0123456789').endswith('cls') and getattr(layer, 'bias', None) is not None:
                    yield layer, head.num_classes + (not sigmoid), sigmoid


def _logits(model: nn.Module, layers: Sequence[tuple[nn.Module, int, bool]], batch: dict) -> list[Tensor]:
    """Return what each layer gives for an image, from all levels of a pyramid, with a row for each box."""
    seen = {layer: [] for layer, *_ in layers}
    with ExitStack() as stack, torch.inference_mode():
        for layer in seen:
            stack.enter_context(layer.register_forward_hook(lambda layer, _, out: seen[layer].append(out)))
        model.test_step(dict(batch))
    # maps have their channels second, and other outputs last
    return [torch.cat([out.movedim(1, -1).reshape(-1, classes) for out in seen[layer]]) for layer, classes, _ in layers]


def _slacks(logits: Tensor, sigmoid: bool, threshold: float, most: int) -> Tensor:
    """Return, in falling order, how far the bias can be moved until a score no longer passes the threshold."""
    if sigmoid:
        slacks = logits - math.log(threshold / (1 - threshold))
    else:
        classes, background = logits[:, :-1].double(), logits[:, -1:].double()
        # exp(class) / (sum of exp(classes) + exp(background)) > threshold, solved for the background
        rest = classes.exp() / threshold - classes.exp().sum(1, keepdim=True)
        slacks = rest.clamp(min=0).log() - background
    slacks = slacks[slacks.isfinite()]
    return slacks.topk(min(len(slacks), most + 1)).values


def _passed_by(number: int, slacks: Tensor) -> float:
    """Return how far to move the bias for so many scores to pass: to between two, for rounding not to decide."""
    number = min(number, len(slacks) - 1)
    return float(slacks[number - 1 : number + 1].mean()) if number > 0 else 0.0
