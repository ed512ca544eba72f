"""Table 1 of the paper: stacks of ten equal layers of one operator, with nothing between them."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ...deploy.onnx import relative_difference
from ...errors import UserError
from ...models import PartialConv2d
from ..schema import Published
from .rows import PAPER, Row, published_rows

_LAYERS = 10
_EQUAL = 1e-5  # relative: the same arithmetic, whose order may differ


class _SlicedPConv(PartialConv2d):
    """Convolve into a copy of the input, as the official code does for inference."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, : self.conv_channels] = self.partial_conv3(x[:, : self.conv_channels])
        return x


class _PConvInPlace(PartialConv2d):
    """Write over the input, which a residual connection would still need."""

    def forward(self, x: Tensor) -> Tensor:
        x[:, : self.conv_channels] = self.partial_conv3(x[:, : self.conv_channels])
        return x


def _conv(channels: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)


_OPERATORS = {
    'Conv': _conv,
    'GConv': partial(_conv, groups=16),
    'DWConv': lambda channels: _conv(channels, channels),
    'PConv': PartialConv2d,
    'PConv slicing': _SlicedPConv,
    'PConv in place': _PConvInPlace,
}
_LABELS = {
    'PConv': ('PConv as split and concatenation',),
    'PConv slicing': ("PConv into a copy of its input, the official code's form for inference",),
    'PConv in place': ('PConv over its input; the first of the ten layers writes into a copy',),
}


def operators() -> list[Row]:
    """Return the rows of table 1, and after the paper's PConv the other ways to compute it, at all four sizes."""
    entries = published_rows('table1_operators')
    quoted = {(entry['operator'], entry['channels']): entry for entry in entries}
    rows = []
    for operator in _OPERATORS:
        for channels, size in dict.fromkeys((entry['channels'], entry['size']) for entry in entries):
            name, published = f'{operator} {channels}x{size}', None
            if entry := quoted.get((operator, channels)):
                figures = {key: entry[key] for key in ('gpu_fps', 'cpu_ms', 'arm_ms')}
                figures |= dict(gflops=entry['mflops'] / 1e3, source=f'table 1 {PAPER}', hardware='RTX 2080 Ti')
                published = Published(network=name, **figures)
            rows.append(
                Row(
                    name,
                    published,
                    (size, size),
                    partial(_stack, operator, channels, size),
                    labels=_LABELS.get(operator, ()),
                    reference=f'PConv {channels}x{size}',
                    operator=operator,
                    channels=channels,
                )
            )
    return rows


def _stack(operator: str, channels: int, size: int) -> nn.Sequential:
    """Build ten layers; the forms of PConv have the same weights, and are compared before anybody times them.

    Raises:
        UserError: If a form of PConv computes something else.
    """
    layer = _OPERATORS[operator]
    # a stack leaves the input that it is given as it is
    stack = _layers(_SlicedPConv if layer is _PConvInPlace else layer, layer, channels)
    if operator in ('PConv slicing', 'PConv in place'):
        image = torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            off = relative_difference([stack(image)], [_layers(PartialConv2d, PartialConv2d, channels)(image)])
        if not off < _EQUAL:
            raise UserError(f'{operator} is not PConv: its outputs differ by {off:.2g} relative, so it is not timed')
    return stack


def _layers(first: Callable[[int], nn.Module], others: Callable[[int], nn.Module], channels: int) -> nn.Sequential:
    stack = nn.Sequential(first(channels), *(others(channels) for _ in range(_LAYERS - 1))).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for weight in stack.parameters():
            nn.init.kaiming_normal_(weight, nonlinearity='linear')  # without norms values neither grow nor vanish
    return stack
