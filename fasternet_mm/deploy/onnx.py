"""A network as one ONNX file, and the proof that others compute from it what PyTorch computes."""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import UserError
from .runtime import compiled_by_openvino, openvino_core

OPSET = 18
_TOLERANCE = 1e-4
_EXTRAS = dict(onnx='onnx', onnxscript='onnx', onnxruntime='onnx', openvino='openvino', nncf='int8')


def require_packages(*names: str) -> None:
    """Raise UserError that says how to install what is missing of `names`."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"{name} is not installed: pip install 'fasternet_mm[{_EXTRAS[name]}]', or pip install {name}"
            )


def to_onnx(
    network: nn.Module, images: Tensor, outputs: Sequence[str], dynamic: bool = False, metadata: dict | None = None
) -> bytes:
    """Export a network to ONNX.

    Args:
        network (nn.Module): In evaluation mode, fp32, on the CPU; maps images to a tensor or a tuple of tensors.
        images (Tensor): (N, 3, H, W), an example; the input of the file is called ``images``.
        outputs (Sequence[str]): Names of the outputs.
        dynamic (bool): Whether N, H and W may change. Defaults to False.
        metadata (dict, optional): JSON values to keep in the file.

    Returns:
        bytes: The file, checked by onnx.

    Raises:
        UserError: As of :func:`exported`.
    """
    dims = {0: torch.export.Dim('batch'), 2: torch.export.Dim('height'), 3: torch.export.Dim('width')}
    return exported(network, images, 'images', outputs, dims if dynamic else None, metadata)


def exported(
    network: nn.Module, example: Tensor, name: str, outputs: Sequence[str], dims: dict | None, metadata: dict | None
) -> bytes:
    """Export a network with one input to ONNX.

    Args:
        network (nn.Module): In evaluation mode, fp32, on the CPU.
        example (Tensor): An input.
        name (str): Of the input in the file.
        outputs (Sequence[str]): Names of the outputs.
        dims (dict, optional): torch.export's description of the dimensions that may change, if any.
        metadata (dict, optional): JSON values to keep in the file.

    Returns:
        bytes: The file, checked by onnx.

    Raises:
        UserError: If onnx or onnxscript is missing, or the network cannot be exported, or not at free sizes.
    """
    require_packages('onnx', 'onnxscript')
    import onnx

    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network, (example,), dynamo=True, opset_version=OPSET, verbose=False, input_names=[name],
                output_names=list(outputs), dynamic_shapes=(dims,) if dims else None,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(f'PyTorch {torch.__version__} cannot export this network: {cause}') from error
    model = program.model_proto
    sides = model.graph.input[0].type.tensor_type.shape.dim
    if fixed := [dim for dim in dims or () if not sides[dim].dim_param]:
        raise UserError(
            f'PyTorch {torch.__version__} exports dimensions {fixed} of the input as fixed; leave --dynamic out'
        )
    for node in model.graph.node:
        del node.metadata_props[:]  # lines of our source code
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@contextmanager
def _quiet():
    """Keep the exporter from speaking of its own insides."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


def onnxruntime_session(file: bytes) -> Callable[[Tensor], list[Tensor]]:
    """Return a call that runs an ONNX file in ONNX Runtime on the CPU, with as many threads as torch uses.

    Raises:
        UserError: If onnxruntime is missing.
    """
    require_packages('onnxruntime')
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    return lambda images: [torch.from_numpy(out) for out in session.run(None, {'images': images.numpy()})]


def openvino_session(file: bytes, precision: str = 'fp32') -> Callable[[Tensor], list[Tensor]]:
    """Return a call that runs an ONNX file in OpenVINO on the CPU, with as many threads as torch uses.

    Args:
        file (bytes): Of :func:`to_onnx`.
        precision (str): 'fp32' or 'bf16', in which it computes; inputs and outputs are fp32.

    Raises:
        UserError: If openvino is missing.
    """
    require_packages('openvino')
    compiled = compiled_by_openvino(openvino_core().read_model(file), precision, torch.get_num_threads())
    return lambda images: [torch.from_numpy(out.copy()) for out in compiled(images.numpy()).values()]


def require_equal(
    runtime: str, call: Callable[[Tensor], Sequence[Tensor]], network: nn.Module, images: Tensor
) -> float:
    """Return the largest relative difference of any output of `call` from the network's.

    Raises:
        UserError: If it is above 1e-4.
    """
    with torch.no_grad():
        difference = relative_difference(call(images), tensors_of(network(images)))
    if not difference < _TOLERANCE:
        shape = 'x'.join(map(str, images.shape))
        raise UserError(
            f'{runtime} computes something else from the file than PyTorch: {difference:.2g} relative at {shape} '
            f'(at most {_TOLERANCE:g} is accepted), so it is not written'
        )
    return difference


def tensors_of(outputs) -> Iterator[Tensor]:
    """Yield every tensor in `outputs`: itself, or those in nested sequences and dicts."""
    if isinstance(outputs, Tensor):
        yield outputs
        return
    for part in outputs.values() if isinstance(outputs, dict) else outputs:
        yield from tensors_of(part)


def relative_difference(got: Iterable[Tensor], want: Iterable[Tensor]) -> float:
    """Return the norm of the difference over the norm of what is wanted, of the tensor that is off the most, or NaN."""
    differences = [float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in zip(got, want, strict=True)]
    return float(torch.tensor(differences, dtype=torch.float64).max())  # Python's max may pass over NaN
