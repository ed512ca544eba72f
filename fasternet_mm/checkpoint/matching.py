"""Does a state dict fit a module? The one answer for backbones and whole models."""

import functools
from collections.abc import Sequence

import mmengine.runner.checkpoint
from torch import nn

from ..errors import CheckpointError

_SHOWN = 10


def require_matching(
    module: nn.Module,
    state_dict: dict,
    prefix: str = '',
    strict_parts: Sequence[str] = ('',),
    optional: Sequence[str] = (),
) -> None:
    """Raise where `state_dict` would leave part of `module` as it is, or holds more than it.

    Args:
        module (nn.Module): The module to load.
        state_dict (dict): Tensors by name; those under `prefix` belong to `module`.
        prefix (str): Name of `module` in `state_dict`, with a trailing dot, or ''.
        strict_parts (Sequence[str]): Beginnings of names under which a tensor unknown to `module` is an error.
        optional (Sequence[str]): Beginnings of names that either side may lack.

    Raises:
        CheckpointError: Lists the first ten missing, mis-shaped and unexpected tensors.
    """
    optional, strict_parts = tuple(optional), tuple(strict_parts)

    def counts(key: str) -> bool:  # old files lack num_batches_tracked
        return not key.startswith(optional) and not key.endswith('num_batches_tracked')

    want = {key: value for key, value in module.state_dict().items() if counts(key)}
    have = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    missing = [key for key in want if key not in have]
    misshaped = [
        f'{key} {tuple(have[key].shape)}, not {tuple(want[key].shape)}'
        for key in want
        if key in have and have[key].shape != want[key].shape
    ]
    unexpected = [key for key in have if key.startswith(strict_parts) and counts(key) and key not in want]
    problems = [
        f'{len(keys)} {kind}: {", ".join(keys[:_SHOWN])}{", ..." if len(keys) > _SHOWN else ""}'
        for kind, keys in (('missing', missing), ('of another shape', misshaped), ('unexpected', unexpected))
        if keys
    ]
    if problems:
        fitting = len(want) - len(missing) - len(misshaped)
        cause = (
            'it is a file of another variant or of another class count'
            if fitting * 2 > len(want) or len(misshaped) > len(missing)
            else 'it is a file of another model'
        )
        raise CheckpointError(
            f'the checkpoint does not fit {type(module).__name__}: {fitting} of {len(want)} tensors match; most '
            f'likely {cause}; {"; ".join(problems)}'
        )


def check_before_loading() -> None:
    """Let modules object before mmengine loads a state dict, which by itself only logs what does not fit.

    A module objects by a method ``check_state_dict(state_dict, prefix)`` that raises. init_cfg, load_from, resume and
    ``load_checkpoint`` all come through this one function of mmengine; torch's own ``load_state_dict`` does not.
    """
    load_state_dict = mmengine.runner.checkpoint.load_state_dict
    if hasattr(load_state_dict, '__wrapped__'):
        return

    @functools.wraps(load_state_dict)
    def checked(module, state_dict, *args, **kwargs):
        for name, child in module.named_modules():
            if hasattr(child, 'check_state_dict'):
                parts = [part for part in name.split('.') if part not in ('', 'module')]  # 'module' is a DDP wrapper
                child.check_state_dict(state_dict, ''.join(part + '.' for part in parts))
        return load_state_dict(module, state_dict, *args, **kwargs)

    mmengine.runner.checkpoint.load_state_dict = checked
