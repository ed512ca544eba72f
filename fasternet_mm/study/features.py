"""What a network sees in a picture: maps of its layers over the picture, with what it finds there."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import TRANSFORMS, DefaultScope
from PIL import Image
from torch import Tensor, nn

from ..deploy.detector.pipeline import pipeline_of
from ..errors import DataError, UserError
from ..files import AtomicLocalBackend
from .drawing import annotator, grid, inside, overlay
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
from .schema import FeatureMap, Features, PictureFeatures
from .scores import evidence, is_detector, label_of, name_of
from .subject import Subject


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
