"""A model made ready to be measured, and the images that a detector sees."""

import copy
import hashlib
import importlib.util
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor, nn

from ...checkpoint import checkpoint_sha256
from ...errors import UserError
from ..schema import Model, Published
from .counting import count_parameters

_IMAGES = 8


@dataclass(eq=False)
class Subject:
    """Hold what is measured."""

    name: str  # in every table
    kind: str  # 'classifier', 'detector' or 'operator'
    model: nn.Module  # in evaluation mode, on the CPU, fp32
    cfg: Config | None = None  # where the data and the evaluator come from
    config: str | None = None  # path
    checkpoint: str | None = None  # path, URL or name
    pipeline: Config | None = None  # whose test pipeline an exported detector follows, where there is no `cfg`
    published: Published | None = None  # the paper's row
    shape: tuple[int, int] | None = None  # H, W that the model is meant for, where the kind does not say it
    operator: str | None = None  # of a stack's layers
    channels: int = 3  # of its input
    labels: Sequence[str] = ()  # what belongs beside its numbers
    random: bool = False  # whether its weights are
    made_to_find: int | None = None  # what random weights were made to find in an image, see make_detections
    folder: Path | None = None  # where its exported files go
    files: set[Path] = field(default_factory=set)  # that are there
    batches: dict = field(default_factory=dict)  # see detector_batches
    found: dict = field(default_factory=dict)  # in these batches by eager fp32

    def has(self, scope: str) -> bool:
        """Return whether it can be measured in a scope."""
        if scope == 'backbone':
            return hasattr(self.model, 'backbone')
        return self.kind == ('classifier' if scope == 'training' else scope)

    def described(self) -> Model:
        """Return its place in a report, with nothing measured yet."""
        return Model(
            name=self.name,
            kind=self.kind,
            operator=self.operator,
            config=self.config,
            config_sha256=hashlib.sha256(self.cfg.pretty_text.encode()).hexdigest() if self.cfg is not None else None,
            checkpoint=self.checkpoint,
            checkpoint_sha256=checkpoint_sha256(self.checkpoint),
            labels=(['random weights'] if self.random else []) + list(self.labels),
            published=self.published,
            parameters=count_parameters(self.model),
        )


class _Timm(nn.Module):
    """Give a classifier of timm a ``backbone``, as mm's have: the same modules by another method."""

    def __init__(self, classifier: nn.Module, method: str = 'forward') -> None:
        super().__init__()
        self.classifier, self.method = classifier, method
        if method == 'forward':
            self.backbone = _Timm(classifier, 'forward_features')

    def forward(self, images: Tensor) -> Tensor:
        return getattr(self.classifier, self.method)(images)


def with_backbone(model: nn.Module) -> nn.Module:
    """Return a model that has a ``backbone``: a classifier of timm is given one, all others stay as they are."""
    if hasattr(model, 'forward_features') and not hasattr(model, 'backbone'):
        return _Timm(model).eval()
    return model


def from_timm(source: str) -> Subject:
    """Build a classifier of timm, ``timm://NAME``, with random weights; errors as :func:`require_timm`."""
    name = require_timm(source)
    import timm

    model = with_backbone(timm.create_model(name, pretrained=False))
    return Subject(f'timm {name}', 'classifier', model, config=source, random=True)


def require_timm(source: str) -> str:
    """Return NAME of ``timm://NAME``; raise UserError if timm is missing or does not have it."""
    name = source.removeprefix('timm://')
    if importlib.util.find_spec('timm') is None:
        raise UserError(f'{source}: timm is not installed: pip install timm')
    import timm

    if not timm.is_model(name):
        raise UserError(f'{source}: timm {timm.__version__} has no model {name!r}; timm.list_models() names them')
    return name


def detector_batches(
    subject: Subject, batch_size: int, shape: tuple[int, int]
) -> tuple[list[dict], str, tuple[int, int]]:
    """Return batches for ``test_step``, what to say of them, and their largest height and width; they are kept.

    They are the first images of the config's test set, or noise where it is not here.
    """
    given = batch_size, shape
    if given in subject.batches:
        return subject.batches[given]
    dataset = _test_dataset(subject)
    if dataset is not None:
        samples = [dataset[i] for i in range(min(_IMAGES * batch_size, len(dataset)))]
        sizes = sorted({'x'.join(map(str, sample['inputs'].shape[1:])) for sample in samples})
        label = f'on {len(samples)} preprocessed images of the test set, in turn, of {", ".join(sizes)}'
        shape = tuple(max(sample['inputs'].shape[side] for sample in samples) for side in (1, 2))
        samples = list(itertools.islice(itertools.cycle(samples), -(-len(samples) // batch_size) * batch_size))
    else:
        noise = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (3, *shape), np.uint8))
        meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), batch_input_shape=shape, pad_shape=shape)
        samples = [dict(inputs=noise, data_samples=DetDataSample(metainfo=meta)) for _ in range(batch_size)]
        label = f'on noise of {shape[0]} x {shape[1]} instead of photographs'
    batches = [pseudo_collate(samples[i : i + batch_size]) for i in range(0, len(samples), batch_size)]
    subject.batches[given] = batches, label, shape
    return subject.batches[given]


def _test_dataset(subject: Subject):
    """Return the config's test set, or None where there is none or its files are not here."""
    loader = subject.cfg and subject.cfg.get('test_dataloader')
    if not loader:
        return None
    settings = copy.deepcopy(loader.dataset)
    annotations = os.path.join(settings.get('data_root') or '', settings.get('ann_file') or '')
    if not os.path.exists(annotations):
        return None
    with DefaultScope.overwrite_default_scope(subject.cfg.default_scope):
        return DATASETS.build(settings)
