"""The suites of tools/report.py: the paper's tables, and today's peers, which are not in the paper."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.config import Config
from torch import nn

from ...errors import UserError
from ...models import FasterNet
from ..schema import Published
from .ablation import ablation
from .networks import classifiers, detectors, pipeline
from .operators import operators
from .peers import peers, peers_coco
from .rows import Row


@dataclass(frozen=True)
class Table:
    """Say what is common to the rows of a table."""

    kind: str  # what its models are, 'classifier', 'detector' or 'operator'
    rows: Callable[[], list[Row]]  # in its order
    reference: str | None  # the row that the others take turns with; none where rows have their own
    mode: str = 'fused'  # in which it is measured if nothing else is said
    scopes: tuple[str, ...] = ()  # that are measured beside the kind
    pipeline: Callable[[], Config] | None = None  # for detectors as files


TABLES = {
    'table1': Table('operator', operators, None, 'eager', ('roofline',)),
    'table3': Table('classifier', classifiers, 'FasterNet-T2'),
    'table4': Table('detector', detectors, 'FasterNet-S', pipeline=pipeline),
    'table5': Table('classifier', ablation, None),
    'peers': Table('classifier', peers, 'FasterNet-T2'),
    'peers_coco': Table('detector', peers_coco, 'FasterNet-S', pipeline=pipeline),
}


def suite(name: str, only: Sequence[str] = ()) -> list[Row]:
    """List the rows of a table, in its order.

    Args:
        name (str): A key of `TABLES`: 'table1', the operators; 'table3', the ImageNet classifiers; 'table4', Mask R-CNN
            on COCO; 'table5', FasterNet with other parts; 'peers' and
            'peers_coco', today's networks for both tasks, which are not in the paper.
        only (Sequence[str]): Names of the rows to keep, in any case; all of them if empty.

    Raises:
        UserError: There is no such table, or a name in `only` is not one of its rows.
    """
    if name not in TABLES:
        raise UserError(f'No suite {name!r}; there are {", ".join(TABLES)}.')
    rows = TABLES[name].rows()
    unknown = [wanted for wanted in only if wanted.lower() not in {row.name.lower() for row in rows}]
    if unknown:
        raise UserError(f'Not in {name}: {", ".join(unknown)}. Its rows are {", ".join(row.name for row in rows)}.')
    wanted = {row.lower() for row in only or [row.name for row in rows]}
    return [row for row in rows if row.name.lower() in wanted]


def published_for(model: nn.Module) -> Published | None:
    """Return the paper's row for a FasterNet that is built as the row's is, up to what only trains; None for others."""
    if not isinstance(getattr(model, 'backbone', None), FasterNet):
        return None
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    for row in (*suite('table3'), *suite('table4')):
        # the names and counts spare building most of them
        if row.name.startswith('FasterNet') and abs(millions / row.published.params_m - 1) < 0.02:
            with torch.device('meta'):
                if _structure(row.build()) == _structure(model):
                    return row.published
    return None


def _structure(model: nn.Module) -> tuple:
    """Return what tells architectures apart: kinds of layers, and shapes of parameters; heads may have other losses."""
    layers = [type(layer) for layer in model.backbone.modules() if not isinstance(layer, (DropPath, nn.Identity))]
    return type(model), layers, {name: parameter.shape for name, parameter in model.named_parameters()}
