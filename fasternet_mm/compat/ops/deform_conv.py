"""Deformable convolution, v1 and v2."""

import torch
from torch import Tensor

from .common import widen

_vision = torch.ops.torchvision
_V1_GEOMETRY = ('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group')
_V2_GEOMETRY = ('stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w', 'group', 'deformable_group')


def _deform_conv(input, weight, offset, mask, bias, geometry) -> Tensor:
    """Return a deformable convolution, NaN where an offset is; `mask` (v2) and `bias` may be None."""
    tensors, use_mask = _fill_in(input, weight, offset, mask, bias)
    output = _vision.deform_conv2d(*tensors, *geometry, use_mask)
    return output.masked_fill_(offset.isnan().any(dim=1, keepdim=True), torch.nan)


def _deform_conv_backward(grad_output, input, weight, offset, mask, bias, geometry) -> tuple[Tensor, ...]:
    """Return the gradients with respect to (input, weight, offset, mask, bias)."""
    tensors, use_mask = _fill_in(input, weight, offset, mask, bias)
    (grad_output,) = widen(grad_output)
    return _vision._deform_conv2d_backward(grad_output, *tensors, *geometry, use_mask)


def _fill_in(input, weight, offset, mask, bias):
    use_mask = mask is not None
    mask = mask if use_mask else input.new_zeros(len(input), 1)
    bias = bias if bias is not None else input.new_zeros(len(weight))
    offset = offset.masked_fill(offset.isnan(), torch.inf)  # outside; torchvision reads any address at NaN
    return widen(input, weight, offset, mask, bias), use_mask


def deform_conv_forward(input, weight, offset, output, columns, ones, **options) -> None:
    """Write a deformable convolution v1 (Dai et al., 2017) into `output`."""
    output.copy_(_deform_conv(input, weight, offset, None, None, [options[name] for name in _V1_GEOMETRY]))


def deform_conv_backward_input(input, offset, grad_output, grad_input, grad_offset, weight, columns, **options) -> None:
    """Write the gradients of deformable convolution v1 into `grad_input` and `grad_offset`."""
    geometry = [options[name] for name in _V1_GEOMETRY]
    grads = _deform_conv_backward(grad_output, input, weight, offset, None, None, geometry)
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


def deform_conv_backward_parameters(input, offset, grad_output, grad_weight, columns, ones, scale, **options) -> None:
    """Add the gradient of deformable convolution v1, `scale` times, to `grad_weight`."""
    geometry = [options[name] for name in _V1_GEOMETRY]
    # the gradient of a convolution's weight does not depend on the weight: its shape alone is read
    grads = _deform_conv_backward(grad_output, input, grad_weight, offset, None, None, geometry)
    grad_weight.add_(grads[1].to(grad_weight.dtype), alpha=scale)


def _as_read(offset: Tensor, mask: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return `offset` and `mask` as mmcv reads them for an output that has the size of `like`.

    A map of offsets may be larger than the output: DyHead passes those of the finer level. mmcv's kernel then takes the
    first elements of each image's buffer as if they were a map of the output's size, and models are trained with that.
    """
    size = like.shape[2:]
    count = size.numel()

    def read(maps: Tensor) -> Tensor:
        if maps.shape[2:].numel() < count or maps.shape[2:] == size:
            return maps  # too small a map is refused by torchvision
        return maps.flatten(1)[:, : maps.size(1) * count].unflatten(1, (maps.size(1), *size))

    return read(offset), read(mask)


def _fill(grad: Tensor, value: Tensor) -> None:
    """Write the gradient `value` of the first elements of each image into `grad`, and zeros behind them."""
    value = value.flatten(1)
    behind = grad[:1].numel() - value[:1].numel()
    grad.copy_(torch.nn.functional.pad(value, (0, behind)).view(grad.shape))


def modulated_deform_conv_forward(
    input, weight, bias, ones, offset, mask, output, columns, with_bias, **options
) -> None:
    """Write a deformable convolution v2 (Zhu et al., 2019), one modulation a sampling point, into `output`.

    `offset` and `mask` may be maps larger than the output's; see :func:`_as_read`.
    """
    geometry = [options[name] for name in _V2_GEOMETRY]
    offset, mask = _as_read(offset, mask, output)
    output.copy_(_deform_conv(input, weight, offset, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input, weight, bias, ones, offset, mask, columns,
    grad_input, grad_weight, grad_bias, grad_offset, grad_mask, grad_output, with_bias, **options
) -> None:  # fmt: skip
    """Write the gradients of deformable convolution v2 into the five ``grad_*`` arguments before `grad_output`."""
    geometry = [options[name] for name in _V2_GEOMETRY]
    offset, mask = _as_read(offset, mask, grad_output)
    grads = _deform_conv_backward(grad_output, input, weight, offset, mask, bias if with_bias else None, geometry)
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    _fill(grad_offset, grads[2])
    _fill(grad_mask, grads[3])
    if with_bias:
        grad_bias.copy_(grads[4])
