"""A trained detector as one ONNX file that takes a picture's pixels and returns detections."""

import copy
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from ...errors import UserError
from ...files import AtomicLocalBackend
from ..form import has_deploy_form, switch_to_deploy
from ..onnx import OPSET, exported, require_packages
from ..runtime import Detections, ExportedModel, read_picture
from .compare import Agreement, compare, predicted
from .graph import DetectorGraph
from .pipeline import classes_of, first_pictures, pictures_in, pipeline_of, resizing
from .two_stage import TwoStage

_PICTURES = 4
_RUNTIMES = dict(onnxruntime='ONNX Runtime', openvino='OpenVINO')
_LEAST = 288  # of an example's sides where they are free: torch takes a level of one cell for a constant


def export_detector(
    model: nn.Module,
    cfg: Config,
    metadata: dict,
    out: Path,
    shape: tuple[int, int] | None = None,
    dynamic: bool = False,
    score_threshold: float | None = None,
    images: Path | None = None,
    say: Callable[[str], None] = print,
    compared: bool = True,
) -> dict[str, Agreement]:
    """Write a whole detector as one ONNX file, after its detections were compared with mmdet's own.

    Args:
        model (nn.Module): Of mmdet, in evaluation mode on the CPU.
        cfg (Config): Its config: pictures are resized as its test pipeline does, and checked on its first test images.
        metadata (dict): What else the file keeps of where it comes from.
        out (Path): The file.
        shape (tuple[int, int], optional): H, W of the input; by default the test pipeline's, in multiples of 32.
        dynamic (bool): Whether H and W may change. Defaults to False.
        score_threshold (float, optional): Instead of the config's.
        images (Path, optional): A folder of pictures to compare on, instead of the config's.
        say (Callable): Takes lines on how far it is.
        compared (bool): Whether to compare. Of random weights many scores are equal to rounding, of which NMS keeps now
            one, now another: who exports them has to compare in another way. Defaults to True.

    Returns:
        dict[str, Agreement]: What was compared, for each runtime.

    Raises:
        UserError: If a package, a picture or a file is missing, or a part cannot be exported, before tracing; or if a
            runtime finds something else. Nothing is written then.
    """
    require_packages('onnx', 'onnxscript', 'onnxruntime')
    settings = settings_of(model)
    if score_threshold is not None:
        settings.score_thr = score_threshold
    deployed = copy.deepcopy(model)
    if has_deploy_form(deployed):
        switch_to_deploy(deployed)
    graph = DetectorGraph(deployed).eval()
    metadata = dict(metadata, **_reading(model, graph, cfg, shape, dynamic))
    pictures = pictures_in(images, _PICTURES) if images else first_pictures(cfg, _PICTURES) if compared else []
    shape = tuple(metadata['shape'] or _shape(metadata, shape))
    example = tuple(max(side, _LEAST) for side in shape) if dynamic else shape
    say(f'exporting the whole {type(model).__name__}{"" if dynamic else f" at {shape[0]} x {shape[1]}"}')
    dims = dict.fromkeys((1, 2), torch.export.Dim.DYNAMIC) if dynamic else None
    file = exported(graph, torch.zeros(1, *example, 3, dtype=torch.uint8), 'image', graph.outputs, dims, metadata)
    agreements = {}
    if compared:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'detector.onnx')
            path.write_bytes(file)
            agreements = _compared(model, graph, path, pictures, settings, say)
    AtomicLocalBackend().put(file, out)
    say(f'{out}: {len(file) / 1e6:.1f} MB, opset {OPSET}, outputs {", ".join(graph.outputs)}')
    return agreements


def settings_of(model: nn.Module):
    """Return the part of a detector's test config that has the score threshold, NMS and the number of detections."""
    return (model.roi_head if getattr(model, 'with_roi_head', False) else model.bbox_head).test_cfg


def _reading(model: nn.Module, graph: DetectorGraph, cfg: Config, shape: tuple[int, int] | None, dynamic: bool) -> dict:
    """Return the metadata that a reader of the file works by."""
    resize, pad = resizing(pipeline_of(cfg))
    settings = settings_of(model)
    masks = 'masks' in graph.outputs
    metadata = dict(
        task='instance segmentation' if masks else 'detection',
        input='image: uint8, (1, H, W, 3), pixels as OpenCV reads them: blue, green, red',
        classes=classes_of(cfg, graph.head.num_classes),
        score_threshold=settings.get('score_thr', 0),
        resize=resize,
        pad=pad,
        shape=None,
    )
    if not dynamic:
        metadata['shape'] = list(_shape(metadata, shape))
        if pad['size'] is None:  # what the network takes for the zeros that mmdet pads with
            preprocessor = model.data_preprocessor
            mean = preprocessor.mean.flatten().tolist() if preprocessor._enable_normalize else [0, 0, 0]
            pad['value'] = [round(value) for value in (mean[::-1] if preprocessor._channel_conversion else mean)]
    if masks:
        metadata['mask_threshold'] = settings.mask_thr_binary
    return metadata


def _shape(metadata: dict, shape: tuple[int, int] | None) -> tuple[int, int]:
    """Return H, W, by default those of a wide picture after the test pipeline, in multiples of 32."""
    if shape:
        return shape
    if metadata['pad']['size']:
        return tuple(metadata['pad']['size'][::-1])
    if metadata['resize'] is None:
        raise UserError("the test pipeline does not resize: --shape H W says the input's size, or --dynamic frees it")
    width, height = sorted(metadata['resize']['scale'], reverse=True)
    return tuple(side + -side % 32 for side in (height, width))


def _compared(
    model: nn.Module, graph: DetectorGraph, file: Path, pictures: list[str], settings: dict, say: Callable
) -> dict[str, Agreement]:
    """Compare what each runtime finds from the file with what mmdet predicts; errors as :func:`export_detector`."""
    readers = {
        name: ExportedModel(file, runtime, device='cpu', threads=torch.get_num_threads())
        for runtime, name in _RUNTIMES.items()
        if importlib.util.find_spec(runtime) is not None
    }
    reader = next(iter(readers.values()))
    inputs = [reader.prepare(read_picture(picture))[0] for picture in pictures]
    if reader.shape is None:
        height, width = inputs[0].shape[1:3]
        inputs += [
            cv2.resize(inputs[0][0], side)[None] for side in ((width, height + 32), (max(64, width - 64), height))
        ]
    expected = [predicted(model, image) for image in inputs]
    if all(map(len, expected)):  # a picture without detections is worth one of its own
        for value in (0, 128, 255):
            plain = np.full_like(inputs[0], value)
            if not len(found := predicted(model, plain)):
                inputs, expected = [*inputs, plain], [*expected, found]
                break
    say(_told(graph, expected))
    agreements = {}
    for name, reader in readers.items():
        agreements[name] = Agreement()
        for image, want in zip(inputs, expected):
            try:
                one = compare(
                    reader.run(image), want, image.shape[1:3], settings, reader.metadata.get('mask_threshold')
                )
            except UserError as error:
                raise UserError(f'{name} computes something else from the file than PyTorch: {error}') from error
            agreements[name].add(one)
        say(f'{name}: {agreements[name]}')
    return agreements


def _told(graph: DetectorGraph, expected: list[Detections]) -> str:
    """Return what the comparison is on."""
    empty = sum(not len(found) for found in expected)
    text = f'comparing on {len(expected)} inputs with {sum(map(len, expected))} detections, {empty} of them without any'
    if isinstance(graph.head, TwoStage):
        pooling = graph.head.box_pooling[-1]
        boxes = torch.from_numpy(np.concatenate([found.boxes for found in expected]))
        text += f', on {pooling.levels_of(boxes).unique().numel()} of {len(pooling.extractor.roi_layers)} levels'
    return text
