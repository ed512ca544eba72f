"""Multi-scale deformable attention, and the masks of point-wise spatial attention."""

import torch
from torch import Tensor

from .common import widen, write_gradients


def _attend(value_spatial_shapes: Tensor):
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch  # which imports this

    shapes = value_spatial_shapes.tolist()
    return lambda value, locations, weights: multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Return multi-scale deformable attention (Zhu et al., 2021) as mmcv computes it on a CPU, by ``grid_sample``.

    Args:
        value (Tensor): (N, keys, heads, channels of a head); the keys of one level after the other.
        value_spatial_shapes (Tensor): Height and width of each level (levels, 2).
        value_level_start_index (Tensor): Follows from the shapes.
        sampling_locations (Tensor): (N, queries, heads, levels, points, 2), x before y, from 0 to 1.
        attention_weights (Tensor): (N, queries, heads, levels, points).
        im2col_step (int): Of no effect on the result.

    Returns:
        Tensor: (N, queries, heads * channels of a head).
    """
    return _attend(value_spatial_shapes)(*widen(value, sampling_locations, attention_weights)).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of multi-scale deformable attention into the three arguments after `grad_output`."""
    inputs = widen(value, sampling_locations, attention_weights)
    write_gradients(
        [grad_value, grad_sampling_loc, grad_attn_weight], _attend(value_spatial_shapes), inputs, grad_output
    )


def psamask_forward(input: Tensor, output: Tensor, psa_type: int, num_: int, **sizes) -> None:
    """Write the masks (N, mask cells, H, W) of point-wise spatial attention (Zhao et al., 2018) into `output`.

    `output` is (N, H * W, H, W). A mask is laid over the map with its middle on its pixel. `psa_type` 0 collects: the
    second dimension is where the mask's cell falls, and the last two the pixel that the mask is of; 1 distributes: the
    other way round.
    """
    cell, pixel, target = _mask_cells(input.device, **sizes)
    where = (target, pixel) if psa_type == 0 else (pixel, target)
    output.flatten(2)[:, where[0], where[1]] = input.flatten(2)[:, cell, pixel]


def psamask_backward(grad_output: Tensor, grad_input: Tensor, psa_type: int, num_: int, **sizes) -> None:
    """Write the gradient of :func:`psamask_forward` into `grad_input` (N, mask cells, H, W)."""
    cell, pixel, target = _mask_cells(grad_output.device, **sizes)
    where = (target, pixel) if psa_type == 0 else (pixel, target)
    grad_input.flatten(2)[:, cell, pixel] = grad_output.flatten(2)[:, where[0], where[1]]


def _mask_cells(
    device, h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each cell of each pixel's mask that falls on the map: the cell, the pixel, and the pixel it falls on."""

    def along(feature: int, mask: int, half: int) -> tuple[Tensor, Tensor, Tensor]:
        target = torch.arange(feature, device=device)[:, None] + torch.arange(mask, device=device) - half
        pixel, cell = ((target >= 0) & (target < feature)).nonzero(as_tuple=True)
        return cell, pixel, pixel + cell - half

    rows, columns = along(h_feature, h_mask, half_h_mask), along(w_feature, w_mask, half_w_mask)
    widths = (w_mask, w_feature, w_feature)
    return tuple((y[:, None] * width + x).flatten() for y, x, width in zip(rows, columns, widths))
