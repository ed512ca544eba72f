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

    _convolution = nn.Conv2d

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
        self.partial_conv3 = self._convolution(
            self.conv_channels, self.conv_channels, kernel_size, padding=kernel_size // 2, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        first, rest = torch.split(x, (self.conv_channels, self.pass_channels), dim=1)
        return torch.cat((self.partial_conv3(first), rest), dim=1)

    def extra_repr(self) -> str:
        return f'conv_channels={self.conv_channels}, pass_channels={self.pass_channels}'


class PartialConv1d(PartialConv2d):
    """The same on sequences: input and output are (N, c, L)."""

    _convolution = nn.Conv1d


class PConvBlock(nn.Module):
    """PConv and a pointwise convolution with nothing between them: stands in for a k x k convolution (section 3.3).

    Together they see a T-shaped neighbourhood: k x k pixels of the first ``in_channels // n_div`` channels, and the
    centre of the others. An activation or a norm belongs after the block.

    Args:
        in_channels (int): Number of input channels.
        out_channels (int): Number of output channels.
        kernel_size (int | tuple[int, int]): Odd side k of PConv's kernel. Defaults to 3.
        stride (int | tuple[int, int]): Of the pointwise convolution. Defaults to 1.
        n_div (int): PConv convolves ``in_channels // n_div`` channels. Defaults to 4.
        bias (bool): Whether the pointwise convolution has one. Defaults to True.
        padding (int | tuple[int, int], optional): As nn.Conv2d takes it; only ``k // 2``, which it always is.
        dilation (int | tuple[int, int]): As nn.Conv2d takes it; only 1.
        groups (int): As nn.Conv2d takes it; only 1.
        padding_mode (str): As nn.Conv2d takes it; only 'zeros'.

    Shape:
        Input: (N, in_channels, H, W). Output: (N, out_channels, ceil(H / stride), ceil(W / stride)), as of a k x k
        convolution with padding ``k // 2``.

    Raises:
        ValueError: If the kernel is even or not square, `n_div` is not between 1 and `in_channels`, or an argument of
            nn.Conv2d asks for what a PConvBlock does not do.
    """

    # mmcv's ConvModule reads these, and those below, of its convolution
    transposed = False
    output_padding = (0, 0)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        n_div: int = 4,
        bias: bool = True,
        padding: int | tuple[int, int] | None = None,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        padding_mode: str = 'zeros',
    ) -> None:
        super().__init__()
        self.kernel_size = _pair(kernel_size)
        side = self.kernel_size[0]
        if self.kernel_size != (side, side):
            raise ValueError(f'kernel_size must be square, but is {kernel_size!r}')
        self.pconv = PartialConv2d(in_channels, n_div, side)
        self.pwconv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias)
        self.in_channels, self.out_channels, self.n_div = in_channels, out_channels, n_div
        self.stride, self.padding = self.pwconv.stride, (side // 2, side // 2)
        self.dilation, self.groups, self.padding_mode = (1, 1), 1, 'zeros'
        asked = dict(dilation=_pair(dilation), groups=groups, padding_mode=padding_mode)
        if padding is not None:
            asked['padding'] = _pair(padding)
        for name, value in asked.items():
            if value != (own := getattr(self, name)):
                raise ValueError(f'{name} of a PConvBlock with kernel_size {side} is {own}, not {value}')

    def forward(self, x: Tensor) -> Tensor:
        x = self.pconv(x)
        return self.pwconv(x)


def why_not_pconv(conv: nn.Conv2d, n_div: int = 4) -> str | None:
    """Return why a PConvBlock cannot stand in for a convolution, or None where it can.

    It can for square, odd kernels of more than 1x1 with padding ``k // 2`` of zeros, one group, no dilation, and at
    least `n_div` input channels.

    Raises:
        ValueError: If `n_div` is not an int of at least 1.
    """
    if not _is_int(n_div) or n_div < 1:
        raise ValueError(f'n_div must be an int of at least 1, but is {n_div!r}')
    height, width = conv.kernel_size
    if (height, width) == (1, 1):
        return 'its kernel is 1x1'
    if height != width or height % 2 == 0:
        return f'its kernel is {height}x{width}, not odd and square'
    if conv.groups != 1:
        return f'it has {conv.groups} groups'
    if conv.dilation != (1, 1):
        return f'its dilation is {conv.dilation}'
    if conv.padding != (height // 2, height // 2) or conv.padding_mode != 'zeros':
        return f'its padding is {conv.padding} of {conv.padding_mode}, not {height // 2} of zeros'
    if conv.in_channels < n_div:
        return f'its {conv.in_channels} input channels are fewer than n_div={n_div}'
    return None


def _pair(value) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _is_int(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
