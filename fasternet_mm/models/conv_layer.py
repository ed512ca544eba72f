"""PConvBlock as one of mmcv's convolution layers, ``conv_cfg=dict(type='PConvBlock')``."""

from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache, wraps

from mmengine.logging import print_log
from torch import nn

from .pconv import PConvBlock, why_not_pconv

_counts: ContextVar[Counter | None] = ContextVar('convolutions made while a model is built', default=None)


def build_pconv_layer(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    bias: bool = True,
    padding_mode: str = 'zeros',
    n_div: int = 4,
) -> PConvBlock | nn.Conv2d:
    """Make a PConvBlock where one can stand in for the nn.Conv2d of these arguments, else that nn.Conv2d.

    This is what mmcv calls for the name 'PConvBlock'. See :func:`why_not_pconv` for the rule.

    Args:
        n_div (int): See :class:`PConvBlock`. Defaults to 4. The others are nn.Conv2d's.
    """
    arguments = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode)
    if why_not_pconv(nn.Conv2d(*arguments, device='meta'), n_div):
        layer = nn.Conv2d(*arguments)
    else:
        layer = PConvBlock(in_channels, out_channels, kernel_size, stride, n_div, bias)
    if (counts := _counts.get()) is not None:
        counts[type(layer)] += 1
    return layer


@cache
def counting(build: Callable) -> Callable:
    """Return mmengine's ``Registry.build`` that logs a line after a whole model in which the name was used."""

    @wraps(build)
    def build_and_count(*args, **kwargs):
        if _counts.get() is not None:  # a part of a model
            return build(*args, **kwargs)
        token = _counts.set(counts := Counter())
        try:
            built = build(*args, **kwargs)
        finally:
            _counts.reset(token)
        if counts:
            made, stayed = counts[PConvBlock], counts[nn.Conv2d]
            print_log(
                f"conv_cfg type 'PConvBlock': {made} convolutions are PConvBlocks, {stayed} stay nn.Conv2d", 'current'
            )
        return built

    return build_and_count
