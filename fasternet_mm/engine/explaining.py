"""One line for what a library raises while it builds, or first runs, what a config says."""

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb, walk_tb
from types import FrameType
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry, build_from_cfg
from mmengine.runner import Runner
from torch import nn

from ..errors import DataError, UserError, did_you_mean
from .checks.annotations import find_fault, named
from .faults import outside_fault

# what builds a piece of the config, and the argument that holds the piece
_BUILDERS = {build_from_cfg.__code__: 'cfg'} | {
    getattr(Runner, f'build_{name}').__code__: argument
    for name, argument in (
        ('dataloader', 'dataloader'),
        ('evaluator', 'evaluator'),
        ('log_processor', 'log_processor'),
        ('optim_wrapper', 'optim_wrapper'),
        ('param_scheduler', 'scheduler'),
        ('test_loop', 'loop'),
        ('train_loop', 'loop'),
        ('val_loop', 'loop'),
        ('visualizer', 'visualizer'),
    )
}
_SETTINGS = {
    Runner.build_logger.__code__: 'log_level',
    Runner.register_custom_hooks.__code__: 'custom_hooks',
    Runner.register_default_hooks.__code__: 'default_hooks',
    Runner.scale_lr.__code__: 'auto_scale_lr',
    Runner.set_randomness.__code__: 'randomness',
    Runner.setup_env.__code__: 'env_cfg',
}
_OF_OTHERS = {'train': ('test_',), 'test': ('train_', 'val_')}  # often the same as what this phase has
_OF_USERS = (ValueError, NotImplementedError)  # a wrong argument; an operator that only a compiled mmcv has
_OURS = Path(__file__).parents[1]


@contextmanager
def explained(cfg: Config, phase: str, model: nn.Module | None = None, place: str = 'the config') -> Iterator[None]:
    """Turn what a library raises inside the block into a UserError of one line: see :func:`explain`."""
    try:
        yield
    except Exception as error:
        raise explain(error, cfg, phase, model, place) from error


def explain(
    error: Exception,
    cfg: Config,
    phase: str,
    model: nn.Module | None = None,
    place: str = 'the config',
    hint: str = '',
) -> Exception:
    """Return a UserError that says where in the config the cause of `error` stands, what stands there, and the cause.

    Where is read off the traceback: what mmengine was building, or which module of the model was running.

    Args:
        error (Exception): What was raised.
        cfg (Config): The config of the run.
        phase (str): 'train' or 'test'.
        model (nn.Module, optional): The model, if it may have been running.
        place (str): Where it is if the traceback does not tell. Defaults to 'the config'.
        hint (str): What else the user should know. Defaults to ''.

    Returns:
        Exception: `error` itself if it is one for users already, or a programming error of this package.
    """
    frames, root = [frame for frame, _ in walk_tb(error.__traceback__)], error
    while type(root.__context__) is type(root) and str(root.__context__) in str(root):  # raised once more by mmengine
        root = root.__context__
        frames += [frame for frame, _ in walk_tb(root.__traceback__)]
    if isinstance(error, UserError) or outside_fault(error) or _is_ours(root, frames[-1]):
        return error
    settings = {key: cfg[key] for key in _settings(cfg, phase)}
    path, node = _built(frames, settings)
    if not path and model is not None:
        path, node = _running(frames, model, settings)
    if unknown := _unknown_type(frames[-1]):
        return UserError(f'{path}.type is {unknown}')
    reader = innermost(error, (BaseDataset, BaseMetric))
    if reader is not None and isinstance(node, Mapping) and isinstance(node.get('ann_file'), str):
        file = Path(node.get('data_root') or '', node['ann_file'])
        if fault := find_fault(file, getattr(reader, '_metainfo', {}).get('classes')):  # it may be half built
            return DataError(f'{named(file, path)} {fault}')
    if path:
        place = f'{path} ({_shown(node)})'
    return UserError(f'{place} does not work: {cause(root)}{hint} (--traceback shows where)')


def _is_ours(error: Exception, frame: FrameType) -> bool:
    return Path(frame.f_code.co_filename).is_relative_to(_OURS) and not isinstance(error, _OF_USERS)


def _settings(cfg: Config, phase: str) -> list[str]:
    """Return the keys that a runner takes, without the variables of a config file and the other phase's settings."""
    keys = [*inspect.signature(Runner).parameters, 'tta_model']
    return [key for key in keys if key in cfg and not key.startswith(_OF_OTHERS[phase])]


def _built(frames: list[FrameType], settings: Mapping) -> tuple[str, Any]:
    """Return the path of the innermost piece of the config that was being built, and the piece."""
    path, node = '', settings
    for frame in frames:
        if frame.f_code in _SETTINGS:
            path = _SETTINGS[frame.f_code]
            node = settings.get(path)
        piece = frame.f_locals.get(_BUILDERS.get(frame.f_code))
        if not isinstance(piece, (Mapping, list)):
            continue
        likeness, below, found = _most_like(piece, node)
        if likeness:
            path, node = f'{path}.{below}'.lstrip('.'), found
            continue
        likeness, elsewhere, found = _most_like(piece, settings)  # a loop's data loader, a head's train_cfg
        if likeness == math.inf:
            path, node = elsewhere, found
    return path, node


def _most_like(piece: Mapping | list, node) -> tuple[float, str, Any]:
    found = [(_likeness(piece, child), path, child) for path, child in nodes(node)]
    return max(found, key=lambda candidate: candidate[0], default=(0, '', None))


def nodes(node) -> Iterator[tuple[str, Mapping | list]]:
    """Yield each dict and each list below `node`, with its key as ``--cfg-options`` take it."""
    for key, child in node.items() if isinstance(node, Mapping) else enumerate(node or ()):
        if isinstance(child, (Mapping, list)):
            yield str(key), child
            for path, grandchild in nodes(child):
                yield f'{key}.{path}', grandchild


def _likeness(piece: Mapping | list, node: Mapping | list) -> float:
    """Return how much of `piece` is in `node`: a builder gets a copy, to which others may have added settings."""
    if piece == node:
        return math.inf
    if not (isinstance(piece, Mapping) and isinstance(node, Mapping)) or piece.get('type') != node.get('type'):
        return 0
    return sum(key in node and node[key] == value for key, value in piece.items())


def _running(frames: list[FrameType], model: nn.Module, settings: Mapping) -> tuple[str, Mapping | list]:
    """Return the path of the settings of the innermost part that was running, and these settings."""
    names = {id(module): name for name, module in model.named_modules()}
    for frame in reversed(frames):
        part = frame.f_locals.get('self')
        if id(part) in names:
            return _of_module(names[id(part)], settings['model'])
        if isinstance(part, (BaseMetric, Hook, OptimWrapper)):
            found = (pair for pair in nodes(settings) if isinstance(pair[1], Mapping))
            return next((pair for pair in found if pair[1].get('type') == type(part).__name__), ('', settings))
    return '', settings


def _of_module(name: str, settings: Mapping) -> tuple[str, Mapping | list]:
    path, node = 'model', settings
    for key in name.split('.'):
        child = (node if isinstance(node, Mapping) else dict(zip(map(str, range(len(node))), node))).get(key)
        if not isinstance(child, (Mapping, list)):
            break
        path, node = f'{path}.{key}', child
    return path, node


def _unknown_type(frame: FrameType) -> str | None:
    """Return a type that a registry does not know, with the nearest ones it does, if that is what was raised."""
    found = frame.f_locals
    if frame.f_code is not build_from_cfg.__code__ or found.get('obj_cls', frame) is not None:
        return None
    return unknown_type(found['obj_type'], found['registry'])


def unknown_type(name: str, registry: Registry) -> str:
    """Return the end of the sentence that begins with ``<key>.type is``, for a `name` that `registry` does not know."""
    known, home = set(), f'{registry.scope} has no such {registry.name}'
    while registry is not None:
        known |= set(registry.module_dict)
        registry = registry.parent
    return f'{name!r}, but {home}{did_you_mean(name, known)}'


def innermost(error: Exception, kind: type | tuple[type, ...]) -> Any:
    """Return the object of `kind` whose method was running last when `error` was raised, or None."""
    found = [frame.f_locals.get('self') for frame, _ in walk_tb(error.__traceback__)]
    return next((self for self in reversed(found) if isinstance(self, kind)), None)


def _shown(node) -> str:
    if isinstance(node, Mapping):
        settings = (f'{key}={_short(repr(value), 60)}' for key, value in node.items() if key != '_scope_')
        return _short(', '.join(settings), 200)
    return _short(repr(node), 200)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f'{text[:length]}...'


def cause(error: Exception) -> str:
    """Return what was raised as one line: its type, and its text or, of an assert without one, its line of code."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    if not str(text).strip():  # an assert: the line says what was expected
        text = extract_tb(error.__traceback__)[-1].line
    return f'{type(error).__name__}: {_short(" ".join(str(text).split()), 400)}'
