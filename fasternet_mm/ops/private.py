"""Private operators of torch that make the deploy form fast, each tried before it is used.

They belong to torch's own compiler, and may go or change without a word. So each runs once, the first time that it is
asked for, on a tiny tensor beside the ordinary function. Where it is absent, raises, or computes something else, it is
not used, and one line in the log says so.
"""

import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}  # relative; fp32 may be TF32
_PLAIN = ((1, 1), (1, 1), (1, 1), 1)
_verdicts: dict[tuple[Callable, str, torch.dtype], bool] = {}


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple, activation: str | None) -> Tensor:
    """Convolve and activate ('relu', 'gelu' or None) in one pass by oneDNN.

    Args:
        x (Tensor): (N, C, H, W) on a CPU.
        weight, bias (Tensor): Of the convolution, of the dtype of `x`; the weight may be packed.
        geometry (tuple): Padding, stride, dilation and groups.
        activation (str, optional): By name.
    """
    algorithm = 'none' if activation == 'gelu' else ''  # GELU by erf
    run = torch.ops.mkldnn._convolution_pointwise.default
    return run(x, weight, bias, *geometry, activation or 'none', [], algorithm)


def conv2d_add(residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple) -> Tensor:
    """Convolve by oneDNN, add to `residual` and write the sum there; arguments as :func:`conv2d`."""
    run = torch.ops.mkldnn._convolution_pointwise_.binary
    return run(residual, x, weight, bias, *geometry, 'add', 1.0, None, [], '')


def pack_weight(weight: Tensor, geometry: tuple, shape: torch.Size) -> Tensor:
    """Return `weight` in the order that oneDNN wants it in for images of a shape (N, C, H, W)."""
    return torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *geometry, list(shape))


def addmm_relu(bias: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Return ``relu(rows @ weight + bias)`` in one pass; on CUDA by cuBLASLt."""
    return torch._addmm_activation(bias, rows, weight)


def works(operator: Callable, device: str, dtype: torch.dtype) -> bool:
    """Return whether one of the functions above may be used on a kind of device in a dtype.

    The first call for each tries it; later ones cost a look into a dict. While a CUDA graph is recorded nothing can be
    tried, and what was not tried before is not used.
    """
    key = operator, device, dtype
    if key not in _verdicts:
        if device == 'cuda' and torch.cuda.is_current_stream_capturing():
            return False
        _verdicts[key] = _tried(operator, device, dtype)
    return _verdicts[key]


def _tried(operator: Callable, device: str, dtype: torch.dtype) -> bool:
    by_onednn = operator is not addmm_relu
    if by_onednn and dtype not in (torch.float32, torch.bfloat16):
        return False
    if by_onednn and not torch.backends.mkldnn.is_available():
        return _refused('This PyTorch has no oneDNN')
    try:
        if by_onednn and dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False  # a matter of the processor, not of torch
        with torch.no_grad(), torch.autocast(device, enabled=False):
            got, want = _TRIALS[operator](lambda *shape: _ramp(shape, device, dtype))
            difference = float((got.float() - want.float()).norm() / want.float().norm())
    except Exception as error:  # whatever a private operator does, the ordinary one serves
        return _refused(f"torch's {operator.__name__} failed at its trial ({type(error).__name__})")
    if not difference < _TOLERANCE[dtype]:
        return _refused(f"torch's {operator.__name__} was wrong at its trial ({difference:.2g} relative)")
    return True


def _refused(why: str) -> bool:
    print_log(f'{why}: ordinary operators serve in its place, slower and to equal results.', 'current', logging.WARNING)
    return False


def _ramp(shape: tuple[int, ...], device: str, dtype: torch.dtype) -> Tensor:
    """Return numbers from -1 to 1 that draw on nobody's random state."""
    values = torch.arange(torch.Size(shape).numel(), device=device) * 37 % 101
    return (values / 50 - 1).view(shape).to(dtype)


def _try_conv2d(tensor: Callable) -> tuple[Tensor, Tensor]:
    x, weight, bias = tensor(1, 3, 5, 4), tensor(4, 3, 3, 3), tensor(4)
    want = F.conv2d(x, weight, bias, padding=1)
    got = torch.cat([conv2d(x, weight, bias, _PLAIN, activation) for activation in (None, 'relu', 'gelu')])
    return got, torch.cat([want, want.relu(), F.gelu(want)])


def _try_conv2d_add(tensor: Callable) -> tuple[Tensor, Tensor]:
    x, weight, residual = tensor(1, 3, 5, 4), tensor(4, 3, 3, 3), tensor(1, 4, 5, 4)
    want = residual + F.conv2d(x, weight, padding=1)
    out = conv2d_add(residual, x, weight, None, _PLAIN)
    return torch.cat([out, residual]), torch.cat([want, want])


def _try_pack_weight(tensor: Callable) -> tuple[Tensor, Tensor]:
    x, weight = tensor(1, 3, 5, 4), tensor(4, 3, 3, 3)
    return conv2d(x, pack_weight(weight, _PLAIN, x.shape), None, _PLAIN, None), F.conv2d(x, weight, padding=1)


def _try_addmm_relu(tensor: Callable) -> tuple[Tensor, Tensor]:
    bias, rows, weight = tensor(8), tensor(16, 8), tensor(8, 8)
    return addmm_relu(bias, rows, weight), torch.addmm(bias, rows, weight).relu()


_TRIALS = {
    conv2d: _try_conv2d,
    conv2d_add: _try_conv2d_add,
    pack_weight: _try_pack_weight,
    addmm_relu: _try_addmm_relu,
}
