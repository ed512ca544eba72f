"""A convolution with its bias, activation and residual in one pass, by oneDNN on a CPU and by cuBLASLt on CUDA."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from . import private

_ACTIVATIONS = {nn.ReLU: 'relu', nn.GELU: 'gelu'}


def onednn_dtype(x: Tensor) -> torch.dtype | None:
    """Return the dtype in which oneDNN convolves `x` in one pass, or None where it does not."""
    if x.device.type != 'cpu' or _needs_ordinary_operators(x):
        return None
    dtype = _compute_dtype(x)
    return dtype if private.works(private.conv2d, 'cpu', dtype) else None


def takes_cublaslt(x: Tensor) -> bool:
    """Return whether pointwise convolutions of `x` are matrix products in one pass."""
    if not x.is_cuda or _needs_ordinary_operators(x) or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    return _compute_dtype(x) != torch.float32 or _products_are_as_fast()


def autocast_dtype(device: str) -> torch.dtype | None:
    """Return autocast's dtype on a kind of device, or None where it is off."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _products_are_as_fast() -> bool:
    """Return whether fp32 is the same for both: by default torch lets convolutions round to TF32, but not products."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, 'conv'):  # from torch 2.9 on; where these were set, allow_tf32 raises
        return products.fp32_precision == 'tf32' or cudnn.conv.fp32_precision != 'tf32'
    return products.allow_tf32 or not cudnn.allow_tf32


def _needs_ordinary_operators(x: Tensor) -> bool:
    """Return whether gradients are wanted, or a graph is traced or exported."""
    return (x.requires_grad and torch.is_grad_enabled()) or is_compiling() or torch.jit.is_tracing() or not x.numel()


def _compute_dtype(x: Tensor) -> torch.dtype:
    """Return what a convolution computes in: autocast's dtype, or the input's own."""
    return autocast_dtype(x.device.type) or x.dtype


class FusedConv2d(nn.Conv2d):
    """A convolution that adds its bias, applies its activation or adds a residual before its output is written.

    On a CPU by oneDNN, for which the weights are packed once instead of in every call; a pointwise one on CUDA by
    cuBLASLt. Elsewhere, and where gradients are wanted, by ordinary operators. For inference.

    Args:
        conv (nn.Conv2d): Its weights are taken over, not copied.
        activation (nn.Module, optional): Applied to the output.

    Shape:
        As of `conv`; a residual is of the output's.
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
        self._configure()

    def _configure(self) -> None:
        """Set what follows from the module's settings; again where an older release pickled the module."""
        exact = getattr(self.activation, 'approximate', 'none') == 'none'  # GELU by erf
        self._epilogue = _ACTIVATIONS.get(type(self.activation)) if exact else None
        self._takes_residual = isinstance(self.activation, nn.Identity)
        self._geometry = self.padding, self.stride, self.dilation, self.groups
        self._pads_zeros = self.padding_mode == 'zeros' and not isinstance(self.padding, str)
        self._is_product = self.kernel_size == self.stride == (1, 1) and self.padding == (0, 0) and self.groups == 1
        self._packed = {}

    def __getstate__(self) -> dict:
        return dict(super().__getstate__(), _packed={})  # oneDNN's tensors cannot be pickled

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._configure()

    def _load_from_state_dict(self, *args) -> None:
        super()._load_from_state_dict(*args)
        self._packed = {}

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
        """Do what `forward` does, where :func:`onednn_dtype` has given `dtype`."""
        weight, bias = self._weights_for(x, dtype, self._pack)
        if x.dtype != dtype:
            x = x.to(dtype)
        if residual is not None and self._takes_residual and residual.dtype == dtype:
            if private.works(private.conv2d_add, 'cpu', dtype):
                return private.conv2d_add(residual, x, weight, bias, self._geometry)
        out = private.conv2d(x, weight, bias, self._geometry, self._epilogue)
        out = out if self._epilogue else self.activation(out)
        return out if residual is None else residual + out

    def _pack(self, weight: Tensor, shape: torch.Size) -> Tensor:
        if private.works(private.pack_weight, 'cpu', weight.dtype):
            return private.pack_weight(weight, self._geometry, shape)
        return weight

    def _by_product(self, x: Tensor, dtype: torch.dtype, residual: Tensor | None) -> Tensor:
        """Convolve pointwise by a matrix product, which adds the bias and applies ReLU, or adds the residual."""
        weight, bias = self._weights_for(x, dtype, lambda weight, _: weight.flatten(1).t())
        rows = _rows(x.to(dtype))
        if residual is not None and self._takes_residual and bias is None and residual.dtype == dtype:
            out, residual = _rows(residual).addmm_(rows, weight), None
        elif bias is None:
            out = self.activation(rows @ weight)
        elif self._epilogue == 'relu' and private.works(private.addmm_relu, x.device.type, dtype):
            out = private.addmm_relu(bias, rows, weight)
        else:  # cuBLASLt's GELU is the approximate one
            out = self.activation(torch.addmm(bias, rows, weight))
        out = out.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)
        return out if residual is None else residual + out

    def _weights_for(self, x: Tensor, dtype: torch.dtype, pack: Callable) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias as a library wants them, anew when they have changed, but by ``.data`` in place."""
        state, packed = (_state(self.weight), _state(self.bias)), self._packed.get(dtype)
        if packed is None or packed[0] != state:
            weight = pack(self.weight.detach().to(dtype), x.shape)
            packed = state, (weight, None if self.bias is None else self.bias.detach().to(dtype))
            self._packed[dtype] = packed
        return packed[1]


def _state(parameter: Tensor | None) -> tuple[int, int] | None:
    """Return what changes with a parameter's values; tensors made in inference mode have no versions."""
    return parameter if parameter is None else (parameter.data_ptr(), parameter.is_inference() or parameter._version)


def _rows(x: Tensor) -> Tensor:
    """Return a map as a matrix of one row a pixel, without a copy in channels-last order."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
