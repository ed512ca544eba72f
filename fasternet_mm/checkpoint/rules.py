"""Whether a checkpoint fits the parts of a FasterNet, and if not, why."""

import re
from collections.abc import Callable

from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import CheckpointError

_SHOWN = 10


def rule_for(module: nn.Module) -> Callable[[nn.Module, dict, str], list[str]] | None:
    """Return the rule for modules of this class, or None where mmengine's own way of loading is enough.

    A rule takes the module, a state dict and the module's prefix in it, and raises CheckpointError or returns the names
    of tensors to leave out.
    """
    from ..models import FasterNet, FasterNetClsHead

    if isinstance(module, FasterNet):
        return check_backbone
    return check_head if isinstance(module, FasterNetClsHead) else None


def check_backbone(backbone: nn.Module, state_dict: dict, prefix: str) -> list[str]:
    """Refuse a file that would leave part of a FasterNet at its random weights, which costs days.

    Output norms and stages that are not built may be absent on either side; from the file layer scale, too, and from
    the model the statistics of BN where it has another norm.

    Args:
        backbone (nn.Module): A FasterNet.
        state_dict (dict): Tensors by name; those under `prefix` belong to `backbone`.
        prefix (str): Name of `backbone` in `state_dict`, with a trailing dot, or ''.

    Returns:
        list[str]: Nothing: no tensor is left out.

    Raises:
        CheckpointError: Says which tensors do not fit and what has most likely happened.
    """
    beyond = tuple(f'stages.{i}.' for i in range(len(backbone.stages), 2 * backbone.num_stages - 1))
    # between deploy forms not: where they are absent they are in the neck
    norms = () if backbone.deployed else tuple(f'norm{2 * i}.' for i in range(backbone.num_stages))
    own = backbone.state_dict()

    def optional(name: str) -> bool:
        may_be_added = name in own and name.endswith('layer_scale')
        may_be_dropped = name not in own and name.endswith(('running_mean', 'running_var'))
        return name.startswith((*beyond, *norms)) or may_be_added or may_be_dropped

    theirs, ours = _variant(state_dict, prefix), _variant(own, '')
    if theirs is None:
        inside = [name for name, value in state_dict.items() if isinstance(value, dict)]
        cause = f'a file that keeps its weights under {inside[0]!r}' if inside else 'a file of another model'
    elif f'{prefix}patch_embed.proj.bias' in state_dict and not backbone.deployed:
        cause = 'a file of the deploy form: call fasternet_mm.deploy.switch_to_deploy(model) before it is loaded'
    elif backbone.deployed and f'{prefix}patch_embed.proj.bias' not in state_dict:
        cause = 'a file of the trained form, which is loaded before the switch to the deploy form'
    elif (theirs[0], theirs[1][: len(ours[1])]) == ours:
        cause = 'incomplete, or of other settings such as n_div, mlp_ratio or layer_scale_init_value'
    else:
        known = {(arch['embed_dims'], arch['depths']): name for name, arch in backbone.arch_settings.items()}
        names = [f'{known.get(v, "")} ({v[0]} channels, depths {v[1]})'.strip() for v in (theirs, ours)]
        cause = f'a file of another variant: {names[0]}, where the model is {names[1]}'
    require_matching(backbone, state_dict, prefix, optional, cause)
    return []


def _variant(state_dict: dict, prefix: str) -> tuple[int, tuple[int, ...]] | None:
    """Return channels and depths of the FasterNet under `prefix`, or None where there is none."""
    stem = state_dict.get(f'{prefix}patch_embed.proj.weight')
    pattern = re.compile(re.escape(prefix) + r'stages\.(\d+)\.blocks\.(\d+)\.spatial_mixing\.')
    blocks = {(int(m[1]), int(m[2])) for m in map(pattern.match, state_dict) if m}
    if not blocks or not _shape(stem):
        return None
    stages = sorted({stage for stage, _ in blocks})
    return stem.shape[0], tuple(sum(stage == s for s, _ in blocks) for stage in stages)


def check_head(head: nn.Module, state_dict: dict, prefix: str) -> list[str]:
    """Refuse a file that would leave part of a FasterNetClsHead as it is; arguments as :func:`check_backbone`.

    Returns:
        list[str]: What is to be left out: the linear layer of a file of another class count, where
        ``head.ignore_mismatched_sizes`` allows it.

    Raises:
        CheckpointError: As :func:`check_backbone`. A file without any head is no error: a line in the log says so.
    """
    if not any(name.startswith(prefix) for name in state_dict):
        print_log('The checkpoint has no classification head: the head keeps its initial weights.', 'current', 30)
        return []
    linear = [f'{prefix}fc.weight', f'{prefix}fc.bias']
    classes = {shape[0] for name in linear if (shape := _shape(state_dict.get(name)))}
    if f'{prefix}conv.weight' not in state_dict:
        cause = 'a file of another kind of head'
    elif _shape(state_dict[f'{prefix}conv.weight']) != _shape(head.conv.weight):
        cause = 'a file of another variant'
    elif classes and classes != {head.fc.out_features}:
        counts = f'the file has {max(classes)} classes, the model {head.fc.out_features}'
        if head.ignore_mismatched_sizes:
            print_log(f'As asked, the linear layer keeps its initial weights: {counts}.', 'current', 30)
            return linear
        cause = (
            f'a head of another class count: {counts}. To train the others from there, and the linear layer anew, set '
            'model.head.ignore_mismatched_sizes=True'
        )
    else:
        cause = 'incomplete'
    require_matching(head, state_dict, prefix, cause=cause)
    return []


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

    def required(key: str) -> bool:
        return counts(key) and not optional(key)

    want = {key: value for key, value in module.state_dict().items() if required(key)}
    have = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    missing = [key for key in want if key not in have]
    misshaped = [
        f'{key} {_shape(have[key])}, not {_shape(want[key])}'
        for key in want
        if key in have and _shape(have[key]) != _shape(want[key])
    ]
    unexpected = [key for key in have if required(key) and key not in want]
    problems = [
        f'{len(keys)} {kind}: {listed(keys)}'
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


def _shape(value) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def non_finite(module: nn.Module, state_dict: dict) -> list[str]:
    """Return the names of the parameters and BN statistics of `module` that are NaN or infinite in `state_dict`.

    Other buffers may be so on purpose, as a mask of -inf is. DDP's ``module.`` before a name is no difference.
    """
    checked = {name for name, _ in module.named_parameters()}
    checked |= {name for name, _ in module.named_buffers() if name.endswith(('running_mean', 'running_var'))}
    tensors = {name: tensor for name, tensor in state_dict.items() if name.removeprefix('module.') in checked}
    return [name for name, tensor in tensors.items() if not is_finite(tensor)]


def is_finite(tensor: Tensor) -> bool:
    """Return whether no element is NaN or infinite."""
    if tensor.dtype.itemsize == 1:  # torch cannot sum float8
        tensor = tensor.float()
    # a sum that is finite tells, and takes a tenth of the time; one that is not may have overflowed
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def counts(name: str) -> bool:
    """Return whether a tensor of this name must match: old files lack BN's counter of batches."""
    return not name.endswith('num_batches_tracked')


def listed(names: list[str]) -> str:
    """Return the first names as a list for an error or the log."""
    shown = (name if name.isprintable() else repr(name) for name in names[:_SHOWN])
    return ', '.join(shown) + (', ...' if len(names) > _SHOWN else '')
