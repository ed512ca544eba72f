"""Checks of FasterNet's arguments: each names the argument, what was given, and what was expected."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

from mmengine.registry import MODELS

_ARCH_KEYS = {'embed_dims', 'depths', 'act_cfg'}


def resolve_arch(arch: str | Mapping, variants: Mapping[str, dict], num_stages: int) -> dict:
    """Return the settings behind `arch`: a dict of embed_dims, depths and act_cfg.

    Raises:
        ValueError: If `arch` is neither the name of a variant nor a complete dict.
    """
    if isinstance(arch, str):
        if arch.lower() not in variants:
            raise ValueError(f'unknown arch {arch!r} of FasterNet; choose from {", ".join(variants)}')
        return variants[arch.lower()]
    if not isinstance(arch, Mapping) or not {'embed_dims', 'depths'} <= set(arch) <= _ARCH_KEYS:
        keys = ', '.join(sorted(_ARCH_KEYS))
        raise ValueError(f'arch of FasterNet must be a name or a dict of {keys}, but is {arch!r}')
    embed_dims, depths = arch['embed_dims'], arch['depths']
    if not _is_int(embed_dims, least=1):
        raise ValueError(f'embed_dims in arch of FasterNet must be a positive int, but is {embed_dims!r}')
    if not _is_list(depths) or len(depths) != num_stages or not all(_is_int(depth, least=1) for depth in depths):
        raise ValueError(f'depths in arch of FasterNet must be {num_stages} positive ints, but is {depths!r}')
    act_cfg = arch.get('act_cfg', dict(type='ReLU'))
    check_layer('act_cfg in arch of FasterNet', act_cfg)
    return dict(embed_dims=embed_dims, depths=tuple(depths), act_cfg=act_cfg)


def resolve_out_indices(out_indices: int | Sequence[int], num_stages: int) -> tuple[int, ...]:
    """Return the stages to return, counted from 0.

    Raises:
        ValueError: If there is none, or one does not exist.
    """
    indices = (out_indices,) if _is_int(out_indices) else out_indices
    known = range(-num_stages, num_stages)
    if not _is_list(indices) or not indices or not all(_is_int(index) and index in known for index in indices):
        raise ValueError(f'out_indices must be stages from 0 to {num_stages - 1}, but is {out_indices!r}')
    return tuple(index % num_stages for index in indices)


def check_int(name: str, value, least: int, most: int | None = None) -> None:
    """Raise ValueError unless `value` is an int from `least` to `most`."""
    if not _is_int(value, least, most):
        expected = f'an int of at least {least}' if most is None else f'from {least} to {most}'
        raise ValueError(f'{name} must be {expected}, but is {value!r}')


def check_number(name: str, value, least: float, below: float = math.inf) -> None:
    """Raise ValueError unless `value` is a finite number of at least `least`, and below `below`."""
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not least <= value < below:
        bound = '' if math.isinf(below) else f' and below {below:g}'
        raise ValueError(f'{name} must be a number of at least {least:g}{bound}, but is {value!r}')


def check_bool(name: str, value) -> None:
    """Raise ValueError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f'{name} must be True or False, but is {value!r}')


def check_cfg(name: str, value) -> None:
    """Raise ValueError unless `value` is a dict with a type, as mmcv builds layers from."""
    if not isinstance(value, Mapping) or 'type' not in value:
        raise ValueError(f"{name} must be a dict with a 'type', but is {value!r}")


def check_layer(name: str, value) -> None:
    """Raise ValueError unless `value` is a dict whose type mmcv can build a layer from."""
    check_cfg(name, value)
    with MODELS.switch_scope_and_registry(None) as registry:
        if isinstance(value['type'], str) and registry.get(value['type']) is None:
            raise ValueError(f'type in {name} must be a layer that mmcv knows, but is {value["type"]!r}')


def _is_int(value, least: int | None = None, most: int | None = None) -> bool:
    is_int = isinstance(value, Integral) and not isinstance(value, bool)
    return is_int and (least is None or value >= least) and (most is None or value <= most)


def _is_list(value) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
