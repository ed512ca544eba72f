"""What a network sees in a picture: maps of its layers over the picture, with what it finds there."""

import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmengine.dataset import pseudo_collate
from mmengine.registry import TRANSFORMS, DefaultScope
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer
from PIL import Image
from torch import Tensor, nn

from ..deploy.detector.pipeline import pipeline_of
from ..errors import DataError, UserError, did_you_mean
from ..files import AtomicLocalBackend
from .layers import device_of
from .maps import (
    METHODS,
    Output,
    geometry,
    heat,
    map_shapes,
    module_of,
    outputs_of,
    over_picture,
    require_grad_cam,
    require_layers,
    scaled,
    tapped,
)  # fmt: skip
from .rows import Track, silent
from .schema import FeatureMap, Features, Finding, PictureFeatures
from .subject import Subject

_SHARED = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
_MATCH = 0.05  # most that box (pixels) and score of one detection, computed twice, differ by
_TOP = 5  # classes of a classifier that are named


# evidence


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


# pictures


def inside(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return which pixels (H, W) of a picture lie in one of the boxes (N, 4)."""
    covered = np.zeros(size, bool)
    for left, top, right, bottom in boxes.round().astype(int).clip(0):
        covered[top:bottom, left:right] = True
    return covered


def overlay(picture: np.ndarray, found: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3), blue, green, red, with a map (H, W) from 0 to 1 over the part that is visible."""
    colours = cv2.applyColorMap(np.uint8(255 * found), cv2.COLORMAP_TURBO)
    return np.where(visible[..., None], cv2.addWeighted(picture, 0.5, colours, 0.5, 0), picture)


def annotator(found: Sequence[Finding], size: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Return what draws boxes, names and scores, or without boxes a list, into pictures (H, W, 3) of this size."""
    # what is drawn on black, and how much of what is below shows through
    black, white = (_drawn(np.full((*size, 3), value, np.uint8), found).astype(np.float32) for value in (0, 255))
    through = (white - black) / 255
    return lambda picture: np.uint8((black + picture * through).round())


def _drawn(picture: np.ndarray, found: Sequence[Finding]) -> np.ndarray:
    visualizer, (height, width) = Visualizer(image=picture), picture.shape[:2]
    side = max(height, width)
    text = dict(font_sizes=max(6, round(side / 60)), colors='w')
    text['bboxes'] = dict(facecolor='black', alpha=0.6, pad=1, edgecolor='none')
    boxes = np.array([one.box for one in found if one.box])
    if len(boxes):
        found, boxes = found[::-1], boxes[::-1]  # the best on top
        boxes = boxes.clip(0, [width - 1, height - 1] * 2)
        widths = [max(1, side / 400) * (2 if one.target else 1) for one in found]
        visualizer.draw_bboxes(boxes, 'w', line_widths=widths, alpha=1)
        # above the box, and within the picture
        right, low = boxes[:, 0] > 0.6 * width, boxes[:, 1] > 0.08 * height
        places = np.stack([np.where(right, boxes[:, 2], boxes[:, 0]), boxes[:, 1]], 1)
        text['horizontal_alignments'] = ['right' if each else 'left' for each in right]
        text['vertical_alignments'] = ['bottom' if each else 'top' for each in low]
        visualizer.draw_texts([f'{one.name} {one.score:.2f}' for one in found], places, **text)
    elif found:
        lines = [f'{">" if one.target else " "} {one.score:.2f} {one.name}' for one in found]
        visualizer.draw_texts('\n'.join(lines), np.array([4, 4]), **text)
    return visualizer.get_image()


def grid(rows: dict[str, dict[str, np.ndarray]], columns: Sequence[str], title: str) -> bytes:
    """Return a PNG of pictures, blue, green, red, by row and column, of which a row may lack some."""
    height, width = next(iter(next(iter(rows.values())).values())).shape[:2]
    side = 2.6 * width / max(height, width), 2.6 * height / max(height, width)
    figure = Figure(figsize=(side[0] * len(columns) + 0.4, (side[1] + 0.3) * len(rows) + 0.3), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, (label, row) in zip(axes, rows.items()):
        for axis, name in zip(line, columns):
            axis.set(xticks=[], yticks=[])
            axis.set_title(name, fontsize=8)
            if name in row:
                axis.imshow(row[name][..., ::-1])
            else:
                axis.text(0.5, 0.5, '0 everywhere', ha='center', fontsize=8)
                axis.set_box_aspect(height / width)
        line[0].set_ylabel(label, fontsize=9)
    figure.suptitle(title, fontsize=9)
    drawing = io.BytesIO()
    figure.savefig(drawing, format='png', dpi=150)
    return drawing.getvalue()


# the study


class Reader:
    """Make a network's input of a picture, as its config or its publisher says.

    Args:
        subject (Subject): The network; with its config, pictures go through the test pipeline of that.

    Raises:
        UserError: If the config has no test pipeline.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.steps = None
        if subject.cfg is not None:
            settings = [dict(step) for step in pipeline_of(subject.cfg)]
            with DefaultScope.overwrite_default_scope(subject.cfg.default_scope):
                kinds = [step['type'].rpartition('.')[2] for step in settings]
                self.steps = [TRANSFORMS.build(step) for step, kind in zip(settings, kinds) if kind[:4] != 'Load']

    def __call__(self, picture: np.ndarray) -> tuple[Tensor, list | None, np.ndarray]:
        """Return the input (1, 3, H, W), its data samples, and the matrix from the picture's pixels to the input's.

        Args:
            picture (np.ndarray): (H, W, 3), uint8, blue, green, red.
        """
        size = picture.shape[:2]
        if self.steps is None:
            prepare = self.subject.prepare

            def cut(array: np.ndarray) -> np.ndarray:
                return np.asarray(prepare.cut(Image.fromarray(array)))

            pixels = prepare.tensor(prepare.cut(Image.fromarray(picture[..., ::-1])))
            return pixels[None].to(device_of(self.subject.model)), None, geometry(cut, size)
        packed = self._piped(picture)
        data = self.subject.model.data_preprocessor(pseudo_collate([packed]), False)
        matrix = geometry(lambda array: self._piped(array)['inputs'].permute(1, 2, 0).numpy(), size)
        return data['inputs'], data['data_samples'], matrix

    def _piped(self, picture: np.ndarray) -> dict:
        results = dict(img=picture, img_shape=picture.shape[:2], ori_shape=picture.shape[:2], img_path='', img_id=0)
        for step in self.steps:
            results = step(results)
        return results


def features(
    subject: Subject,
    pictures: Sequence[Path],
    out: Path,
    layers: Sequence[str] | None = None,
    methods: Sequence[str] = ('activation',),
    wanted: str | None = None,
    score_threshold: float = 0.5,
    track: Track = silent,
) -> Features:
    """Draw what layers of a network see in pictures, and say how much of it lies in the boxes that were found.

    Args:
        subject (Subject): A detector of mmdet or a classifier.
        pictures (Sequence[Path]): Files.
        out (Path): Folder for the drawings: one for each picture, layer and method, and all of a picture in one.
        layers (Sequence[str], optional): Names; ``name[2]`` is the third output of one that has several. By default the
            outputs of a detector's neck, or the last map.
        methods (Sequence[str]): Of :data:`METHODS`.
        wanted (str, optional): Class whose evidence gradients show: of all its detections, or its logit. By default the
            best detection, or the best class.
        score_threshold (float): Lowest score of a detection. Defaults to 0.5.
        track (Callable): See :data:`~fasternet_mm.study.rows.Track`.

    Raises:
        UserError: If a layer, a class, a package or a picture is wrong, or gradients are wanted and do not flow.
    """
    require_grad_cam(methods)
    label = None if wanted is None else label_of(subject, wanted)
    require_layers(subject.model, layers or ())
    read = Reader(subject)
    stems = _stems(pictures)
    look = partial(_look, subject, read, layers, methods, label, score_threshold)
    return Features(
        list(methods),
        list(layers) if layers else None,
        wanted,
        score_threshold,
        [look(file, out / stems[file]) for file in track(pictures, total=len(pictures), description='pictures')],
    )


def _look(
    subject: Subject, read: Reader, layers: Sequence[str] | None, methods: Sequence[str], label: int | None,
    threshold: float, file: Path, stem: Path,
) -> PictureFeatures:  # fmt: skip
    """Draw the maps of one picture; other arguments as of :func:`features`."""
    picture = read_picture(file)
    size = picture.shape[:2]
    inputs, samples, matrix = read(picture)
    shape = tuple(inputs.shape[2:])
    gradients = any(METHODS[name] for name in methods)
    layers = layers or default_layers(subject, inputs, samples)
    with torch.set_grad_enabled(gradients), tapped(subject.model, [*map(module_of, layers)]) as seen:
        inputs = inputs.detach().requires_grad_(gradients)
        found, number = evidence(subject, inputs, samples, label, threshold, gradients)
    outputs = outputs_of(seen, layers, shape)
    slopes = _slopes(number, outputs) if number is not None else {}
    annotate, rows, maps = annotator(found, size), {}, []
    for method in methods:
        attributed = METHODS[method] is not None
        if attributed and number is None:
            continue
        boxes = [one.box for one in found if one.box and (one.target or not attributed)]
        within = inside(np.array(boxes), size) if boxes else None
        rows[method] = {'': annotate(picture)}
        for name, output in outputs.items():
            activation = output.array()
            large, visible = over_picture(scaled(heat(method, activation, slopes.get(name))), shape, matrix, size)
            one = FeatureMap(name, method, list(activation.shape), float(activation.mean()))
            maps.append(one)
            if boxes:
                one.area = float(within[visible].mean())
            if not large.any():  # no gradient reaches the layer
                continue
            if boxes:
                one.inside = float(large[within].sum() / large.sum())
            one.file = f'{stem.name}_{re.sub(r"[^a-zA-Z0-9]+", "_", name).strip("_")}_{method}.png'
            rows[method][name] = annotate(overlay(picture, large, visible))
            AtomicLocalBackend().put(cv2.imencode('.png', rows[method][name])[1].tobytes(), stem.with_name(one.file))
    if rows:
        AtomicLocalBackend().put(grid(rows, ['', *outputs], file.name), stem.with_name(f'{stem.name}_features.png'))
    note = None
    if gradients and number is None:
        what = 'nothing' if label is None else f'no {name_of(subject, label)}'
        note = f'{what} is detected with a score of {threshold} or more, so there is nothing to take a gradient of'
    return PictureFeatures(file.name, list(size), list(shape), found, maps, note)


def _slopes(number: Tensor, outputs: dict[str, Output]) -> dict[str, np.ndarray]:
    """Return the gradient of a number by each output, (C, h, w); 0 where it does not depend on one."""
    for name, output in outputs.items():
        if not output.tensor.requires_grad:
            raise UserError(f'--layer {name}: no gradient flows through it; --method activation and eigencam need none')
    tensors = [output.tensor for output in outputs.values()]
    gradients = torch.autograd.grad(number, tensors, materialize_grads=True)
    return {name: output.array(each) for (name, output), each in zip(outputs.items(), gradients)}


def list_layers(subject: Subject, file: Path) -> dict[str, tuple[int, ...]]:
    """Return the layers that give maps of a picture, with channels, height and width, as they end one after another."""
    inputs, samples, _ = Reader(subject)(read_picture(file))
    return layers_of(subject, inputs, samples)


def default_layers(subject: Subject, inputs: Tensor, samples: list | None) -> list[str]:
    """Return a detector's neck, or the last layer of a network that gives a map; arguments as of :func:`evidence`."""
    if is_detector(subject) and isinstance(getattr(subject.model, 'neck', None), nn.Module):
        return ['neck']
    names = list(layers_of(subject, inputs, samples))
    if not names:
        raise UserError(f'{subject.name} has no layer that gives a map over the picture')
    return names[-1:]


def layers_of(subject: Subject, inputs: Tensor, samples: list | None) -> dict[str, tuple[int, ...]]:
    """Return the layers that give maps, with the shapes of these; arguments as of :func:`evidence`."""
    run = partial(evidence, subject, inputs, samples, None, 1, False)
    return map_shapes(subject.model, run, tuple(inputs.shape[2:]))


def _stems(pictures: Sequence[Path]) -> dict[Path, str]:
    """Return what each picture's drawings are called, which is its own name unless another one has it."""
    stems = {}
    for file in pictures:
        stem, number = file.stem, 1
        while stem in stems.values():
            number += 1
            stem = f'{file.stem}_{number}'
        stems[file] = stem
    return stems


def read_picture(file: Path) -> np.ndarray:
    """Return a picture (H, W, 3), uint8, blue, green, red, as mm reads it; raise DataError where it is none."""
    try:
        data = np.fromfile(file, np.uint8)
    except OSError as error:
        raise DataError(f'{file} cannot be read: {error.strerror}') from error
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise DataError(f'{file} is no picture that OpenCV can read; repair it or take it away')
    return picture
