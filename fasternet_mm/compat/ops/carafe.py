"""CARAFE: upsampling by a kernel of its own at each place (Wang et al., 2019).

One neighbour after the other is added: all at once, as by unfolding, would take kernel_size ** 2 times the memory of
the features. Inside, channels come last.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .common import widen


def _split(maps: Tensor, groups: int, scale: int) -> Tensor:
    """Return (N, groups * C, scale * H, scale * W) as (N, groups, H, W, scale ** 2, C)."""
    n, c, h, w = maps.shape
    maps = F.pixel_unshuffle(maps, scale).view(n, groups, c // groups, scale**2, h // scale, w // scale)
    return maps.permute(0, 1, 4, 5, 3, 2).contiguous()


def _join(maps: Tensor, scale: int) -> Tensor:
    """Take :func:`_split` back."""
    return F.pixel_shuffle(maps.permute(0, 1, 5, 4, 2, 3).flatten(1, 3), scale)


def _windows(features: Tensor, kernel_size: int) -> Iterator[Tensor]:
    """Yield a view (N, groups, H, W, 1, C) of padded features for each of the kernel's cells."""
    height, width = (size - kernel_size + 1 for size in features.shape[2:4])
    for y in range(kernel_size):
        for x in range(kernel_size):
            yield features[:, :, y : y + height, x : x + width]


def _prepare(
    features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> tuple[Tensor, Tensor]:
    """Return padded features, and weights (kernel_size ** 2, N, groups, H, W, scale_factor ** 2)."""
    padded = _split(F.pad(features, [kernel_size // 2] * 4), group_size, 1)
    return padded, _split(masks, group_size, scale_factor).movedim(-1, 0).contiguous()


def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> None:
    """Write the neighbours of each place in `features` (N, C, H, W), weighed by its masks, into `output`.

    `masks` is (N, group_size * kernel_size ** 2, scale_factor * H, scale_factor * W), and `output` has its size.
    """
    padded, weights = _prepare(*widen(features, masks), kernel_size, group_size, scale_factor)
    sums = padded.new_zeros(*weights.shape[1:], padded.size(-1))
    for window, weight in zip(_windows(padded, kernel_size), weights):
        sums.addcmul_(window, weight[..., None])
    output.copy_(_join(sums, scale_factor))


def carafe_naive_backward(
    grad_output: Tensor, features: Tensor, masks: Tensor, grad_input: Tensor, grad_masks: Tensor,
    kernel_size: int, group_size: int, scale_factor: int
) -> None:  # fmt: skip
    """Write the gradients into `grad_input` and `grad_masks`."""
    (grad,) = widen(grad_output)
    padded, weights = _prepare(*widen(features, masks), kernel_size, group_size, scale_factor)
    grad = _split(grad, group_size, scale_factor)
    grad_padded, grad_weights = torch.zeros_like(padded), torch.empty_like(weights)
    windows = zip(_windows(padded, kernel_size), _windows(grad_padded, kernel_size), weights, grad_weights)
    for window, grad_window, weight, grad_weight in windows:
        grad_window += weight[..., None, :] @ grad
        grad_weight.copy_((grad @ window.mT)[..., 0])
    half = kernel_size // 2
    grad_input.copy_(F.pad(_join(grad_padded, 1), [-half] * 4))
    grad_masks.copy_(_join(grad_weights.movedim(0, -1), scale_factor))


def carafe_forward(
    features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor, output: Tensor, **options
) -> None:
    """Write what :func:`carafe_naive_forward` does, and keep `features` in `rfeatures` for the backward pass."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, **options)


def carafe_backward(
    grad_output: Tensor, rfeatures: Tensor, masks: Tensor, rgrad_output: Tensor, rgrad_input_hs: Tensor,
    rgrad_input: Tensor, rgrad_masks: Tensor, grad_input: Tensor, grad_masks: Tensor, **options
) -> None:  # fmt: skip
    """Write the gradients into `grad_input` and `grad_masks`."""
    carafe_naive_backward(grad_output, rfeatures, masks, grad_input, grad_masks, **options)
