"""What a checkpoint must hold besides weights that fit, so that a training goes on from it as it was."""

import copy
from collections import defaultdict

import torch
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import nn
from torch.optim import Optimizer

from ...checkpoint.rules import listed
from ...errors import CheckpointError

_ADVICE = 'to start a new training from its weights, leave --resume out and give --cfg-options load_from=FILE'


def require_resumable(runner: Runner, checkpoint: dict) -> None:
    """Raise CheckpointError where mmengine would resume less than a whole training, or fail halfway.

    Old mmcv's files hold a config under ``meta.config``, which mmengine would run as code; it is taken out.

    Args:
        runner (Runner): A runner with its optimizers and schedules built.
        checkpoint (dict): A file's content.
    """
    meta, hub = checkpoint.get('meta'), checkpoint.get('message_hub')
    _require(isinstance(meta, dict) and isinstance(hub, dict), 'it holds weights, but no state of a training')
    meta.pop('config', None)
    for name in ('epoch', 'iter'):
        _require(_is_count(meta.get(name)), f'its meta.{name} is {meta.get(name)!r}, not a number of {name}s')
    seed = meta.get('seed')
    is_seed = seed is None or (_is_count(seed) and seed < 2**32)
    _require(is_seed, f'its meta.seed is {seed!r}, not an integer in 0..2**32-1')
    for name in ('log_scalars', 'runtime_info', 'resumed_keys'):
        part = hub.get(name)
        named = isinstance(part, dict) and all(isinstance(key, str) and key.isprintable() for key in part)
        _require(named, f'its message_hub.{name} is not a dict of values by name')
    _require('optimizer' in checkpoint, "it was saved without the optimizer's state")
    several = isinstance(runner.optim_wrapper, OptimWrapperDict)
    states = checkpoint['optimizer'] if several else {None: checkpoint['optimizer']}
    for name, wrapper in runner.optim_wrapper.items() if several else [(None, runner.optim_wrapper)]:
        state = states.get(name) if isinstance(states, dict) else None
        _require_optimizer(wrapper.optimizer, state)
        _require(
            state['state'] or not meta['iter'] or not _keeps_state(wrapper.optimizer),
            f'its optimizer has no state after {meta["iter"]} iterations',
        )
    _require_schedules(runner.param_schedulers, checkpoint.get('param_schedulers'))


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise CheckpointError(f'no training can go on from it: {problem}; {_ADVICE}')


def _is_count(value) -> bool:
    return type(value) is int and value >= 0


def _require_optimizer(optimizer: Optimizer, state) -> None:
    kind = type(optimizer).__name__
    theirs, ours = state.get('param_groups') if isinstance(state, dict) else None, optimizer.param_groups
    grouped = isinstance(theirs, list) and all(
        isinstance(group, dict) and isinstance(group.get('params'), list) for group in theirs
    )
    _require(grouped and isinstance(state.get('state'), dict), f"its optimizer's state is none that {kind} could have")
    _require(
        len(theirs) == len(ours),
        f'its optimizer has {len(theirs)} groups of parameters, that of the config {len(ours)} (paramwise_cfg)',
    )
    counts = [sum(len(group['params']) for group in groups) for groups in (theirs, ours)]
    _require(
        all(len(a['params']) == len(b['params']) for a, b in zip(theirs, ours)),
        f'its optimizer has {counts[0]} parameters, that of the config {counts[1]}, or they are grouped otherwise',
    )
    # another version of torch may add options or drop them, but not both
    foreign = [key for key in theirs[0] if key not in ours[0]]
    lacking = [key for key in optimizer.defaults if key not in theirs[0]]
    _require(
        not (foreign and lacking),
        f'its optimizer has {listed(foreign)}, where {kind}, which the config names, has {listed(lacking)}',
    )


def _keeps_state(optimizer: Optimizer) -> bool:
    """Return whether the optimizer notes anything in a step, as a copy of it does that takes one on a single number."""
    number = nn.Parameter(torch.zeros(1))
    number.grad = torch.ones(1)
    tried = copy.copy(optimizer)
    tried.param_groups = [{**optimizer.param_groups[0], 'params': [number]}]
    tried.state = defaultdict(dict)
    tried.step()
    return any(tried.state.values())


def _require_schedules(ours, theirs) -> None:
    def lengths(schedules) -> dict | None:
        by_name = schedules if isinstance(schedules, dict) else {None: schedules}
        return {name: len(part) for name, part in by_name.items() if isinstance(part, list)}

    _require(
        not ours or lengths(ours) == lengths(theirs),
        f'it holds {sum(lengths(theirs).values())} schedules of the learning rate, and the config has '
        f'{sum(lengths(ours or []).values())} (param_scheduler)',
    )
