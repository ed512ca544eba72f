"""Does a checkpoint fit a model? The one answer for backbones, heads and whole models."""

import functools
import re
from collections.abc import Callable
from contextlib import contextmanager

import mmengine.runner.checkpoint
from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import CheckpointError
from .layouts import Layout, fit_layout

_SHOWN = 10


def require_matching(
    module: nn.Module,
    state_dict: dict,
    prefix: str = '',
    optional: Callable[[str], bool] = lambda name: False,
    cause: str | None = None,
) -> None:
    """Raise where `state_dict` would leave part of `module` as it is, or holds more than it.

    Args:
        module (nn.Module): The module to load.
        state_dict (dict): Tensors by name; those under `prefix` belong to `module`.
        prefix (str): Name of `module` in `state_dict`, with a trailing dot, or ''.
        optional (Callable): Tells of a name below `prefix` whether either side may lack it.
        cause (str, optional): What has most likely happened; without it, a guess by how much fits.

    Raises:
        CheckpointError: Lists the first ten missing, mis-shaped and unexpected tensors.
    """

    def counts(key: str) -> bool:
        return _counts(key) and not optional(key)

    want = {key: value for key, value in module.state_dict().items() if counts(key)}
    have = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    missing = [key for key in want if key not in have]
    misshaped = [
        f'{key} {tuple(have[key].shape)}, not {tuple(want[key].shape)}'
        for key in want
        if key in have and have[key].shape != want[key].shape
    ]
    unexpected = [key for key in have if counts(key) and key not in want]
    problems = [
        f'{len(keys)} {kind}: {_listed(keys)}'
        for kind, keys in (('missing', missing), ('of another shape', misshaped), ('unexpected', unexpected))
        if keys
    ]
    if problems:
        fitting = len(want) - len(missing) - len(misshaped)
        variant = fitting * 2 > len(want) or len(misshaped) > len(missing)
        cause = cause or f'a file of another {"variant or class count" if variant else "model"}'
        raise CheckpointError(
            f'the checkpoint does not fit {type(module).__name__}: {fitting} of {len(want)} tensors match; most likely '
            f'it is {cause}; {"; ".join(problems)}'
        )


def require_loadable(model: nn.Module, checkpoint) -> None:
    """Load `checkpoint`, in any layout, into `model`, or raise where it does not fill the whole of it.

    What torch loads strictly always fits: models may rename or resize tensors by hooks.

    Args:
        model (nn.Module): The model, unwrapped.
        checkpoint (dict): A file's content: a state dict, or a dict that holds one under 'state_dict'.

    Raises:
        CheckpointError: If there is no state dict in it, or as :func:`require_matching`.
    """
    layout, state_dict, _ = fit_layout(state_dict_of(checkpoint), _own_tensors(model))
    try:
        model.load_state_dict(dict(state_dict), strict=True)
    except RuntimeError:
        with _naming(layout):
            for prefix, child in _checking(model):  # they know the likelier cause
                child.check_state_dict(state_dict, prefix)
            wanted, there = ({name.split('.')[0] for name in names} for names in (model.state_dict(), state_dict))
            absent = sorted(wanted - there)
            cause = f'a file without {", ".join(absent)}' if 0 < len(absent) < len(wanted) else None
            require_matching(model, state_dict, cause=cause)


def state_dict_of(checkpoint) -> dict:
    """The state dict in a file's content, without the ``module.`` that DDP puts before each name.

    Raises:
        CheckpointError: If there is none.
    """
    state_dict = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state_dict, dict) or not any(isinstance(value, Tensor) for value in state_dict.values()):
        raise CheckpointError('the checkpoint holds no state_dict, a dict of tensors by name')
    return {str(name).removeprefix('module.'): value for name, value in state_dict.items()}


def check_before_loading() -> None:
    """Give mmengine's one function for loading a state dict what it lacks: layouts, a check, and a line in the log.

    By itself it only logs what does not fit. init_cfg, load_from, resume and ``load_checkpoint`` all come through it;
    torch's own ``load_state_dict`` does not. A module takes part by a method ``check_state_dict(state_dict, prefix)``
    that raises, or returns the names of tensors to leave out.
    """
    load_state_dict = mmengine.runner.checkpoint.load_state_dict
    if hasattr(load_state_dict, '__wrapped__'):
        return

    @functools.wraps(load_state_dict)
    def checked(module, state_dict, strict=False, logger=None):
        checking = _checking(module)
        if checking:
            state_dict = _fitted(module, state_dict, checking)
        return load_state_dict(module, state_dict, strict, logger)

    mmengine.runner.checkpoint.load_state_dict = checked


def _fitted(module: nn.Module, state_dict: dict, checking: list[tuple[str, nn.Module]]) -> dict:
    own = _own_tensors(module)
    layout, fitted, left_out = fit_layout(state_dict, own)
    # the module may rename what it loads before its children see it, as a semi-supervised detector does
    seen = dict(fitted)
    module._load_from_state_dict(seen, '', {}, False, [], [], [])
    refused = set()
    with _naming(layout):
        for prefix, child in checking:
            refused.update(child.check_state_dict(seen, prefix) or ())
    counted = [name for name in own if _counts(name) and name not in refused]
    matched = sum(name in seen and seen[name].shape == own[name].shape for name in counted)
    total = len(counted) + len(refused)
    message = f'Checkpoint layout: {layout}. {matched} of {total} tensors of {type(module).__name__} matched.'
    left_out += sorted(refused)
    if left_out:
        message += f' Left out: {len(left_out)} ({_listed(left_out)}).'
    print_log(message, logger='current')
    return {name: tensor for name, tensor in fitted.items() if name not in refused} if refused else fitted


@contextmanager
def _naming(layout: Layout):
    """Adds to an error which layout was recognised."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f'{error} (layout recognised: {layout})') from error


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors under the names that mmengine loads them by: wrappers such as DDP have no part in them."""
    return {re.sub(r'(^|\.)module\.', r'\1', name): tensor for name, tensor in module.state_dict().items()}


def _checking(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of `module` that check what is loaded, by the prefix of their names."""
    found = ((name, child) for name, child in module.named_modules() if hasattr(child, 'check_state_dict'))
    return [
        (''.join(f'{part}.' for part in name.split('.') if part not in ('', 'module')), child) for name, child in found
    ]


def _counts(name: str) -> bool:
    return not name.endswith('num_batches_tracked')  # old files lack it


def _listed(names: list[str]) -> str:
    return ', '.join(names[:_SHOWN]) + (', ...' if len(names) > _SHOWN else '')
