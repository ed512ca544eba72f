"""Models as files in the report's folder: what a runtime is timed with has a size and an accuracy of its own."""

import copy
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ...deploy import export_detector, has_deploy_form, provenance, require_packages, to_onnx
from ...deploy.evaluation import ExportedFile, Inputs
from ...deploy.onnx import tensors_of
from ...deploy.quantization import quantize, read, write
from ...deploy.runtime import metadata_of, openvino_core
from ...errors import UserError
from ...files import AtomicLocalBackend
from ..schema import MODES
from .modes import UnsupportedModeError, fused
from .subject import Subject

_CALIBRATED_ON = 64  # training images
_PACKAGES = dict(onnxruntime=('onnx', 'onnxscript', 'onnxruntime'), openvino=('onnx', 'onnxscript', 'openvino'))


def require_runtime(mode: str, dtype: str, device: torch.device, scope: str) -> None:
    """Raise UnsupportedModeError, in one line, where a mode's runtime is not installed or not for a device or dtype."""
    dtypes = MODES[mode].runtime_dtypes
    if not dtypes:
        return
    try:
        require_packages(*_PACKAGES[mode], *(['nncf'] if dtype == 'int8' else []))
    except UserError as error:
        raise UnsupportedModeError(f'mode {mode} {dtype}: {error}') from error
    if dtype not in dtypes or not (device.type == 'cpu' or (scope == 'detector' and _has_cuda(mode))):
        raise UnsupportedModeError(f'mode {mode} is for --device cpu in {" or ".join(dtypes)}')
    if dtype == 'bf16' and not _has_bf16():
        raise UnsupportedModeError(
            f'mode {mode} bf16: this processor has no bf16, and {mode} would compute in fp32 without a word'
        )


def _has_cuda(mode: str) -> bool:
    if mode != 'onnxruntime':
        return False
    import onnxruntime

    return 'CUDAExecutionProvider' in onnxruntime.get_available_providers()


def _has_bf16() -> bool:
    return 'BF16' in openvino_core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')


def network_file(subject: Subject, network: nn.Module, images: Tensor, scope: str, dtype: str) -> Path:
    """Return the file of a backbone or a classifier for images of one shape, which is written once."""
    shape = 'x'.join(map(str, images.shape))
    file = subject.folder / f'{subject.name}_{scope}_{shape}.onnx'.replace('/', '-')
    if file not in subject.files:
        names = ['logits']
        if scope == 'backbone':
            with torch.no_grad():
                names = [f'output{number}' for number, _ in enumerate(tensors_of(network(images)))]
        AtomicLocalBackend().put(to_onnx(network, images, names, metadata=metadata_for(subject)), file)
        subject.files.add(file)
    return _quantized(subject, file, len(images)) if dtype == 'int8' else file


def metadata_for(subject: Subject) -> dict[str, str]:
    """Return what a file says of itself, such as how its images are normalised: nothing without a config."""
    said = provenance(subject.cfg, subject.config, subject.checkpoint) if subject.cfg is not None else {}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}


def detector_file(subject: Subject, images: Sequence[np.ndarray], dtype: str) -> Path:
    """Return the file of a whole detector, which takes any size; it is written once, and compared on the images."""
    cfg = subject.pipeline if subject.cfg is None else subject.cfg
    if cfg is None:
        raise UnsupportedModeError('a whole detector becomes a file from a config alone')
    file = subject.folder / f'{subject.name}.onnx'
    if file not in subject.files:
        with tempfile.TemporaryDirectory() as folder:
            for number, image in enumerate(images):
                cv2.imwrite(f'{folder}/{number}.png', image)
            said = provenance(cfg, subject.config or 'of the suite', subject.checkpoint)
            how = dict(dynamic=True, images=Path(folder), say=_silent, compared=not subject.made_to_find)
            model = subject.model  # a FasterNet is exported in its deploy form
            model = model if has_deploy_form(model) else fused(copy.deepcopy(model))
            export_detector(model, cfg, said, file, **how)
        subject.files.add(file)
    return _quantized(subject, file, 1) if dtype == 'int8' else file


def _silent(line: str) -> None:
    """Say nothing: what the exporter compared is compared again, and stands in the report."""


def _quantized(subject: Subject, file: Path, batch_size: int) -> Path:
    """Return an exported file in int8, calibrated on the config's training images."""
    out = file.with_name(f'{file.stem}_int8.xml')
    if out not in subject.files:
        if subject.cfg is None:
            raise UnsupportedModeError('int8 is calibrated on the training images of a config')
        images = ExportedFile(file).training_inputs(subject.cfg, _CALIBRATED_ON)
        model = quantize(file, Inputs(images, lambda image: image.repeat(batch_size, 0)))
        write(model, out, metadata_of(read(file)))
        subject.files.add(out)
    return out


def size_of(file: Path) -> int:
    """Return the bytes of a file; OpenVINO's .xml has its weights in a .bin."""
    return file.stat().st_size + (file.with_suffix('.bin').stat().st_size if file.suffix == '.xml' else 0)
