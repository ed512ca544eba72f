"""PConv and a pointwise convolution that come as near as they can to a layer's outputs, from second moments alone."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, unfold

_RIDGE = 1e-10  # over the mean square of an input: what is always 0 gets the weight 0
_ROWS = 8192  # that are in float64 at a time


class SecondMoments:
    """Sums of products of a linear layer's inputs and wanted outputs, in float64, batch by batch.

    Attributes:
        inputs (Tensor): Sum of x x^T over the rows, (features, features).
        cross (Tensor): Sum of x y^T, (features, outputs).
        outputs (Tensor): Sum of y^T y, a scalar.
        rows (int): Number of rows so far; fewer rows than features are fitted without an error, whatever they are.
    """

    def __init__(self) -> None:
        self.inputs = self.cross = self.outputs = self.rows = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add the rows of inputs (n, features) and of wanted outputs (n, outputs)."""
        self.rows += len(x)
        for rows, wanted in zip(x.split(_ROWS), y.split(_ROWS)):
            rows, wanted = rows.double(), wanted.double()
            self.inputs = self.inputs + rows.T @ rows
            self.cross = self.cross + rows.T @ wanted
            self.outputs = self.outputs + wanted.square().sum()


class PConvFit(NamedTuple):
    """Weights of PConv and of the pointwise convolution after it, in float64.

    Attributes:
        partial (Tensor): PConv's weight, (conv_channels, conv_channels, k, k).
        pointwise (Tensor): (out_channels, in_channels, 1, 1).
        bias (Tensor | None): (out_channels,).
        error (float): Norm of the difference from the wanted outputs over the norm of these.
    """

    partial: Tensor
    pointwise: Tensor
    bias: Tensor | None
    error: float


def t_shaped(x: Tensor, conv_channels: int, kernel_size: int, stride: tuple[int, int], bias: bool) -> Tensor:
    """Return what PConv and a pointwise convolution with a stride see of a map, one row for each output pixel.

    Args:
        x (Tensor): (N, C, H, W).
        conv_channels (int): The first channels, of which PConv sees k x k pixels.
        kernel_size (int): k, odd.
        stride (tuple[int, int]): Of the rows and of the columns.
        bias (bool): Whether there is a feature that is always 1.

    Returns:
        Tensor: (N * H_out * W_out, C - conv_channels + bias + conv_channels * k * k), the patches last.
    """
    centres = x[:, conv_channels:, :: stride[0], :: stride[1]].flatten(2)
    patches = unfold(x[:, :conv_channels], kernel_size, padding=kernel_size // 2, stride=stride)
    ones = patches.new_ones(len(x), int(bias), patches.shape[2])
    return torch.cat((centres, ones, patches), 1).transpose(1, 2).flatten(0, 1)


def fit_pconv(moments: SecondMoments, conv_channels: int, kernel_size: int, bias: bool) -> PConvFit:
    """Return the PConv and the pointwise convolution of the least squared error, in closed form.

    The two are one linear map of a T-shaped neighbourhood: what the pointwise convolution takes of the other channels
    is free, and the map of the k x k patches has at most the rank `conv_channels`. Once the free part has explained
    what it can, this is a reduced-rank regression: in coordinates in which the rest of the patches is white, the best
    map of a rank is the truncated singular value decomposition of the unrestricted one.

    Args:
        moments (SecondMoments): Of the rows of :func:`t_shaped`, with the same `conv_channels`, `kernel_size` and
            `bias`, and of the wanted outputs.
        conv_channels (int): Channels of PConv's convolution.
        kernel_size (int): Its side.
        bias (bool): Whether the pointwise convolution has one.
    """
    features, outputs = moments.cross.shape
    free = features - conv_channels * kernel_size**2
    ridge = (_RIDGE * moments.inputs.diagonal().mean()).clamp(min=1e-60)
    root = torch.linalg.cholesky(moments.inputs + ridge * torch.eye(features).to(moments.inputs))
    # rows in white coordinates; the last ones belong to what the free part leaves of the patches
    solution = torch.linalg.solve_triangular(root, moments.cross, upper=False)
    white, left = root[free:, free:], pad(solution[free:], (0, max(0, conv_channels - outputs)))
    directions, values, mixes = torch.linalg.svd(left, full_matrices=False)
    mixes = (values[:conv_channels, None] * mixes[:conv_channels, :outputs]).T
    partial = torch.linalg.solve_triangular(white.T, directions[:, :conv_channels], upper=True).T
    # PConv's outputs shall be as large as its inputs
    scale = moments.inputs.diagonal()[free:].mean().sqrt().clamp(min=1e-30)
    partial, mixes = partial * scale, mixes / scale
    wanted = solution[:free] - root[free:, :free].T @ (mixes @ partial).T
    rest = torch.linalg.solve_triangular(root[:free, :free].T, wanted, upper=True).T

    weight = torch.cat((rest, mixes @ partial), 1)
    squares = moments.outputs - (weight.T * (2 * moments.cross - moments.inputs @ weight.T)).sum()
    return PConvFit(
        partial.reshape(conv_channels, conv_channels, kernel_size, kernel_size),
        torch.cat((mixes, rest[:, : free - bias]), 1)[..., None, None],
        rest[:, -1] if bias else None,
        float((squares.clamp(min=0) / moments.outputs.clamp(min=1e-300)).sqrt()),
    )
