"""Does a state dict fit a module? The one answer for backbones and whole models."""

import functools
from collections.abc import Callable

import mmengine.runner.checkpoint
from torch import nn

from ..errors import CheckpointError

_SHOWN = 10


def require_matching(
    module: nn.Module, state_dict: dict, prefix: str = '', optional: Callable[[str], bool] = lambda name: False
) -> None:
    """Raise where `state_dict` would leave part of `module` as it is, or holds more than it.

    Args:
        module (nn.Module): The module to load.
        state_dict (dict): Tensors by name; those under `prefix` belong to `module`.
        prefix (str): Name of `module` in `state_dict`, with a trailing dot, or ''.
        optional (Callable): Tells of a name below `prefix` whether either side may lack it.

    Raises:
        CheckpointError: Lists the first ten missing, mis-shaped and unexpected tensors.
    """

    def counts(key: str) -> bool:  # old files lack num_batches_tracked
        return not key.endswith('num_batches_tracked') and not optional(key)

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
        f'{len(keys)} {kind}: {", ".join(keys[:_SHOWN])}{", ..." if len(keys) > _SHOWN else ""}'
        for kind, keys in (('missing', missing), ('of another shape', misshaped), ('unexpected', unexpected))
        if keys
    ]
    if problems:
        fitting = len(want) - len(missing) - len(misshaped)
        variant = fitting * 2 > len(want) or len(misshaped) > len(missing)
        raise CheckpointError(
            f'the checkpoint does not fit {type(module).__name__}: {fitting} of {len(want)} tensors match; most '
            f'likely it is a file of another {"variant or class count" if variant else "model"}; {"; ".join(problems)}'
        )


def require_loadable(model: nn.Module, checkpoint) -> None:
    """Load `checkpoint` into `model`, or raise where it does not fill the whole of it.

    What torch loads strictly always fits: models may rename or resize tensors by hooks.

    Args:
        model (nn.Module): The model, unwrapped.
        checkpoint (dict): A file's content: a state dict, or a dict that holds one under 'state_dict'.

    Raises:
        CheckpointError: If there is no state dict in it, or as :func:`require_matching`.
    """
    state_dict = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state_dict, dict):
        raise CheckpointError('the checkpoint holds no state_dict, a dict of tensors by name')
    state_dict = {key.removeprefix('module.'): value for key, value in state_dict.items()}
    try:
        model.load_state_dict(dict(state_dict), strict=True)
    except RuntimeError:
        require_matching(model, state_dict)


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
                prefix = ''.join(part + '.' for part in parts)
                try:
                    child.check_state_dict(state_dict, prefix)
                except CheckpointError:
                    if not _filled_by_hooks(module, state_dict, prefix):
                        raise
        return load_state_dict(module, state_dict, *args, **kwargs)

    mmengine.runner.checkpoint.load_state_dict = checked


def _filled_by_hooks(module: nn.Module, state_dict: dict, prefix: str) -> bool:
    """Whether a parent's load hook (as a semi-supervised detector has) brings the names into place."""
    if not prefix:
        return False
    try:
        missing = module.load_state_dict(dict(state_dict), strict=False).missing_keys
    except RuntimeError:
        return False
    return not any(key.startswith(prefix) for key in missing)
