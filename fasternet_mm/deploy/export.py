"""A trained config and checkpoint as an ONNX file."""

import copy
import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..checkpoint import checkpoint_sha256
from ..errors import UserError
from ..files import AtomicLocalBackend
from ..version import __version__
from .form import switch_to_deploy
from .onnx import OPSET, onnxruntime_session, openvino_session, require_equal, require_packages, to_onnx

PARTS = ('backbone', 'backbone+neck', 'classifier')


class Exported(nn.Module):
    """The part of a model that is exported: images (N, 3, H, W), normalised, to a tensor or a tuple of them.

    Args:
        model (nn.Module): A classifier or a detector.
        part (str): Of :data:`PARTS`.

    Raises:
        UserError: If the model has no such part.
    """

    def __init__(self, model: nn.Module, part: str) -> None:
        super().__init__()
        if part == 'backbone':
            self.network = model.backbone
            self.names = [f'c{index + 2}' for index in model.backbone.out_indices]
            return
        self.network = model
        if part == 'backbone+neck' and hasattr(getattr(model, 'neck', None), 'start_level'):
            first = model.backbone.out_indices[model.neck.start_level] + 2
            self.names = [f'p{first + index}' for index in range(model.neck.num_outs)]
            self.network = nn.Sequential(model.backbone, model.neck)
        elif part == 'classifier' and getattr(model, 'head', None) is not None:
            self.names = ['logits']
        else:
            neck = f' with the neck {type(model.neck).__name__}' if getattr(model, 'neck', None) is not None else ''
            raise UserError(f'--what {part}: {type(model).__name__}{neck} has no such part that can be exported')

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.network(images)


def export_onnx(
    model: nn.Module,
    cfg: Config,
    config: str,
    checkpoint: str | None,
    out: Path,
    part: str,
    shape: tuple[int, int],
    dynamic: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Write the deploy form of a trained model as one ONNX file, after its outputs were compared with PyTorch's.

    Args:
        model (nn.Module): A classifier or detector with a FasterNet, in evaluation mode on the CPU.
        cfg (Config): Its config, of which the file keeps the normalisation of images.
        config (str): The config's path, which the file keeps.
        checkpoint (str, optional): Its weights' path, which the file keeps, with their SHA-256.
        out (Path): The file.
        part (str): Of :data:`PARTS`.
        shape (tuple[int, int]): H, W; only an example where `dynamic`.
        dynamic (bool): Whether batch, height and width may change. Defaults to False.
        say (Callable): Takes lines on how far it is.

    Returns:
        dict[str, float]: The largest relative difference from PyTorch, for each runtime.

    Raises:
        UserError: If a package is missing, or a runtime computes something else; nothing is written then.
    """
    require_packages('onnx', 'onnxscript', 'onnxruntime')
    trained, deployed = Exported(model, part), copy.deepcopy(model)
    # a backbone alone keeps its output norms, which otherwise go into the neck
    switch_to_deploy(deployed.backbone if part == 'backbone' else deployed)
    network = Exported(deployed, part)
    say(f'exporting {part} of {config} at {shape[0]} x {shape[1]}{", dynamic" if dynamic else ""}')
    metadata = dict(
        provenance(cfg, config, checkpoint),
        input='images: float32, (N, 3, H, W), pixel values of 0 to 255 less mean, over std',
    )
    file = to_onnx(network, _images(2 if dynamic else 1, shape), network.names, dynamic, metadata)
    runtimes = {'ONNX Runtime': onnxruntime_session(file)}
    if importlib.util.find_spec('openvino') is not None:
        runtimes['OpenVINO'] = openvino_session(file)
    differences = {}
    shapes = [(1, *shape), (2, shape[0] + 32, shape[1]), (3, shape[0], shape[1] + 64)] if dynamic else [(1, *shape)] * 3
    for name, call in runtimes.items():
        differences[name] = max(
            require_equal(name, call, trained, _images(size[0], size[1:], seed)) for seed, size in enumerate(shapes)
        )
        sizes = ', '.join(dict.fromkeys(map(_by, shapes)))
        say(f'{name}: off PyTorch by at most {differences[name]:.1e} relative at {sizes}')
    AtomicLocalBackend().put(file, out)
    say(f'{out}: {len(file) / 1e6:.1f} MB, opset {OPSET}, outputs {", ".join(network.names)}')
    return differences


def _images(batch: int, shape: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, *shape, generator=torch.Generator().manual_seed(seed))


def _by(shape: tuple[int, ...]) -> str:
    return 'x'.join(map(str, shape))


def provenance(cfg: Config, config: str, checkpoint: str | None) -> dict:
    """Return what an exported file keeps of where it comes from and of how it was trained to see pixels."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    return dict(
        producer=f'fasternet_mm {__version__}',
        config=config,
        config_sha256=hashlib.sha256(cfg.pretty_text.encode()).hexdigest(),
        checkpoint=checkpoint or 'random weights',
        checkpoint_sha256=checkpoint_sha256(checkpoint) or '',
        mean=list(preprocessor.get('mean') or []),
        std=list(preprocessor.get('std') or []),
        channels='RGB' if preprocessor.get('to_rgb', preprocessor.get('bgr_to_rgb', False)) else 'BGR',
    )
