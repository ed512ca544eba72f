"""Write the few lines by which a config trains on one's own data, with the classes that the data has."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import DATASETS

from ..adapt.leaf import base_for, code, read_config
from ..engine.checks.annotations import fault_of_parts, parse
from ..engine.explaining import nodes
from ..engine.runner import load_config
from ..errors import UserError
from ..files import AtomicLocalBackend, require_output
from .coco import repeated
from .model import check_model
from .sources import sources_of

_NO_CLASSES = ('rpn_head', 'semantic_head')  # their number of classes is their own
_TAKES = {'mmdet': dict(ANN=os.path.isfile, IMAGES=os.path.isdir), 'mmpretrain': dict(DIR=os.path.isdir)}
_LINE = 110


class _Expression(str):
    """Text that is Python code itself."""

    __repr__ = str.__str__


def write_config(out: Path, base: str, train: Sequence[str], val: Sequence[str], batch_size: int | None = None) -> str:
    """Write a config for one's own data, and build what it says before it appears under its name.

    Args:
        out (Path): The file; it may not exist.
        base (str): The config to inherit from, as ``_base_`` takes it.
        train (Sequence[str]): An annotation file in COCO's format and the folder of its images, for a detector; the
            folder with a folder of images for each class, for a classifier.
        val (Sequence[str]): The same for validation.
        batch_size (int, optional): Images of one process. Defaults to the base's.

    Returns:
        str: The text.

    Raises:
        UserError: If an input is wrong, or the base cannot be changed by these few lines; then nothing is written.
    """
    if out.suffix != '.py':
        raise UserError(f'--write-config {out} must end in .py')
    if out.exists():
        raise UserError(f'--write-config {out} exists; remove it or choose another name')
    cfg = read_config(base)
    scope = cfg.get('default_scope')
    if scope not in _TAKES:
        raise UserError(f'{base}: default_scope is {scope!r}, expected a config of mmdet or mmpretrain')
    for option, given in (('--train', train), ('--val', val)):
        if len(given) != len(_TAKES[scope]):
            expected = ' '.join(_TAKES[scope])
            raise UserError(f'{base} is a config of {scope}: give --train {expected} --val {expected}')
        for path, (name, is_right) in zip(given, _TAKES[scope].items()):
            if not is_right(path):
                told = (
                    f'must be a {"file" if name == "ANN" else "folder"}' if os.path.exists(path) else 'does not exist'
                )
                raise UserError(f'{option} {path} {told}')
    lines = _detector if scope == 'mmdet' else _classifier
    batch_size = batch_size or cfg.train_dataloader.batch_size
    text = '\n'.join([f'_base_ = {base_for(base, out)!r}', *lines(cfg, base, train, val, batch_size)]) + '\n'
    text += _learning_rate(cfg, batch_size)
    require_output(out, '--write-config')
    _require_working(text, out)
    AtomicLocalBackend().put_text(text, out)
    return text


def _detector(cfg: Config, base: str, train: Sequence[str], val: Sequence[str], batch_size: int) -> list[str]:
    classes = _categories(train[0])
    root, (train_file, train_images, val_file, val_images) = _relative([*train, *val])
    data = [f'data_root={root!r}', f'metainfo=dict(classes={_tuple(classes)})']
    settings, place = cfg.train_dataloader.dataset, []
    while 'dataset' in settings:
        settings = settings.dataset
        place.append('dataset')
    with DATASETS.switch_scope_and_registry('mmdet') as registry:
        kind = registry.get(settings.get('type')) if isinstance(settings.get('type'), str) else settings.get('type')
    evaluator = cfg.get('val_evaluator')
    if not (isinstance(kind, type) and getattr(kind, 'load_data_list', None) is CocoDataset.load_data_list):
        raise UserError(
            f"{base} has a {settings.get('type')} as train_dataloader.dataset; give a base for COCO's format"
        )
    if not (isinstance(evaluator, dict) and evaluator.get('type') == 'CocoMetric'):
        raise UserError(f'{base} has {evaluator!r} as val_evaluator; give a base with a CocoMetric')
    if settings.type != 'CocoDataset':
        data.append("type='CocoDataset'")
    dataset = 'train'
    for key in place:
        dataset = f'dict({key}={dataset})'
    return [
        f'data = dict({", ".join(data)})',
        f'train = dict(ann_file={train_file!r}, data_prefix=dict(img={train_images!r}), **data)',
        f'val = dict(ann_file={val_file!r}, data_prefix=dict(img={val_images!r}), **data)',
        *_heads(cfg, len(classes)),
        f'train_dataloader = dict(batch_size={batch_size}, dataset={dataset})',
        'val_dataloader = dict(dataset=val)',
        'test_dataloader = val_dataloader',
        f'val_evaluator = dict(ann_file={val[0]!r})',
        'test_evaluator = val_evaluator',
    ]


def _classifier(cfg: Config, base: str, train: Sequence[str], val: Sequence[str], batch_size: int) -> list[str]:
    folders = [sorted(entry.name for entry in os.scandir(path) if entry.is_dir()) for path in (*train, *val)]
    if not folders[0]:
        raise UserError(f'--train {train[0]} has no folders; each class has a folder of its images')
    if folders[0] != folders[1]:
        other = sorted(set(folders[0]) ^ set(folders[1]))[0]
        raise UserError(
            f'--train {train[0]} and --val {val[0]} must have the same folders; {other!r} is in one of them'
        )
    number = len(folders[0])
    root, (train_images, val_images) = _relative([*train, *val])
    lines = []
    arch = cfg.model.get('backbone', {}).get('arch')
    if cfg.model.get('backbone', {}).get('type') == 'FasterNet' and isinstance(arch, str):
        lines.append(f"load_from = 'fasternet://fasternet_{arch}'")
    lines.append(f"images = dict(_delete_=True, type='CustomDataset', data_root={root!r})")
    for split, prefix, size in (('train', train_images, f'batch_size={batch_size}, '), ('val', val_images, '')):
        pipeline = f'_base_.{split}_dataloader.dataset.pipeline'
        dataset = f'dict(data_prefix={prefix!r}, pipeline={pipeline}, **images)'
        lines.append(f'{split}_dataloader = dict({size}dataset={dataset})')
    lines.append('test_dataloader = val_dataloader')
    lines += _heads(cfg, number)
    evaluator = cfg.get('val_evaluator')
    if isinstance(evaluator, dict) and max([1, *_flat(evaluator.get('topk', 1))]) > number:
        lines += ['val_evaluator = dict(topk=1)', 'test_evaluator = val_evaluator']
    return lines


def _flat(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _categories(file: str) -> list[str]:
    content, fault = parse(Path(file).read_bytes())
    if fault := fault or fault_of_parts(content):
        raise UserError(f'--train {file} {fault}')
    names = [one.get('name') for one in content['categories'] if isinstance(one, dict)]
    if not names or not all(isinstance(name, str) for name in names) or repeated(names):
        raise UserError(f'--train {file} must have categories with a name of its own each, but has {names!r}')
    return names


def _relative(paths: Sequence[str]) -> tuple[str, list[str]]:
    """Return the folder that has all of `paths`, with a / at its end, and the paths from there."""
    root = '' if len({os.path.isabs(path) for path in paths}) > 1 else os.path.commonpath(paths)
    while root and not os.path.isdir(root):
        root = os.path.dirname(root)
    inside = [os.path.relpath(path, root) if root else path for path in paths]
    inside = ['' if path == '.' else path + '/' * os.path.isdir(given) for path, given in zip(inside, paths)]
    return (f'{root}/' if root else ''), inside


def _tuple(names: Sequence[str]) -> str:
    """Return names as the code of a tuple, on several lines if they need them."""
    short = repr(tuple(names))
    if len(short) < _LINE - 50:
        return short
    lines = ['']
    for name in map(repr, names):
        if len(lines[-1]) + len(name) + 2 > _LINE - 4:
            lines.append('')
        lines[-1] += f'{name}, '
    return '(\n' + ''.join(f'    {line.rstrip()}\n' for line in lines) + ')'


def _heads(cfg: Config, number: int) -> list[str]:
    """Return the lines that give each head its number of classes."""
    parts = {key: cfg[key] for key in ('model', 'data_preprocessor') if isinstance(cfg.get(key), dict)}
    changes: dict = {}
    for path, node in nodes(parts):
        keys = path.split('.')
        if not isinstance(node, dict) or 'num_classes' not in node or set(keys) & set(_NO_CLASSES):
            continue
        change: dict | _Expression = dict(num_classes=number)
        if node.get('type') == 'FasterNetClsHead':
            change['ignore_mismatched_sizes'] = True
        if keys[-1].isdecimal():  # one of several heads: a list is replaced as a whole
            keys.pop()
            change = _Expression(f'[dict(head, num_classes={number}) for head in _base_.{".".join(keys)}]')
        if any(key.isdecimal() for key in keys):
            raise UserError(f'{path}.num_classes stands within a list; write it by hand')
        inner = changes
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        if isinstance(change, dict):
            inner.setdefault(keys[-1], {}).update(change)
        else:
            inner[keys[-1]] = change
    return [f'{key} = {code(value, len(key) + 3)}' for key, value in changes.items()]


def _learning_rate(cfg: Config, batch_size: int) -> str:
    """Return a comment with the learning rate for a batch, in proportion to the base's."""
    rate = (cfg.get('optim_wrapper') or {}).get('optimizer', {}).get('lr')
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if not (rate and base):
        return ''
    return (
        f'# The learning rate of the base, {rate:g}, is for {base} images an iteration; in proportion, for '
        f'{batch_size} on one GPU:\n# optim_wrapper = dict(optimizer=dict(lr={rate * batch_size / base:.3g}))\n'
    )


def _require_working(text: str, out: Path) -> None:
    """Raise UserError where the config cannot be loaded, its model cannot be built, or its classes do not fit."""
    with tempfile.NamedTemporaryFile('w', suffix='.py', dir=out.resolve().parent) as file:
        file.write(text)
        file.flush()
        cfg = load_config(file.name)
        sources = sources_of(cfg)
        findings = [one for source in sources for one in source.findings if one.is_bad]
        findings += check_model(cfg, sources)
    if findings:
        raise UserError(f'the config would not work, and is not written: {findings[0].names[0]}')
