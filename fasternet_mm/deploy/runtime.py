"""A detector in one file, as ``tools/export.py --what detector`` writes it: run with numpy, OpenCV and one runtime.

This file needs nothing else of this package, no torch and no mm package; it may be copied to where the detector runs.
"""

import functools
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import openvino

RUNTIMES = ('onnxruntime', 'openvino')
DEVICES = ('cpu', 'cuda')
PRECISIONS = ('fp32', 'bf16')

_PLAIN = ('task', 'producer', 'config', 'config_sha256', 'checkpoint', 'checkpoint_sha256', 'input', 'channels')
_NEEDED = ('classes', 'score_threshold', 'resize', 'pad', 'shape')


class ExportedModelError(ValueError):
    """A file, a picture or a setting that cannot be used."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one picture, by falling score.

    Attributes:
        boxes (np.ndarray): (N, 4), float32: x1, y1, x2, y2 in pixels of the picture.
        scores (np.ndarray): (N,), float32.
        labels (np.ndarray): (N,), int64: places in the file's classes.
        names (tuple[str, ...]): The N classes' names.
        masks (np.ndarray, optional): (N, H, W), bool, of the picture's size; None of a detector without masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    masks: np.ndarray | None

    def __len__(self) -> int:
        return len(self.scores)


class ExportedModel:
    """A whole detector from one file: a picture in, boxes, classes and masks out.

    ``model(picture)`` is ``prepare``, ``run`` and ``finish`` in turn.

    Args:
        file (str | Path): An ONNX file, or OpenVINO's .xml, whose .bin lies beside it.
        runtime (str, optional): Of :data:`RUNTIMES`. By default openvino for .xml, else the first that is installed.
        threads (int, optional): How many the runtime uses; by default it decides.
        device (str, optional): 'cpu', or 'cuda' in ONNX Runtime. By default CUDA where ONNX Runtime has it.
        precision (str): 'fp32', or 'bf16' in OpenVINO where the processor has it. Defaults to 'fp32'.

    Attributes:
        metadata (dict): What the file says of itself, parsed; docs/export.md lists it.
        task (str): 'detection' or 'instance segmentation'.
        classes (tuple[str, ...]): Names by label.
        score_threshold (float): The lowest score that the file gives.
        shape (tuple[int, int], optional): H, W of a file of fixed size, else None.
        runtime (str): That runs the file, of :data:`RUNTIMES`.
        device (str): That it runs on, of :data:`DEVICES`.

    Raises:
        ExportedModelError: If the file is no such detector, or the runtime is not installed or cannot do what is asked.
    """

    def __init__(
        self,
        file: str | Path,
        runtime: str | None = None,
        threads: int | None = None,
        device: str | None = None,
        precision: str = 'fp32',
    ) -> None:
        path = Path(file)
        self.runtime = _require_runtime(path, runtime)
        _require_one_of('device', device, (None, *DEVICES))
        _require_one_of('precision', precision, PRECISIONS)
        if threads is not None and threads < 1:
            raise ExportedModelError(f'threads must be at least 1, but is {threads}')
        session = (_OpenVINO if self.runtime == 'openvino' else _ONNXRuntime)(path, threads, device, precision)
        self._session, self.device = session, session.device
        self.metadata = {key: value if key in _PLAIN else _parsed(value) for key, value in session.metadata.items()}
        _require_detector(path, self.metadata, session.outputs)
        self.task: str = self.metadata['task']
        self.classes = tuple(self.metadata['classes'])
        self.score_threshold: float = self.metadata['score_threshold']
        self.shape = tuple(self.metadata['shape']) if self.metadata['shape'] else None

    def __call__(self, picture: np.ndarray | str | Path, score_threshold: float | None = None) -> Detections:
        """Return what is found in a picture.

        Args:
            picture (np.ndarray | str | Path): (H, W, 3), uint8, blue, green, red as OpenCV reads it; or a file.
            score_threshold (float, optional): Only scores above it; at least the file's, which is the default.

        Raises:
            ExportedModelError: If the picture cannot be used, or the threshold is below the file's or above 1.
        """
        if isinstance(picture, (str, Path)):
            picture = read_picture(picture)
        image, factors = self.prepare(picture)
        return self.finish(self.run(image), factors, picture.shape[:2], score_threshold)

    def prepare(self, picture: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        """Resize and pad a picture as mmdet's test pipeline does.

        Args:
            picture (np.ndarray): (H, W, 3), uint8, blue, green, red.

        Returns:
            tuple: The file's input, (1, H', W', 3), and by which factors width and height were multiplied.

        Raises:
            ExportedModelError: If the picture is of another shape or dtype.
        """
        if not (isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3
                and picture.shape[2] == 3 and picture.size):  # fmt: skip
            got = f'{picture.dtype} {picture.shape}' if isinstance(picture, np.ndarray) else type(picture).__name__
            raise ExportedModelError(f'a picture must be a uint8 array of shape (H, W, 3), as cv2.imread gives: {got}')
        height, width = picture.shape[:2]
        new = self._new_size(width, height)
        image = cv2.resize(picture, new, interpolation=cv2.INTER_LINEAR)
        wanted = self.shape[::-1] if self.shape else self.metadata['pad']['size']
        if wanted:
            right, below = (max(0, whole - side) for whole, side in zip(wanted, new))
            value = self.metadata['pad']['value']
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=value)
        return image[None], (new[0] / width, new[1] / height)

    def _new_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that a picture is resized to."""
        resize = self.metadata['resize']
        if resize is None and self.shape is None:
            return width, height
        scale = self.shape[::-1] if self.shape else tuple(resize['scale'])
        if resize is not None and not resize['keep_ratio']:
            return scale
        if self.shape:
            factor = min(scale[0] / width, scale[1] / height)
        else:
            factor = min(max(scale) / max(width, height), min(scale) / min(width, height))
        return max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5))

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the file's outputs by name for an input of :meth:`prepare`."""
        return self._session.run(image)

    def require_threshold(self, score_threshold: float) -> None:
        """Raise ExportedModelError if a score threshold is above 1, or below the file's, which has no lower scores."""
        if not self.score_threshold <= score_threshold <= 1:
            raise ExportedModelError(
                f'the score threshold must be from {self.score_threshold}, with which the file was exported, to 1, but '
                f'is {score_threshold}'
            )

    def finish(
        self,
        raw: dict[str, np.ndarray],
        factors: tuple[float, float],
        size: tuple[int, int],
        score_threshold: float | None = None,
    ) -> Detections:
        """Bring the file's outputs into the picture's own pixels.

        Args:
            raw (dict[str, np.ndarray]): Of :meth:`run`.
            factors (tuple[float, float]): Of :meth:`prepare`.
            size (tuple[int, int]): The picture's height and width.
            score_threshold (float, optional): Only scores above it; at least the file's, which is the default.

        Raises:
            ExportedModelError: If the threshold is below the file's, or above 1.
        """
        boxes, scores, labels, masks = (raw.get(name) for name in ('boxes', 'scores', 'labels', 'masks'))
        if score_threshold is not None:
            self.require_threshold(score_threshold)
            keep = scores > score_threshold
            boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
            masks = masks[keep] if masks is not None else None
        boxes = boxes / np.array(factors * 2, np.float32)
        if masks is not None:
            masks = paste_masks(masks, boxes, size, self.metadata['mask_threshold'])
        height, width = size
        return Detections(
            boxes=np.clip(boxes, 0, np.array((width, height) * 2, np.float32)),
            scores=scores,
            labels=labels,
            names=tuple(self.classes[label] for label in labels),
            masks=masks,
        )


def read_picture(file: str | Path) -> np.ndarray:
    """Return a picture's pixels as mmdet reads them: (H, W, 3), uint8, blue, green, red.

    Raises:
        ExportedModelError: If it cannot be read.
    """
    try:
        data = np.fromfile(file, np.uint8)
    except OSError as error:
        raise ExportedModelError(f'{file} cannot be read: {error.strerror or error}') from error
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise ExportedModelError(f'{file} is no picture that OpenCV can read')
    return picture


def paste_masks(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], threshold: float) -> np.ndarray:
    """Return masks of the picture's size from the probabilities in each box, as mmdet's FCNMaskHead pastes them.

    A pixel takes the four probabilities around it by bilinear interpolation; outside of a box's cells they are 0.

    Args:
        masks (np.ndarray): (N, h, w), float32, probabilities.
        boxes (np.ndarray): (N, 4), float32, x1, y1, x2, y2 in the picture's pixels; may reach beyond it.
        size (tuple[int, int]): The picture's height and width.
        threshold (float): Lowest probability of a pixel of the mask.

    Returns:
        np.ndarray: (N, H, W), bool.
    """
    pasted = np.zeros((len(masks), *size), bool)
    # no matrix products: their threads would fight with the runtime's
    for mask, box, out in zip(np.pad(masks, ((0, 0), (2, 2), (2, 2))), boxes, pasted):
        left, column, share = _cells(box[0], box[2], size[1], masks.shape[2])
        across = mask[:, column] * (1 - share) + mask[:, column + 1] * share
        top, row, share = _cells(box[1], box[3], size[0], masks.shape[1])
        whole = across[row] * (1 - share[:, None]) + across[row + 1] * share[:, None]
        out[top : top + len(row), left : left + len(column)] = whole >= threshold
    return pasted


def _cells(low: np.float32, high: np.float32, pixels: int, cells: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Return which cells of a mask the pixels along an axis lie between, where a box goes from `low` to `high`.

    Args:
        low (np.float32): The box's first edge.
        high (np.float32): Its second.
        pixels (int): The picture's, along the axis.
        cells (int): The mask's, which has two more of zeros on either side.

    Returns:
        tuple: The first pixel that the box touches, and for each that it touches the cell before its centre, and the
        share of the cell after that.
    """
    first = int(max(np.floor(low) - 1, 0))
    last = int(min(np.ceil(high) + 1, pixels))
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        places = (np.arange(first, last, dtype=np.float32) + np.float32(0.5) - low) / (high - low) * 2 - 1
    # in a box without extent mmdet takes the mask's middle for infinity, and nothing for 0 / 0
    places = ((np.nan_to_num(places, nan=-9, posinf=0, neginf=0) + 1) * cells - 1) / 2
    before = np.floor(places)
    return first, np.clip(before, -2, cells).astype(np.intp) + 2, places - before


@functools.cache
def openvino_core() -> 'openvino.Core':
    """Return OpenVINO's core, one for the process.

    Each core gives the thread a stack for signals and takes it back when it goes: where two of them do not go in the
    reverse order, a freed stack stays behind, on which the next signal ends the process.
    """
    import openvino

    return openvino.Core()


def metadata_of(model: 'openvino.Model') -> dict[str, str]:
    """Return what an exported file says of itself, as OpenVINO read it; values are plain text or JSON."""
    for section in ('fasternet_mm', 'framework'):  # in the latter OpenVINO keeps what an ONNX file said
        if model.has_rt_info([section]):
            return model.get_rt_info([section]).value
    return {}


def compiled_by_openvino(
    model: 'openvino.Model', precision: str = 'fp32', threads: int | None = None
) -> 'openvino.CompiledModel':
    """Return a model ready to run on the CPU, one image after the other.

    Args:
        model (openvino.Model): As OpenVINO read it.
        precision (str): Of :data:`PRECISIONS`, in which it computes what is not int8. Defaults to 'fp32'.
        threads (int, optional): How many it uses; by default OpenVINO decides.
    """
    settings = {
        'INFERENCE_PRECISION_HINT': dict(fp32='f32', bf16='bf16')[precision],
        'PERFORMANCE_HINT': 'LATENCY',
        **({'INFERENCE_NUM_THREADS': threads} if threads else {}),
    }
    return openvino_core().compile_model(model, 'CPU', settings)


class _ONNXRuntime:
    """An ONNX file in ONNX Runtime."""

    def __init__(self, path: Path, threads: int | None, device: str | None, precision: str) -> None:
        import onnxruntime

        if precision != 'fp32':
            raise ExportedModelError(f'precision {precision} is for openvino; onnxruntime computes as the file says')
        cuda = 'CUDAExecutionProvider'
        available = onnxruntime.get_available_providers()
        if device == 'cuda' and cuda not in available:
            raise ExportedModelError('this onnxruntime has no CUDA: pip install onnxruntime-gpu in its place')
        providers = [cuda] if cuda in available and device != 'cpu' else []
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=[*providers, 'CPUExecutionProvider'])
        except Exception as error:  # its errors have no base class of their own
            raise ExportedModelError(f'{path} cannot be read by onnxruntime: {_said(error)}') from error
        self.device = 'cuda' if cuda in self.session.get_providers() else 'cpu'
        if device == 'cuda' and self.device == 'cpu':
            raise ExportedModelError('onnxruntime cannot use CUDA here; it has said why above')
        self.metadata = self.session.get_modelmeta().custom_metadata_map
        self.outputs = [output.name for output in self.session.get_outputs()]

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self.session.run(None, {'image': image})))


class _OpenVINO:
    """An ONNX file or an .xml in OpenVINO, on the CPU."""

    device = 'cpu'

    def __init__(self, path: Path, threads: int | None, device: str | None, precision: str) -> None:
        if device == 'cuda':
            raise ExportedModelError('device cuda is for onnxruntime; openvino runs on the CPU')
        core = openvino_core()
        able = core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        if precision == 'bf16' and 'BF16' not in able:
            raise ExportedModelError(
                'this processor has no bf16 (OpenVINO would compute in fp32 without a word); it has ' + ', '.join(able)
            )
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            beside = path.with_suffix('.bin')
            why = _said(error) if path.suffix != '.xml' or beside.exists() else f'{beside} is not there'
            raise ExportedModelError(f'{path} cannot be read by openvino: {why}') from error
        self.metadata = metadata_of(model)
        self.compiled = compiled_by_openvino(model, precision, threads)
        self.outputs = [output.get_any_name() for output in self.compiled.outputs]

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self.compiled(image).values()))


def _require_runtime(path: Path, runtime: str | None) -> str:
    """Return the runtime that is to run a file, which is there and of a known kind."""
    _require_one_of('runtime', runtime, (None, *RUNTIMES))
    if not path.is_file():
        raise ExportedModelError(f'{path} is not there')
    if path.suffix == '.xml':
        if runtime == 'onnxruntime':
            raise ExportedModelError(f"{path} is OpenVINO's: onnxruntime reads .onnx alone")
        runtime = 'openvino'
    if runtime is None:
        runtime = next(filter(importlib.util.find_spec, RUNTIMES), 'onnxruntime')
    if importlib.util.find_spec(runtime) is None:
        raise ExportedModelError(f'{runtime} is not installed: pip install {runtime}')
    return runtime


def _require_one_of(name: str, value: str | None, known: Sequence[str | None]) -> None:
    if value not in known:
        choices = ', '.join(choice for choice in known if choice)
        raise ExportedModelError(f'{name} must be one of {choices}, but is {value!r}')


def _require_detector(path: Path, metadata: dict, outputs: list[str]) -> None:
    advice = 'write a whole detector with tools/export.py --what detector'
    if 'task' not in metadata:
        kind = dict(logits='a classifier', c='a backbone', p='a backbone with its neck')
        what = next((kind[key] for key in kind if outputs[0].startswith(key)), 'of an unknown kind')
        if 'fasternet_mm' not in metadata.get('producer', ''):
            what = 'not from fasternet_mm'
        raise ExportedModelError(f'{path} is {what}, with the outputs {", ".join(outputs)}; {advice}')
    needed = [*_NEEDED, *(['mask_threshold'] if 'masks' in outputs else [])]
    missing = [key for key in needed if key not in metadata]
    missing += [name for name in ('boxes', 'scores', 'labels') if name not in outputs]
    if missing:
        raise ExportedModelError(f'{path} lacks {", ".join(missing)}; {advice}')


def _parsed(value: str):
    try:
        return json.loads(value)
    except ValueError:
        return value


def _said(error: Exception) -> str:
    """Return the first line of a runtime's error that is not about its own source code."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith('Exception from')]
    return lines[0] if lines else type(error).__name__
