"""The parts of a FasterNet in its deploy form: BN folded, bias, activation and residual inside the convolutions."""

import logging
from collections.abc import Callable

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch._dynamo import is_compiling
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UserError

_ACTIVATIONS = {nn.ReLU: 'relu', nn.GELU: 'gelu'}
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_convolution_pointwise')
_ONEDNN_DTYPES = (torch.float32,)
if HAS_ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    _ONEDNN_DTYPES += (torch.bfloat16,)
_KNOWS_AUTOCAST_BY_DEVICE = hasattr(torch, 'get_autocast_dtype')  # from torch 2.4 on


def onednn_dtype(x: Tensor) -> torch.dtype | None:
    """In what dtype oneDNN convolves `x` with an epilogue, by inductor's operators; None where it does not."""
    if not HAS_ONEDNN or x.device.type != 'cpu' or _needs_ordinary_operators(x):
        return None
    dtype = _compute_dtype(x)
    return dtype if dtype in _ONEDNN_DTYPES else None


def takes_cublaslt(x: Tensor) -> bool:
    """Whether pointwise convolutions of `x` are matrix products with an epilogue."""
    if not x.is_cuda or _needs_ordinary_operators(x) or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    return _compute_dtype(x) != torch.float32 or _products_are_as_fast()


def _products_are_as_fast() -> bool:
    """By default torch lets convolutions round fp32 to TF32, but not products."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, 'conv'):  # from torch 2.9 on; where these were set, allow_tf32 raises
        return products.fp32_precision == 'tf32' or cudnn.conv.fp32_precision != 'tf32'
    return products.allow_tf32 or not cudnn.allow_tf32


def _needs_ordinary_operators(x: Tensor) -> bool:
    """Gradients, and graphs that are traced or exported."""
    return (x.requires_grad and torch.is_grad_enabled()) or is_compiling() or torch.jit.is_tracing() or not x.numel()


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What a convolution computes in: autocast's dtype, or the input's own."""
    return autocast_dtype(x.device.type) or x.dtype


def autocast_dtype(kind: str) -> torch.dtype | None:
    """Autocast's dtype on a kind of device; None where it is off."""
    if _KNOWS_AUTOCAST_BY_DEVICE:
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    if kind == 'cpu':
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


class FusedConv2d(nn.Conv2d):
    """A convolution that adds its bias, applies its activation or adds a residual before its output is written.

    On a CPU by oneDNN, whose own order of the weights is made once instead of in every call and kept beside them; a
    pointwise one on CUDA by cuBLASLt. Elsewhere, and where gradients are wanted, by ordinary operators. For inference.

    Args:
        conv (nn.Conv2d): Its weights are taken over, not copied.
        activation (nn.Module, optional): Applied to the output.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None = None) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
            conv.groups, conv.bias is not None, conv.padding_mode, device='meta',
        )  # fmt: skip
        self.weight, self.bias = conv.weight, conv.bias
        # the order of the maps on CUDA; of no effect where oneDNN has its own
        self.weight.data = self.weight.data.contiguous(memory_format=torch.channels_last)
        self.activation = nn.Identity() if activation is None else activation
        exact = getattr(activation, 'approximate', 'none') == 'none'  # GELU by erf
        self._epilogue = _ACTIVATIONS.get(type(activation)) if exact else None
        self._takes_residual = activation is None
        # what oneDNN's operators take
        self._geometry = self.padding, self.stride, self.dilation, self.groups
        self._attributes = self._epilogue or 'none', [], 'none' if self._epilogue == 'gelu' else ''
        self._pads_zeros = self.padding_mode == 'zeros' and not isinstance(self.padding, str)
        self._is_product = self.kernel_size == self.stride == (1, 1) and self.padding == (0, 0) and self.groups == 1
        self._prepared = {}

    def __getstate__(self) -> dict:
        return dict(super().__getstate__(), _prepared={})  # oneDNN's tensors cannot be pickled

    def _load_from_state_dict(self, *args) -> None:
        super()._load_from_state_dict(*args)
        self._prepared = {}

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Convolve, activate, and add `residual`, which may be overwritten."""
        dtype = onednn_dtype(x) if self._pads_zeros else None
        if dtype is not None:
            return self.by_onednn(x, dtype, residual)
        if self._is_product and takes_cublaslt(x):
            return self._by_product(x, _compute_dtype(x), residual)
        out = self.activation(super().forward(x))
        return out if residual is None else residual + out

    def by_onednn(self, x: Tensor, dtype: torch.dtype, residual: Tensor | None = None) -> Tensor:
        """`forward`, where :func:`onednn_dtype` has given `dtype`."""
        weight, bias = self._weights_for(x, dtype, self._in_onednns_order)
        if x.dtype != dtype:
            x = x.to(dtype)
        if residual is not None and self._takes_residual and residual.dtype == dtype:
            add = torch.ops.mkldnn._convolution_pointwise_.binary
            return add(residual, x, weight, bias, *self._geometry, 'add', 1.0, None, [], '')
        out = torch.ops.mkldnn._convolution_pointwise.default(x, weight, bias, *self._geometry, *self._attributes)
        out = out if self._epilogue else self.activation(out)
        return out if residual is None else residual + out

    def _in_onednns_order(self, weight: Tensor, shape: torch.Size) -> Tensor:
        return torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *self._geometry, list(shape))

    def _by_product(self, x: Tensor, dtype: torch.dtype, residual: Tensor | None) -> Tensor:
        """A pointwise convolution as a matrix product, which adds the bias and applies ReLU, or adds the residual."""
        weight, bias = self._weights_for(x, dtype, lambda weight, _: weight.flatten(1).t())
        rows = _rows(x.to(dtype))
        if residual is not None and self._takes_residual and bias is None and residual.dtype == dtype:
            out, residual = _rows(residual).addmm_(rows, weight), None
        elif bias is not None and self._epilogue == 'relu':
            out = torch._addmm_activation(bias, rows, weight)
        else:  # cuBLASLt's GELU is the approximate one
            out = self.activation(rows @ weight if bias is None else torch.addmm(bias, rows, weight))
        out = out.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)
        return out if residual is None else residual + out

    def _weights_for(self, x: Tensor, dtype: torch.dtype, prepare: Callable) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as a library wants them; prepared again when they have changed, but by ``.data`` in place."""
        state, prepared = (_state(self.weight), _state(self.bias)), self._prepared.get(dtype)
        if prepared is None or prepared[0] != state:
            weight = prepare(self.weight.detach().to(dtype), x.shape)
            prepared = state, (weight, None if self.bias is None else self.bias.detach().to(dtype))
            self._prepared[dtype] = prepared
        return prepared[1]


def _state(parameter: Tensor | None) -> tuple[int, int] | None:
    """What changes with a parameter's values; tensors made in inference mode have no versions."""
    return parameter if parameter is None else (parameter.data_ptr(), parameter.is_inference() or parameter._version)


def _rows(x: Tensor) -> Tensor:
    """A map as a matrix of one row a pixel; no copy in channels-last order."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


class DeployedBlock(nn.Module):
    """A FasterNetBlock in evaluation: three convolutions, whose own hooks do not run where oneDNN does.

    The output may be written over the input, so that a hook has to copy what it keeps.

    Args:
        block (FasterNetBlock): Its weights are folded; it is of no use afterwards.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        expand, norm, activation, reduce = block.mlp
        self.spatial_mixing = block.spatial_mixing
        self.spatial_mixing.partial_conv3 = FusedConv2d(block.spatial_mixing.partial_conv3)
        if block.layer_scale is not None:
            reduce.weight.data *= block.layer_scale.data.view(-1, 1, 1, 1)
        # the names of the trained form, so that what reads them reads both
        self.mlp = nn.ModuleDict({'0': FusedConv2d(fold(expand, norm), activation), '3': FusedConv2d(reduce)})

    def forward(self, x: Tensor) -> Tensor:
        """Writes its output over `x` where it can: within a stage nothing else reads it."""
        expand, reduce, dtype = self.mlp['0'], self.mlp['3'], onednn_dtype(x)
        if dtype is None:
            return reduce(expand(self.spatial_mixing(x)), x)
        mixed = x.to(dtype)
        convolved = mixed[:, : self.spatial_mixing.conv_channels]
        before = convolved.clone()  # for the residual; the other channels are not copied
        convolved.copy_(self.spatial_mixing.partial_conv3.by_onednn(convolved, dtype))
        hidden = expand.by_onednn(mixed, dtype)
        convolved.copy_(before)
        return reduce.by_onednn(hidden, dtype, x)


class DeployedStem(nn.Module):
    """The stem in evaluation: one convolution, in channels-last order where convolutions with an epilogue want it.

    Args:
        stem (Embedding): Its weights are folded.
    """

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.proj = FusedConv2d(fold(stem.proj, stem.norm))

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda or onednn_dtype(x) is not None:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.proj(x)


def warn_without_onednn(device: torch.device) -> None:
    """Log it where a CPU lacks the operators that make the deploy form fast."""
    if device.type == 'cpu' and not HAS_ONEDNN:
        message = 'This PyTorch has no oneDNN: in the deploy form BN is folded, but ordinary operators run.'
        print_log(message, 'current', logging.WARNING)


def fold(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """`conv` with the BN after it in its weights and bias, in place."""
    scale, shift = affine(norm)
    bias = 0 if conv.bias is None else conv.bias.data.double() * scale
    conv.weight.data = (conv.weight.data.double() * scale.view(-1, 1, 1, 1)).to(conv.weight.dtype)
    conv.bias = nn.Parameter((shift + bias).to(conv.weight.dtype))
    return conv


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a BN in evaluation multiplies by and adds, one of each a channel, in double precision."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.data.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.data.double()


def require_foldable(name: str, norm: nn.Module) -> None:
    """Raise UserError unless `norm` is a BN with statistics."""
    what = f'{name} is {type(norm).__name__}'
    if isinstance(norm, nn.SyncBatchNorm):
        raise UserError(f'{what}: convert it first, by mmengine.model.revert_sync_batchnorm(model)')
    if not isinstance(norm, _BatchNorm):
        raise UserError(f'{what}, which cannot be folded into a convolution: only BN can; evaluate the trained form')
    if norm.running_mean is None:
        raise UserError(f'{what} without running statistics, which cannot be folded into a convolution')
