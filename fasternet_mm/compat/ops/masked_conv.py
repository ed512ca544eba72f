"""The two halves of masked convolution, which is computed at chosen places alone and has no gradient in mmcv."""

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Write the windows of (1, C, H, W) `im` at M places into `col` (C * kernel_h * kernel_w, M)."""
    padded = F.pad(im[0], (pad_w, kernel_w - 1, pad_h, kernel_h - 1))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows, columns].flatten(0, 2))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Write `col` (C, M) to its M places in (1, C, H, W) `im`."""
    im[0][:, mask_h_idx, mask_w_idx] = col.to(im.dtype)
