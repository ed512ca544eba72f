"""What would stop a run, found before anything is built."""

import inspect
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, Registry

from ..checkpoint import require_source
from ..errors import UserError
from ..models import FasterNet
from .explaining import nodes


def check_config(cfg: Config, phase: str) -> None:
    """Find what would stop `phase` ('train' or 'test'), before a model is built.

    Raises:
        UserError: Names the setting, what was expected, and what to do.
    """
    _check_backbone(cfg.get('model', {}))
    for loader in ('train', 'val') if phase == 'train' else ('test',):
        settings = cfg.get(f'{loader}_dataloader')
        if settings is None:
            if loader == phase:
                raise UserError(f'the config has no {loader}_dataloader, so there is nothing to {phase} on')
            continue
        _check_dict(settings, f'{loader}_dataloader')
        dataset = settings.get('dataset', {})
        _check_dict(dataset, f'{loader}_dataloader.dataset')
        with DATASETS.switch_scope_and_registry(cfg.get('default_scope', 'mmengine')) as registry:
            check_dataset(dataset, f'{loader}_dataloader.dataset', registry)
        check_evaluators(cfg.get(f'{loader}_evaluator'), f'{loader}_evaluator')
    _check_checkpoints(cfg, phase)
    if phase == 'train' and not torch.cuda.is_available():
        if cfg.get('optim_wrapper', {}).get('type') == 'AmpOptimWrapper':
            raise UserError(
                'mixed precision (AmpOptimWrapper) needs a GPU; on a CPU train without --amp, and with '
                '--cfg-options optim_wrapper.type=OptimWrapper where the config asks for it'
            )


def _check_backbone(model) -> None:
    for path, node in _dicts({'model': model}):
        if str(node.get('type', '')).split('.')[-1] == 'FasterNet':
            try:
                with torch.device('meta'):
                    FasterNet(**{key: value for key, value in node.items() if key != 'type'})
            except (TypeError, ValueError) as error:  # of its arguments
                raise UserError(f'{path}: {error}') from error


def _check_dict(value, setting: str) -> None:
    if not isinstance(value, dict):
        raise UserError(f'{setting} must be a dict, but is {value!r}')


def check_training_data(cfg: Config) -> None:
    """Raise UserError where the training data, all that calibrating int8 needs of a training, is not here."""
    check_config(Config({key: cfg[key] for key in ('default_scope', 'train_dataloader') if key in cfg}), 'train')


def _check_checkpoints(cfg: Config, phase: str) -> None:
    paths = [cfg.get('load_from')]
    if phase == 'train':
        paths += [
            node.get('checkpoint')
            for _, node in _dicts({'model': cfg.get('model')})
            if node.get('type') == 'Pretrained'
        ]
    for path in paths:
        if path:
            require_source(str(path))


def _dicts(node) -> list[tuple[str, dict]]:
    return [(path, child) for path, child in nodes(node) if isinstance(child, dict)]


def check_dataset(dataset: dict, name: str, registry: Registry) -> None:
    """Raise UserError where a path that the settings of a data set name is not there."""
    for key in ('dataset', 'datasets'):  # wrappers such as RepeatDataset and ConcatDataset
        inner = dataset.get(key)
        for child in inner if isinstance(inner, (list, tuple)) else [inner] if inner else []:
            check_dataset(child, f'{name}.{key}', registry)
    if dataset.get('backend_args') or _downloads(dataset, registry):
        return
    root = dataset.get('data_root') or ''
    if not isinstance(root, str):
        raise UserError(f'{name}.data_root must be a path, but is {root!r}')
    prefixes = dataset.get('data_prefix') or {}
    prefixes = prefixes if isinstance(prefixes, dict) else {'': prefixes}
    paths = {'data_root': root, 'ann_file': dataset.get('ann_file')}
    paths |= {f'data_prefix.{key}'.rstrip('.'): value for key, value in prefixes.items()}
    for key, value in paths.items():
        if isinstance(value, str) and value:
            _check_path(os.path.join(root, value) if key != 'data_root' else value, f'{name}.{key}')


def _downloads(dataset: dict, registry: Registry) -> bool:
    """Return whether the data set fetches itself, as mmpretrain's CIFAR10 does."""
    kind = dataset.get('type')
    kind = registry.get(kind) if isinstance(kind, str) else kind
    download = inspect.signature(kind).parameters.get('download') if kind else None
    return dataset.get('download', download is not None and download.default is True)


def check_evaluators(evaluators, name: str) -> None:
    """Raise UserError where an annotation file that the settings of metrics name is not there."""
    for path, node in _dicts({name: evaluators}):
        if isinstance(node.get('ann_file'), str):
            _check_path(node['ann_file'], f'{path}.ann_file')


def _check_path(path: str, setting: str) -> None:
    if '://' in path or os.path.exists(path):  # a remote path is the file backend's affair
        return
    here = '' if os.path.isabs(path) else f' (from {os.getcwd()})'
    sample = (
        ' Draw it with `python tools/make_sample.py`.'
        if Path('data/sample') in (Path(path), *Path(path).parents)
        else ''
    )
    raise UserError(
        f'dataset not found: {path}{here}, which the config names as {setting}.{sample or _OWN_DATA.format(setting)}'
    )


_OWN_DATA = ' Put the data (or a link to it) there, or name its place with --cfg-options {}=PATH.'
