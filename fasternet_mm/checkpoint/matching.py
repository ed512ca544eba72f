"""Does a state dict fit a module? The one answer for backbones and whole models."""

from collections.abc import Sequence

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
    want = {key: value for key, value in module.state_dict().items() if not key.startswith(optional)}
    have = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    missing = [key for key in want if key not in have and not key.endswith('num_batches_tracked')]
    misshaped = [
        f'{key} {tuple(have[key].shape)}, not {tuple(want[key].shape)}'
        for key in want
        if key in have and have[key].shape != want[key].shape
    ]
    unexpected = [
        key for key in have if key.startswith(strict_parts) and not key.startswith(optional) and key not in want
    ]
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
