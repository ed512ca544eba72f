"""Pooling of RoIs: RoIAlign by mean and by maximum, RoIPool, and deformable RoI pooling."""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .common import widen, write_gradients

_vision = torch.ops.torchvision
_MEMORY = 2**25  # elements of the largest temporary tensor, unless a single RoI needs more
_OUTSIDE = -2  # a coordinate that bilinear() gives no weight


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool (N, C, H, W) features at (K, 5) rois by RoIAlign into `output` (K, C, aligned_height, aligned_width).

    `pool_mode` 1 takes the mean of the samples in a bin (He et al., 2017); 0 takes their maximum and writes where it
    lies into `argmax_y` and `argmax_x`, of the shape of `output`. A bin without samples is 0.
    """
    features, rois = widen(input, rois)
    if pool_mode == 1:
        output.copy_(
            _vision.roi_align(features, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned)
        )
        return
    bins = (aligned_height, aligned_width)
    start, size = _extent(rois, spatial_scale, 0.5 if aligned else 0)
    if not aligned:
        size = size.clamp(min=1)
    counts = _sample_counts(size, bins, sampling_ratio)
    rows, origins = _rows(features, rois)
    argmax_y.fill_(_OUTSIDE)
    argmax_x.fill_(_OUTSIDE)
    for index, most in _chunks(counts, output[:1].numel()):
        y, x = (_points(start[index], size[index], bins, counts[index], most, axis) for axis in (0, 1))
        y, x = torch.broadcast_tensors(y[:, :, None, :, None], x[:, None, :, None, :])
        y, x = y.flatten(3), x.flatten(3)  # (K, bins, bins, samples)
        cells, weights = bilinear(y, x, *features.shape[2:])
        values = _weighted_sums(rows, cells + origins[index], weights)
        values.masked_fill_(~_counted(counts[index], most)[..., None], -torch.inf)
        best, at = values.max(dim=3)
        for out, value in ((output, best), (argmax_y, y.gather(3, at)), (argmax_x, x.gather(3, at))):
            out[index] = value.permute(0, 3, 1, 2).to(out.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of RoIAlign with respect to its features into `grad_input` (N, C, H, W)."""
    grad, rois, y, x = widen(grad_output, rois, argmax_y, argmax_x)
    shape = grad_input.shape
    if pool_mode == 1:
        grad_input.copy_(
            _vision._roi_align_backward(
                grad, rois, spatial_scale, aligned_height, aligned_width, *shape, sampling_ratio, aligned
            )
        )
        return
    cells, weights = bilinear(y, x, *shape[2:])
    _scatter(grad_input, rois, cells, grad[..., None] * weights)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the maxima of (N, C, H, W) features in the bins of (K, 5) rois into `output`, and their places in `argmax`.

    RoIPool (Girshick, 2015) of mmcv: a RoI takes in its last pixel, its corners are not rounded, and a bin reaches from
    the floor of its start to the ceiling of its end; torchvision's differs in all three. Both results are
    (K, C, pooled_height, pooled_width); a place is an index into the H * W pixels. A bin without pixels is 0 at -1.
    """
    features, rois = widen(input, rois)
    map_size = features.shape[2:]
    start, end = rois[:, [2, 1]] * spatial_scale, (rois[:, [4, 3]] + 1) * spatial_scale
    edges = []
    for axis, bins in enumerate((pooled_height, pooled_width)):
        bin_index = torch.arange(bins + 1, device=rois.device)
        positions = bin_index * ((end - start)[:, axis, None] / bins) + start[:, axis, None]
        bounds = positions[:, :-1].floor(), positions[:, 1:].ceil()
        edges.append([bound.clamp(0, map_size[axis]).long() for bound in bounds])
    counts = torch.stack([(last - first).amax(dim=1) for first, last in edges], dim=1)
    counts *= (end > start).all(dim=1, keepdim=True)
    argmax.fill_(-1)
    rows, origins = _rows(features, rois)
    for index, most in _chunks(counts, output[:1].numel()):
        (y, in_y), (x, in_x) = (_pixels(first[index], last[index], size) for (first, last), size in zip(edges, most))
        cells = (y[:, :, None, :, None] * map_size[1] + x[:, None, :, None, :]).flatten(3)
        inside = (in_y[:, :, None, :, None] & in_x[:, None, :, None, :]).flatten(3)
        cells = cells * inside
        values = rows[cells + origins[index, ..., 0]].masked_fill_(~inside[..., None], -torch.inf)
        best, at = values.max(dim=3)
        place = cells.gather(3, at).masked_fill_(~inside.any(dim=3, keepdim=True), -1)
        output[index] = best.masked_fill_(place < 0, 0).permute(0, 3, 1, 2).to(output.dtype)
        argmax[index] = place.permute(0, 3, 1, 2).to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the gradient of RoIPool with respect to its features into `grad_input` (N, C, H, W)."""
    grad, rois = widen(grad_output, rois)
    place = argmax.long()[..., None]
    _scatter(grad_input, rois, place.clamp(min=0), grad[..., None] * (place >= 0))


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write the means of (N, C, H, W) features in the shifted bins of (K, 5) rois into `output`.

    Deformable RoI pooling (Dai et al., 2017): `offset` (K, 2, pooled_height, pooled_width) shifts each bin, in units of
    `gamma` times the RoI's width (first) and height; without elements it shifts none. `output` is
    (K, C, pooled_height, pooled_width).
    """
    pool = _deform_roi_pool(rois, (pooled_height, pooled_width), spatial_scale, sampling_ratio, gamma)
    output.copy_(pool(*widen(input, offset)))


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write the gradients of deformable RoI pooling into `grad_input` and `grad_offset`."""
    pool = _deform_roi_pool(rois, (pooled_height, pooled_width), spatial_scale, sampling_ratio, gamma)
    write_gradients([grad_input, grad_offset], pool, widen(input, offset), grad_output)


def _deform_roi_pool(rois, bins, spatial_scale, sampling_ratio, gamma):
    """Return deformable RoI pooling as a function of features and offsets that autograd sees through."""

    def pool(features: Tensor, offset: Tensor) -> Tensor:
        _, boxes = widen(features, rois)
        start, size = _extent(boxes, spatial_scale, 0.5)
        counts = _sample_counts(size, bins, sampling_ratio)
        rows, origins = _rows(features, boxes)
        output = features.new_zeros(len(rois), *bins, features.size(1))
        for index, most in _chunks(counts, 16 * bins[0] * bins[1]):
            y, x = (_points(start[index], size[index], bins, counts[index], most, axis) for axis in (0, 1))
            y, x = y[:, :, None, :, None], x[:, None, :, None, :]
            if offset.numel():
                shift = gamma * size[index].flip(1)[:, :, None, None] * offset[index]
                y, x = y + shift[:, 1, :, :, None, None], x + shift[:, 0, :, :, None, None]
            y, x = torch.broadcast_tensors(y, x)
            cells, weights = bilinear(y.flatten(3), x.flatten(3), *features.shape[2:])
            share = _counted(counts[index], most).to(weights.dtype) / counts[index].prod(dim=1)[:, None, None, None]
            cells, weights = cells + origins[index], weights * share[..., None]
            output[index] = _weighted_sums(rows, cells.flatten(3), weights.flatten(3))
        return output.permute(0, 3, 1, 2)

    return pool


def bilinear(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the four neighbours (..., 4) of points in a flattened map, and their weights (..., 4), by RoIAlign's rule.

    A point up to one pixel outside counts as on the border; one farther out has weights of 0, and NaN those of NaN.
    """
    outside = (y < -1) | (y > height) | (x < -1) | (x > width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.detach().nan_to_num().long(), x.detach().nan_to_num().long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, along = y - top, x - left
    up, back = 1 - down, 1 - along
    cells = [top * width + left, top * width + right, bottom * width + left, bottom * width + right]
    weights = torch.stack([up * back, up * along, down * back, down * along], dim=-1)
    return torch.stack(cells, dim=-1), weights * ~outside[..., None]


def _extent(rois: Tensor, spatial_scale: float, offset: float) -> tuple[Tensor, Tensor]:
    """Return start and size (K, 2) of (K, 5) RoIs on the map, each as (y, x)."""
    corners = rois[:, 1:] * spatial_scale - offset
    start = corners[:, [1, 0]]
    return start, corners[:, [3, 2]] - start


def _sample_counts(size: Tensor, bins: tuple[int, int], sampling_ratio: int) -> Tensor:
    """Return the rows and columns (K, 2) of samples in each bin: one a pixel where `sampling_ratio` is not above 0."""
    if sampling_ratio > 0:
        return torch.full_like(size, sampling_ratio, dtype=torch.long)
    return (size / size.new_tensor(bins)).ceil().long().clamp(min=0)


def _chunks(counts: Tensor, elements: int):
    """Split RoIs into groups of similar numbers of samples, whose samples fit into memory.

    Args:
        counts (Tensor): Rows and columns of samples in a bin of each RoI (K, 2).
        elements (int): What one sample in each bin of a RoI takes.

    Yields:
        The indices of the RoIs, and the most rows and the most columns that one of them has. RoIs without samples are
        left out.
    """
    left = sorted((rows, columns, index) for index, (rows, columns) in enumerate(counts.tolist()) if rows * columns)
    while left:
        taken, samples, most = [], 0, (0, 0)
        for rows, columns, index in left:
            larger = max(most[0], rows), max(most[1], columns)
            padded, samples = (len(taken) + 1) * larger[0] * larger[1], samples + rows * columns
            if taken and (padded > 2 * samples or padded * elements > _MEMORY):
                break
            taken.append(index)
            most = larger
        left = left[len(taken) :]
        yield torch.tensor(taken, device=counts.device), most


def _points(
    start: Tensor, size: Tensor, bins: tuple[int, int], counts: Tensor, most: tuple[int, int], axis: int
) -> Tensor:
    """Return the coordinates (K, bins, most) at which the bins of RoIs are sampled along an axis."""
    bin_size = size[:, axis, None, None] / bins[axis]
    bin_index = torch.arange(bins[axis], device=size.device)[:, None]
    place = (torch.arange(most[axis], device=size.device) + 0.5) * bin_size / counts[:, axis, None, None]
    return start[:, axis, None, None] + bin_index * bin_size + place


def _counted(counts: Tensor, most: tuple[int, int]) -> Tensor:
    """Return which of most[0] * most[1] samples are a RoI's own (K, 1, 1, samples)."""
    rows, columns = (torch.arange(size, device=counts.device) < counts[:, axis, None] for axis, size in enumerate(most))
    return (rows[:, :, None] & columns[:, None]).flatten(1)[:, None, None]


def _pixels(first: Tensor, last: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the pixels (K, bins, most) from `first` up to `last` (K, bins), and which of them are below `last`."""
    pixels = first[..., None] + torch.arange(most, device=first.device)
    return pixels, pixels < last[..., None]


def _rows(features: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, C, H, W) features as (N * H * W, C), and the first row of each RoI's image (K, 1, 1, 1, 1)."""
    origins = rois[:, 0].long() * features.shape[2:].numel()
    return features.permute(0, 2, 3, 1).flatten(0, 2), origins[:, None, None, None, None]


def _weighted_sums(rows: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
    """Return the sums (..., C) of `rows` at `cells` (..., S) times `weights` (..., S), without a copy of the rows."""
    size = cells.size(-1)
    sums = embedding_bag(cells.view(-1, size), rows, mode='sum', per_sample_weights=weights.view(-1, size))
    return sums.view(*cells.shape[:-1], -1)


def _scatter(grad_input: Tensor, rois: Tensor, cells: Tensor, values: Tensor) -> None:
    """Write into `grad_input` (N, C, H, W) the sums of `values` (K, C, ..., S) at `cells` of each RoI's image."""
    channels = grad_input.size(1)
    plane = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)
    cells = cells + plane.view(len(rois), channels, *[1] * (cells.dim() - 2)) * grad_input.shape[2:].numel()
    sums = values.new_zeros(grad_input.numel()).index_add_(0, cells.flatten(), values.flatten())
    grad_input.copy_(sums.view(grad_input.shape))
