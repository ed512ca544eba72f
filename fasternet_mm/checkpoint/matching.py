"""Check first, then load: does a checkpoint fit a model, in whatever layout it is?"""

import functools
import re
from collections.abc import Callable
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import CheckpointError
from .layouts import Layout, fit_layout
from .rules import counts, listed, non_finite, require_matching, rule_for


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

    What torch loads strictly always fits, if it is finite: models may rename or resize tensors by hooks.

    Args:
        model (nn.Module): The model, unwrapped.
        checkpoint (dict): A file's content: a state dict, or a dict that holds one under 'state_dict'.

    Returns:
        dict: The tensors by the names that `model` loads them by.

    Raises:
        CheckpointError: If there is no state dict in it, as :func:`require_matching`, and where something in it is no
            tensor, or one that cannot be copied as it is, or NaN or infinite.
    """
    own = _own_tensors(model)
    state_dict = state_dict_of(checkpoint)
    _require_tensors(state_dict, own)
    layout, state_dict, _ = fit_layout(state_dict, own)
    with _naming(layout):
        rehearsal = _Rehearsal(model, state_dict)
        if not rehearsal.complete:
            rehearsal.apply_rules(state_dict)  # they know the likelier cause
            wanted, there = ({name.split('.')[0] for name in names} for names in (model.state_dict(), state_dict))
            absent = sorted(wanted - there)
            cause = f'a file without {", ".join(absent)}' if 0 < len(absent) < len(wanted) else None
            require_matching(model, state_dict, cause=cause)
            if rehearsal.refusal is not None:
                raise CheckpointError(f'the checkpoint does not fit: {rehearsal.refusal}') from rehearsal.refusal
        rehearsal.require_sound(model, own)
    return state_dict


def state_dict_of(checkpoint) -> dict:
    """Return the state dict in a file's content, without the ``module.`` that DDP puts before each name.

    Raises:
        CheckpointError: If there is none, or one in which a name stands with and without ``module.``.
    """
    state_dict = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state_dict, dict) or not any(isinstance(value, Tensor) for value in state_dict.values()):
        raise CheckpointError('the checkpoint holds no state_dict, a dict of tensors by name')
    bare = {str(name).removeprefix('module.'): value for name, value in state_dict.items()}
    if len(bare) < len(state_dict):
        twice = [name for name in bare if name in state_dict and f'module.{name}' in state_dict]
        raise CheckpointError(f'the checkpoint holds tensors with and without `module.` before them: {listed(twice)}')
    return bare


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
    _require_tensors(state_dict, own)
    layout, fitted, left_out = fit_layout(state_dict, own)
    with _naming(layout):
        rehearsal = _Rehearsal(module, fitted)
        refused = rehearsal.apply_rules(fitted)
        rehearsal.require_sound(module, own)
    counted = [tensor for name, tensor in own.items() if counts(name)]
    matched = sum(id(tensor) in rehearsal.filled for tensor in counted)
    message = f'Checkpoint layout: {layout}. {matched} of {len(counted)} tensors of {type(module).__name__} matched.'
    left_out += sorted(refused)
    if left_out:
        message += f' Left out: {len(left_out)} ({listed(left_out)}).'
    print_log(message, logger='current')
    return {name: tensor for name, tensor in fitted.items() if name not in refused} if refused else fitted


class _Rehearsal(TorchFunctionMode):
    """Go through torch's ``load_state_dict`` without copying a tensor.

    Only so is it known what each part will see: models rename and resize by hooks, as a semi-supervised detector does.

    Args:
        module (nn.Module): The model; it stays as it is.
        state_dict (dict): Tensors by the names that mmengine loads them by.

    Attributes:
        complete (bool): Whether torch would load it strictly.
        refusal (RuntimeError, optional): What torch would raise.
        filled (dict[int, Tensor]): What would be written to a tensor of `module`, by its id.
    """

    def __init__(self, module: nn.Module, state_dict: dict) -> None:
        super().__init__()
        self.refusal, self.filled, self._seen = None, {}, []
        full = {_bare(name): name for name in module.state_dict()}  # torch wants the names of wrappers such as DDP
        handles = [part.register_load_state_dict_pre_hook(self._see) for part in module.modules() if rule_for(part)]
        try:
            with self:
                named = {full.get(name, name): tensor for name, tensor in state_dict.items()}
                self.complete = not any(module.load_state_dict(named, strict=False))
        except RuntimeError as error:  # of another shape, say
            self.complete, self.refusal = False, error
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.copy_:
            self.filled[id(args[0])] = args[1]
            return args[0]
        return func(*args, **(kwargs or {}))

    def _see(self, part: nn.Module, tensors: dict, prefix: str, *args) -> None:
        self._seen.append((part, dict(tensors), prefix))

    def apply_rules(self, state_dict: dict) -> set[str]:
        """Return the names that the rules leave out; raise CheckpointError where one does not fit."""
        others = {name: value for name, value in state_dict.items() if not isinstance(value, Tensor)}
        return {name for part, seen, prefix in self._seen for name in rule_for(part)(part, others | seen, prefix)}

    def require_sound(self, module: nn.Module, own: dict[str, Tensor]) -> None:
        """Raise CheckpointError where a tensor would not arrive in `module` as what it should be."""
        sources = {name: self.filled[id(tensor)] for name, tensor in own.items() if id(tensor) in self.filled}
        bad = [f'{name} ({flaw})' for name, source in sources.items() if (flaw := _flaw(own[name], source))]
        bad = bad or [f'{name} (NaN or infinite)' for name in non_finite(module, sources)]
        if bad:
            raise CheckpointError(f'{len(bad)} of the {len(sources)} tensors in the file cannot be used: {listed(bad)}')


def _flaw(target: Tensor, source: Tensor) -> str | None:
    """Return why `source` cannot be copied into `target` unchanged, or None where it can."""
    if source.is_meta:
        return 'without content'
    if source.is_quantized or source.layout is not torch.strided:
        return 'quantized' if source.is_quantized else str(source.layout).removeprefix('torch.')
    # torch would round what is complex or an integer, of a quantized network, without a word
    differs = target.is_floating_point() and not source.is_floating_point()
    return str(source.dtype).removeprefix('torch.') if differs else None


def _require_tensors(state_dict: dict, own: dict) -> None:
    """Raise CheckpointError where anything else is named as a tensor of `own`, or as one of a module's."""
    strange = [
        f'{name} ({type(value).__name__})'
        for name, value in state_dict.items()
        if not isinstance(value, Tensor)
        and ('.' in name or isinstance(own.get(name), Tensor))
        and not name.endswith('_extra_state')
    ]
    if strange:
        raise CheckpointError(
            f'{len(strange)} of {len(state_dict)} entries in the file are no tensors: {listed(strange)}; write it '
            'again with tensors in their place'
        )


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
