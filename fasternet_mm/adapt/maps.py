"""What a backbone gives and what a neck makes of it, found by running them without data."""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ..errors import UserError

SIDE = 512  # pixels of the image that is tried
Result = TypeVar('Result')


class Map(NamedTuple):
    """One output of a backbone: channels, and stride in pixels of the image."""

    channels: int
    stride: int

    def __str__(self) -> str:
        return f'{self.channels} channels at stride {self.stride}'


def told(maps: Sequence[Map]) -> str:
    """Return `maps` in words."""
    return ', '.join(map(str, maps))


def build(settings: ConfigDict, scope: str) -> nn.Module:
    """Build a part of a model as a runner of `scope` would; `settings` are not changed."""
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(copy.deepcopy(settings))


@torch.no_grad()
def without_weights(function: Callable[..., Result], *args) -> Result:
    """Call `function` with tensors that have shapes alone, or with real ones where that does not work.

    Some constructors need numbers, such as those that draw up a stochastic depth with torch.
    """
    try:
        with torch.device('meta'):
            return function(*args)
    except Exception:
        return function(*args)


def maps_of(settings: ConfigDict, scope: str) -> list[Map]:
    """Return the outputs of a backbone.

    Args:
        settings (ConfigDict): The backbone's.
        scope (str): 'mmdet', 'mmpretrain' or 'mmseg'.

    Raises:
        UserError: If an output is no map, (N, C, H, W), with a stride that divides the image.
    """
    outputs = without_weights(_run_backbone, settings, scope)
    if not all(isinstance(x, Tensor) and x.dim() == 4 and SIDE % x.shape[2] == 0 for x in outputs):
        found = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in outputs]
        raise UserError(
            f'{settings.type} gives {found} for an image of {SIDE} x {SIDE}, but FasterNet gives maps, (N, C, H, W): '
            'what takes them cannot be met'
        )
    return [Map(x.shape[1], SIDE // x.shape[2]) for x in outputs]


def _run_backbone(settings: ConfigDict, scope: str) -> Sequence[Tensor]:
    backbone = build(settings, scope)
    backbone.eval()  # which gives nothing back in most backbones of mm
    outputs = backbone(torch.zeros(1, 3, SIDE, SIDE))
    return [outputs] if isinstance(outputs, Tensor) else outputs


def shapes_after(neck: ConfigDict, scope: str, maps: Sequence[Map]) -> list[tuple[int, ...]]:
    """Return the shapes of what a neck makes of `maps`."""
    return without_weights(_run_neck, neck, scope, maps)


def _run_neck(neck: ConfigDict, scope: str, maps: Sequence[Map]) -> list[tuple[int, ...]]:
    module = build(neck, scope)
    module.eval()
    outputs = module(tuple(torch.zeros(1, channels, SIDE // stride, SIDE // stride) for channels, stride in maps))
    return [tuple(x.shape) for x in ([outputs] if isinstance(outputs, Tensor) else outputs)]
