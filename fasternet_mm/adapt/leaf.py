"""Read a config by path or name, and write what changes in it as a leaf config that inherits from it."""

import importlib.util
import keyword
import os
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from ..engine.runner import load_config
from ..errors import UserError, did_you_mean
from .swap import SCOPES, Adaptation

_WIDTH = 110


def find_config(config: str) -> Path:
    """Return the file of a config that is given as a path, or by a name such as 'mmdet::atss/atss_r50_fpn_1x_coco.py'.

    Raises:
        UserError: If there is none, or the library of the name is not installed.
    """
    library, separator, name = config.partition('::')
    if not separator:
        return Path(config)
    if library not in SCOPES:
        raise UserError(f'{config}: {library!r} must be one of {", ".join(SCOPES)}{did_you_mean(library, SCOPES)}')
    spec = importlib.util.find_spec(library)
    if spec is None:
        raise UserError(f'{config} is a config of {SCOPES[library]}, which is not installed here')
    root = Path(spec.submodule_search_locations[0], '.mim', 'configs')
    if not (root / name).is_file():
        known = [str(path.relative_to(root)) for path in root.glob('*/*.py')]
        raise UserError(f'config not found: {config}{did_you_mean(name, known)}')
    return root / name


def read_config(config: str) -> Config:
    """Read a config that is given as :func:`find_config` takes it.

    Raises:
        UserError: If it cannot be read, or is written in pure Python, which a leaf of text cannot inherit from.
    """
    path = find_config(config)
    if path.is_file() and Config._is_lazy_import(str(path)):
        raise UserError(f'{config} is in the pure Python style (read_base); give the one of configs/ in the old style')
    cfg = load_config(str(path))
    if (library := cfg.get('default_scope')) in SCOPES and importlib.util.find_spec(library) is None:
        raise UserError(f'{config} is a config of {SCOPES[library]}, which is not installed here')
    return cfg


def leaf_text(config: str, adaptation: Adaptation, out: str | Path) -> str:
    """Return the text of the leaf config at `out` that inherits from `config` and has the changes of `adaptation`."""
    lines = [f'# {note}' for note in adaptation.notes]
    lines.append(f'_base_ = {base_for(config, out)!r}')
    lines += [f'{key} = {code(value, len(key) + 3)}' for key, value in adaptation.changes.items()]
    return '\n'.join(lines) + '\n'


def base_for(config: str, out: str | Path) -> str:
    """Return how the config at `out` names `config` as its base: by its path from there, or by its name."""
    return config if '::' in config else Path(os.path.relpath(config, Path(out).resolve().parent)).as_posix()


def code(value, used: int = 0, indent: int = 0) -> str:
    """Return a value as Python code, on one line if `used` characters before it leave room."""
    short = _short_code(value)
    if used + indent + len(short) <= _WIDTH or not (isinstance(value, (Mapping, list)) and value):
        return short
    inner = ' ' * (indent + 4)
    if isinstance(value, list):
        return '[\n' + ''.join(f'{inner}{_filled(each, indent + 4)},\n' for each in value) + ' ' * indent + ']'
    items = ''.join(f'{inner}{key}={code(each, len(key) + 2, indent + 4)},\n' for key, each in value.items())
    return f'dict(\n{items}{" " * indent})'


def _filled(value, indent: int) -> str:
    """Return an element of a list as Python code, a dict in as few lines as it needs."""
    short = _short_code(value)
    if indent + len(short) < _WIDTH or not isinstance(value, Mapping):
        return short
    lines = ['dict(']
    for key, each in value.items():
        item = f'{key}={_short_code(each)}, '
        if indent + len(lines[-1]) + len(item) > _WIDTH:
            lines.append('     ')
        lines[-1] += item
    return f'\n{" " * indent}'.join(line.rstrip() for line in lines)[:-1] + ')'


def _short_code(value) -> str:
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value):
            return f'dict({", ".join(f"{key}={_short_code(each)}" for key, each in value.items())})'
        return '{' + ', '.join(f'{key!r}: {_short_code(each)}' for key, each in value.items()) + '}'
    if isinstance(value, list):
        return f'[{", ".join(map(_short_code, value))}]'
    return repr(value)
