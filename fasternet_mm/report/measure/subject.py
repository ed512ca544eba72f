"""A model made ready to be measured, from a config or from a row of the paper's tables."""

import copy
import hashlib
import importlib.util
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from ...checkpoint import checkpoint_sha256, require_loadable
from ...errors import UserError
from ..paper.suites import published_for

_IMAGES = 8


@dataclass(eq=False)
class Subject:
    """What is measured.

    Attributes:
        name (str): In every table.
        kind (str): 'classifier' or 'detector'.
        model (nn.Module): In evaluation mode, on the CPU, fp32.
        cfg (Config, optional): Where the data and the evaluator come from.
        config, checkpoint (str, optional): Paths.
        published (dict, optional): The paper's row.
        shape (tuple[int, int], optional): H, W that the model is meant for, where the kind does not say it.
        labels (list[str]): Stand beside every number of this model.
    """

    name: str
    kind: str
    model: nn.Module
    cfg: Config | None = None
    config: str | None = None
    checkpoint: str | None = None
    published: dict | None = None
    shape: tuple[int, int] | None = None
    labels: list[str] = field(default_factory=list)
    batches: dict = field(default_factory=dict)  # see detector_batches

    def identity(self) -> dict:
        """``name`` to ``labels`` of a model in a report."""
        text = self.cfg.pretty_text.encode() if self.cfg is not None else None
        return dict(
            name=self.name,
            kind=self.kind,
            config=self.config,
            config_sha256=hashlib.sha256(text).hexdigest() if text else None,
            checkpoint=self.checkpoint,
            checkpoint_sha256=checkpoint_sha256(self.checkpoint),
            labels=list(self.labels),
            published=self.published,
        )


def from_config(cfg: Config, config: str, checkpoint: str | None) -> Subject:
    """Build the model of an mmdet or mmpretrain config.

    Args:
        cfg (Config): The config.
        config (str): Its path; the file's name names the model.
        checkpoint (str, optional): File, URL or name; without it, weights are random and labelled so.

    Raises:
        UserError: If the config is of neither library, or the checkpoint does not fit.
    """
    scope = cfg.get('default_scope')
    if scope not in ('mmdet', 'mmpretrain'):
        raise UserError(f'{config}: default_scope is {scope!r}, but a report is for configs of mmdet or mmpretrain')
    settings = copy.deepcopy(cfg.model)
    if scope == 'mmpretrain' and cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(settings)
    labels = []
    if checkpoint is None:
        labels.append('random weights')
    else:
        require_loadable(model, CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))
    kind = 'detector' if scope == 'mmdet' else 'classifier'
    return Subject(Path(config).stem, kind, model.eval(), cfg, config, checkpoint, published_for(config), labels=labels)


class _TimmFeatures(nn.Module):
    """What a classifier of timm computes before its head."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.forward_features(images)


class _Timm(nn.Module):
    """A classifier of timm that has a ``backbone``, as mm's have; both are the same modules."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.backbone = _TimmFeatures(classifier)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(images)


def from_timm(source: str) -> Subject:
    """Build a classifier of timm, ``timm://NAME``, with random weights; errors as :func:`require_timm`."""
    require_timm(source)
    import timm

    name = source.removeprefix('timm://')
    model = _Timm(timm.create_model(name, pretrained=False)).eval()
    return Subject(f'timm {name}', 'classifier', model, config=source, labels=['random weights'])


def require_timm(source: str) -> None:
    """Raise UserError if timm is missing or does not have the model that `source`, ``timm://NAME``, names."""
    name = source.removeprefix('timm://')
    if importlib.util.find_spec('timm') is None:
        raise UserError(f'{source}: timm is not installed: pip install timm')
    import timm

    if not timm.is_model(name):
        raise UserError(f'{source}: timm {timm.__version__} has no model {name!r}; timm.list_models() names them')


def detector_batches(
    subject: Subject, batch_size: int, shape: tuple[int, int]
) -> tuple[list[dict], list[str], tuple[int, int]]:
    """Batches for ``test_step``: the first images of the config's test set, or noise where it is not here; kept.

    Returns:
        tuple[list[dict], list[str], tuple[int, int]]: Batches as a DataLoader gives them, what to say of them, and the
        largest height and width.
    """
    if (batch_size, shape) in subject.batches:
        return subject.batches[batch_size, shape]
    given, dataset = shape, test_dataset(subject)
    if dataset is not None:
        samples = [dataset[i] for i in range(min(_IMAGES * batch_size, len(dataset)))]
        sizes = sorted({'x'.join(map(str, sample['inputs'].shape[1:])) for sample in samples})
        label = f'on {len(samples)} preprocessed images of the test set, in turn, of {", ".join(sizes)}'
        shape = tuple(max(sample['inputs'].shape[side] for sample in samples) for side in (1, 2))
        samples = list(itertools.islice(itertools.cycle(samples), -(-len(samples) // batch_size) * batch_size))
    else:
        noise = np.random.RandomState(0).randint(0, 256, (3, *shape), np.uint8)
        meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), batch_input_shape=shape, pad_shape=shape)
        samples = [
            dict(inputs=torch.from_numpy(noise), data_samples=DetDataSample(metainfo=meta)) for _ in range(batch_size)
        ]
        label = f'on noise of {shape[0]} x {shape[1]} instead of photographs'
    batches = [pseudo_collate(samples[i : i + batch_size]) for i in range(0, len(samples), batch_size)]
    subject.batches[batch_size, given] = batches, [label], shape
    return subject.batches[batch_size, given]


def test_dataset(subject: Subject):
    """The config's test set, or None where there is none or its files are not here."""
    loader = subject.cfg and subject.cfg.get('test_dataloader')
    if not loader:
        return None
    settings = copy.deepcopy(loader.dataset)
    annotations = os.path.join(settings.get('data_root') or '', settings.get('ann_file') or '')
    if not os.path.exists(annotations):
        return None
    with DefaultScope.overwrite_default_scope(subject.cfg.default_scope):
        return DATASETS.build(settings)
