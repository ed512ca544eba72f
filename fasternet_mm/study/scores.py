"""What a network finds in a picture, and the number whose gradient says where from."""

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from .schema import Finding
from .subject import Subject

_SHARED = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
_MATCH = 0.05  # most that box (pixels) and score of one detection, computed twice, differ by
_TOP = 5  # classes of a classifier that are named


def evidence(
    subject: Subject, inputs: Tensor, samples: list | None, label: int | None, threshold: float, attributed: bool
) -> tuple[list[Finding], Tensor | None]:
    """Return what a network finds in an image, by falling score, and the number whose gradient says where from.

    Of a detector that is the log-odds of its best detection, or of all of a class; of a classifier, a class's logit.

    Args:
        subject (Subject): The network.
        inputs (Tensor): (1, 3, H, W), normalised.
        samples (list, optional): Its data sample, if it is of mm.
        label (int, optional): Of the class; by default the best one.
        threshold (float): Lowest score of a detection.
        attributed (bool): Whether the number is wanted. It is None where it is not, and where nothing is detected.

    Raises:
        UserError: If gradients are wanted, and do not flow.
    """
    if is_detector(subject):
        scores, labels, boxes = detect(subject.model, inputs, samples, threshold, attributed)
        chosen = labels == label if label is not None else torch.arange(len(labels), device=labels.device) == 0
        number = _log_odds(scores[chosen]) if attributed and chosen.any() else None
        found = zip(labels.tolist(), scores.tolist(), boxes.tolist(), chosen.tolist())
    else:
        logits = subject.model(inputs)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise UserError(f'{subject.name} gives no logits (N, classes): features are of detectors and classifiers')
        label = int(logits.argmax()) if label is None else label
        if label >= logits.shape[1]:
            raise UserError(f'--class {label}: {subject.name} tells {logits.shape[1]} classes apart, counted from 0')
        number = logits[0, label] if attributed else None
        scores = logits[0].softmax(0).tolist()
        best = sorted(range(len(scores)), key=lambda each: -scores[each])[:_TOP]
        found = ((each, scores[each], None, each == label) for each in dict.fromkeys([*best, label]))
    if number is not None and not number.requires_grad:
        raise UserError(
            f'no gradient flows through {subject.name}: give the trained form of its weights, not one for deployment; '
            '--method activation and eigencam need none'
        )
    return [Finding(name_of(subject, each), *rest, target and attributed) for each, *rest, target in found], number


def name_of(subject: Subject, label: int) -> str:
    """Return a class's name, or its number where names are not known."""
    known = subject.classes or ()
    return known[label].partition(',')[0] if label < len(known) else f'class {label}'


def label_of(subject: Subject, name: str) -> int:
    """Return the number of a class by its name or number; raise UserError where it is none."""
    known = [name_of(subject, label) for label in range(len(subject.classes or ()))]
    if name in known:
        return known.index(name)
    if name.isdecimal() and (not known or int(name) < len(known)):
        return int(name)
    raise UserError(f'--class {name}: the model has {len(known) or "no"} classes by name{did_you_mean(name, known)}')


def is_detector(subject: Subject) -> bool:
    """Return whether a network detects."""
    return subject.cfg is not None and subject.cfg.default_scope == 'mmdet'


def detect(
    model: nn.Module, inputs: Tensor, samples: list, threshold: float, attributed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores (N,), falling, labels (N,) and boxes (N, 4) of what a detector finds in an image.

    Args:
        model (nn.Module): Of mmdet, in evaluation mode.
        inputs (Tensor): (1, 3, H, W), normalised.
        samples (list): Its data sample.
        threshold (float): Lowest score.
        attributed (bool): Whether gradients shall flow from the scores.

    Raises:
        UserError: If they shall, and cannot.
    """
    outputs, handle = [], None
    head = getattr(model, 'bbox_head', None)
    if isinstance(head, BaseDenseHead):
        handle = head.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        sample = model.predict(inputs, samples)[0]
    finally:
        if handle is not None:
            handle.remove()
    found = sample.pred_instances
    found = found[found.scores >= threshold]
    found = found[found.scores.argsort(descending=True)]
    scores = found.scores
    if not found.bboxes.isfinite().all():
        raise UserError(f'{type(model).__name__} finds boxes that are not finite: are its weights trained?')
    if attributed and len(found) and not scores.requires_grad:
        scores = _dense_scores(model, outputs, found, sample.metainfo)
    return scores, found.labels, found.bboxes.detach()


def _dense_scores(model: nn.Module, outputs: list, found: InstanceData, meta: dict) -> Tensor:
    """Return the scores of a dense head's detections with their graph, which mmdet cuts, from where each came from."""
    head = getattr(model, 'bbox_head', None)
    if len(outputs) != 1 or any(getattr(type(head), name) is not getattr(BaseDenseHead, name) for name in _SHARED):
        raise UserError(
            f'no gradient flows from the scores of {type(model).__name__} with {type(head).__name__}: --method '
            'activation and eigencam need none'
        )
    logits, deltas, *factors = outputs[0]
    priors = head.prior_generator.grid_priors([level.shape[2:] for level in logits], logits[0].dtype, logits[0].device)
    deltas = [_rows(level, head.bbox_coder.encode_size).detach() for level in deltas]
    decoded = [head.bbox_coder.decode(*level, max_shape=meta['img_shape']) for level in zip(priors, deltas)]
    boxes = torch.cat(decoded)
    scores = torch.cat([_rows(level, head.cls_out_channels) for level in logits])
    scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(-1)
    if factors:
        scores = scores * torch.cat([_rows(level, 1) for level in factors[0]]).sigmoid()
    wanted = found.bboxes * found.bboxes.new_tensor(meta['scale_factor']).repeat(2)
    places = []
    for box, score, label in zip(wanted, found.scores, found.labels):
        difference, place = ((boxes - box).abs().amax(1) + (scores[:, label] - score).abs().detach()).min(0)
        if difference > _MATCH:
            raise UserError(
                f'{type(head).__name__} gives another score or box than its maps do: --method activation and eigencam '
                'need no gradient'
            )
        places.append(place)
    return scores[torch.stack(places), found.labels]


def _rows(level: Tensor, width: int) -> Tensor:
    """Return a level's output (1, A * width, h, w) with a row for each prior."""
    return level[0].permute(1, 2, 0).reshape(-1, width)


def _log_odds(scores: Tensor) -> Tensor:
    """Return a number with the gradient of the sum of the scores' log-odds, which do not saturate near 1 as they do."""
    return (scores / (scores * (1 - scores)).detach().clamp(min=1e-6)).sum()
