"""Partial convolution, the operator of the paper's section 3.2."""

from numbers import Integral

import torch
from torch import Tensor, nn


class PartialConv2d(nn.Module):
    """A regular convolution on the first ``channels // n_div`` channels; the others pass as they are.

    Section 3.2 of `Run, Don't Walk <https://arxiv.org/abs/2303.03667>`_: with the default ``n_div=4`` it costs
    1/16 of the multiply-adds of a convolution over all channels.

    Args:
        channels (int): Number c of input and output channels.
        n_div (int): The convolution sees ``c // n_div`` channels. Defaults to 4.
        kernel_size (int): Odd side k of the kernel; stride is 1, padding ``k // 2``. Defaults to 3.

    Shape:
        Input and output: (N, c, H, W). The input is never written to.

    Raises:
        ValueError: If an argument is not an int, `n_div` is not between 1 and c, or `kernel_size` is not odd.
    """

    def __init__(self, channels: int, n_div: int = 4, kernel_size: int = 3) -> None:
        super().__init__()
        if not _is_int(channels) or channels < 1:
            raise ValueError(f'channels must be an int of at least 1, but is {channels!r}')
        if not _is_int(n_div) or not 1 <= n_div <= channels:
            raise ValueError(f'n_div must be from 1 to the number of channels, {channels}, but is {n_div!r}')
        if not _is_int(kernel_size) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd to keep the size of the map, but is {kernel_size!r}')
        self.conv_channels = channels // n_div
        self.pass_channels = channels - self.conv_channels
        # the official name of this weight, whatever the kernel's size
        self.partial_conv3 = nn.Conv2d(
            self.conv_channels, self.conv_channels, kernel_size, padding=kernel_size // 2, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        first, rest = torch.split(x, (self.conv_channels, self.pass_channels), dim=1)
        return torch.cat((self.partial_conv3(first), rest), dim=1)

    def extra_repr(self) -> str:
        return f'conv_channels={self.conv_channels}, pass_channels={self.pass_channels}'


def _is_int(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
