"""What the suites are made of: rows of tables, each with its published figures and the model to measure."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmengine.registry import DefaultScope, Registry
from torch import nn

from ..schema import Published

PAPER = 'of the paper (CVPR 2023)'


@dataclass(frozen=True)
class Row:
    """Hold a row of a table."""

    name: str
    published: Published | None
    shape: tuple[int, int]  # height and width of the input that the figures are for
    build: Callable[[], nn.Module] | None  # with random weights, in eval mode; None where it cannot be had
    reason: str | None = None  # why `build` is None
    labels: tuple[str, ...] = ()  # what belongs beside its numbers
    reference: str | None = None  # the row that it takes turns with, where it is not the table's
    operator: str | None = None  # of a stack's layers
    channels: int = 3  # of the input


def published_rows(name: str, file: str = 'published.json') -> list[dict]:
    """Return the quoted rows of a table, as they stand in a file of this folder."""
    return json.loads(Path(__file__).with_name(file).read_text())[name]


def build_from(registry: Registry, cfg: dict) -> nn.Module:
    """Build a model of one of OpenMMLab's libraries, in eval mode."""
    with DefaultScope.overwrite_default_scope(registry.scope):
        return registry.build(cfg).eval()
