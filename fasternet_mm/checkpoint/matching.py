"""Check first, then load: does a checkpoint fit a model, in whatever layout it is?"""

import functools
import re
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from mmengine.logging import print_log
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import CheckpointError
from .layouts import Layout, fit_layout
from .rules import Rule, counts, listed, require_matching, rule_for


def load_strict(model: nn.Module, checkpoint) -> None:
    """Load `checkpoint`, in any layout, into `model`, or raise where it does not fill the whole of it.

    Args:
        model (nn.Module): The model, unwrapped.
        checkpoint (dict): A file's content: a state dict, or a dict that holds one under 'state_dict'.

    Raises:
        CheckpointError: As :func:`require_filling`; the model is then as it was.
    """
    model.load_state_dict(require_filling(model, checkpoint), strict=False)


def require_filling(model: nn.Module, checkpoint) -> dict:
    """Raise where `checkpoint`, in any layout, would not fill the whole of `model`; nothing is loaded.

    What torch loads strictly always fits: models may rename or resize tensors by hooks.

    Args:
        model (nn.Module): The model, unwrapped.
        checkpoint (dict): A file's content: a state dict, or a dict that holds one under 'state_dict'.

    Returns:
        dict: The tensors by the names that `model` loads them by.

    Raises:
        CheckpointError: If there is no state dict in it, or as :func:`require_matching`.
    """
    layout, state_dict, _ = fit_layout(state_dict_of(checkpoint), _own_tensors(model))
    rehearsal = _rehearse(model, state_dict)
    if not rehearsal.complete:
        with _naming(layout):
            rehearsal.apply_rules(state_dict)  # they know the likelier cause
            wanted, there = ({name.split('.')[0] for name in names} for names in (model.state_dict(), state_dict))
            absent = sorted(wanted - there)
            cause = f'a file without {", ".join(absent)}' if 0 < len(absent) < len(wanted) else None
            require_matching(model, state_dict, cause=cause)
    return state_dict


def state_dict_of(checkpoint) -> dict:
    """Return the state dict in a file's content, without the ``module.`` that DDP puts before each name.

    Raises:
        CheckpointError: If there is none.
    """
    state_dict = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state_dict, dict) or not any(isinstance(value, Tensor) for value in state_dict.values()):
        raise CheckpointError('the checkpoint holds no state_dict, a dict of tensors by name')
    return {str(name).removeprefix('module.'): value for name, value in state_dict.items()}


def checked(load_state_dict: Callable) -> Callable:
    """Give mmengine's function for loading a state dict what it lacks: layouts, a check, and a line in the log.

    By itself it only logs what does not fit. Models without a part that has a rule are none of our business.

    Returns:
        Callable: A function of the same signature that raises CheckpointError before anything is loaded. It only passes
        on where its attribute ``active`` is False.
    """

    @functools.wraps(load_state_dict)
    def load(module, state_dict, strict=False, logger=None):
        if load.active and any(map(rule_for, module.modules())):
            state_dict = _fitted(module, state_dict)
        return load_state_dict(module, state_dict, strict, logger)

    load.active = True
    load.fasternet_mm = load  # our mark, which functools.wraps hands on to a wrapper around it
    return load


def _fitted(module: nn.Module, state_dict: dict) -> dict:
    own = _own_tensors(module)
    layout, fitted, left_out = fit_layout(state_dict, own)
    rehearsal = _rehearse(module, fitted)
    with _naming(layout):
        refused = rehearsal.apply_rules(fitted)
    counted = [tensor for name, tensor in own.items() if counts(name)]
    matched = sum(id(tensor) in rehearsal.filled for tensor in counted)
    message = f'Checkpoint layout: {layout}. {matched} of {len(counted)} tensors of {type(module).__name__} matched.'
    left_out += sorted(refused)
    if left_out:
        message += f' Left out: {len(left_out)} ({listed(left_out)}).'
    print_log(message, logger='current')
    return {name: tensor for name, tensor in fitted.items() if name not in refused} if refused else fitted


class _WithoutCopies(TorchFunctionMode):
    """Within it ``a.copy_(b)`` only notes that `a` would be filled."""

    def __init__(self) -> None:
        super().__init__()
        self.filled = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.copy_:
            self.filled.add(id(args[0]))
            return args[0]
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class _Rehearsal:
    """What loading would do: is it `complete`, which tensors are `filled` (by id), what does each part see."""

    complete: bool
    filled: set[int]
    seen: list[tuple[Rule, nn.Module, dict, str]]

    def apply_rules(self, state_dict: dict) -> set[str]:
        """Return the names that the rules leave out; raise CheckpointError where one does not fit."""
        nested = {name: value for name, value in state_dict.items() if not isinstance(value, Tensor)}
        return {name for rule, part, tensors, prefix in self.seen for name in rule(part, nested | tensors, prefix)}


def _rehearse(module: nn.Module, state_dict: dict) -> _Rehearsal:
    """Go through torch's ``load_state_dict`` without copying a tensor.

    Only so is it known what each part will see: models rename and resize by hooks, as a semi-supervised detector does.
    """
    own = module.state_dict()
    full = {_bare(name): name for name in own}  # with wrappers such as DDP, as torch wants them
    seen = []

    def see(part, tensors, prefix, *args):
        seen.append((rule_for(part), part, dict(tensors), prefix))

    with ExitStack() as stack:
        for part in filter(rule_for, module.modules()):
            handle = part.register_load_state_dict_pre_hook(see)
            stack.callback(handle.remove)
        copies = stack.enter_context(_WithoutCopies())
        try:
            module.load_state_dict({full.get(name, name): tensor for name, tensor in state_dict.items()})
            complete = True
        except RuntimeError:
            complete = False
    return _Rehearsal(complete, copies.filled, seen)


@contextmanager
def _naming(layout: Layout):
    """Add to an error which layout was recognised."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f'{error} (layout recognised: {layout})') from error


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the module's tensors under the names that mmengine loads them by."""
    return {_bare(name): tensor for name, tensor in module.state_dict(keep_vars=True).items()}


def _bare(name: str) -> str:
    """Return a tensor's name without the wrappers around it, such as DDP."""
    return re.sub(r'(^|\.)module\.', r'\1', name)
