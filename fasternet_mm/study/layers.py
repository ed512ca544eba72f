"""Which layers of a network are looked at, and what goes through them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..errors import UserError, did_you_mean
from ..models import PartialConv2d, why_not_pconv
from .subject import Subject


def device_of(model: nn.Module) -> torch.device:
    """Return where a network runs."""
    return next(model.parameters()).device


@contextmanager
def watching(layer: nn.Module, see: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Call `see` with the input and the output of each run of a layer, before what follows may write over them."""
    handle = layer.register_forward_hook(lambda module, inputs, output: see(inputs[0], output))
    try:
        yield
    finally:
        handle.remove()


def filters(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the regular 3x3 convolutions of a network by name, PConv's own among them."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    return {name: conv for name, conv in found.items() if conv.kernel_size == (3, 3) and conv.groups == 1}


def sizes(subject: Subject, layers: dict[str, nn.Module]) -> dict[str, tuple[int, int]]:
    """Return height and width of the outputs of those layers that an image reaches, in the order of their runs."""
    seen = {}

    def see(name: str, y: Tensor) -> None:
        seen.setdefault(name, tuple(y.shape[2:]))

    with ExitStack() as stack, torch.inference_mode():
        for name, layer in layers.items():
            stack.enter_context(watching(layer, lambda x, y, name=name: see(name, y)))
        subject.run(torch.zeros(1, 3, subject.prepare.size, subject.prepare.size, device=device_of(subject.model)))
    return seen


def stages(subject: Subject, layers: dict[str, nn.Module]) -> dict[str, list[str]]:
    """Return the names of layers by stage: the four smallest sizes of outputs, the largest first; stems are left out.

    Of networks with a `backbone`, only its layers count. Convolutions of 3 channels and what images do not reach are
    left out, too.
    """
    prefix = 'backbone.' if isinstance(getattr(subject.model, 'backbone', None), nn.Module) else ''
    chosen = {name: layer for name, layer in layers.items() if name.startswith(prefix)}
    by_size = {}
    for name, size in sizes(subject, chosen).items():
        if chosen[name].in_channels > 3:
            by_size.setdefault(size, []).append(name)
    last = sorted(by_size, reverse=True)[-4:]
    return {f'stage {number}': by_size[size] for number, size in enumerate(last, 1)}


def regular_convs(subject: Subject, names: Sequence[str] | None = None) -> list[str]:
    """Return the named layers, or the first regular 3x3 convolution of each stage.

    Raises:
        UserError: If a layer does not exist or is no regular 3x3 convolution, or the network has none.
    """
    model = subject.model
    modules = dict(model.named_modules())
    for name in names or ():
        if reason := why_not_regular(model, require_layer(modules, name), name):
            raise UserError(f'--layers {name}: {reason}; approximated are regular 3x3 convolutions')
    if names:
        return list(names)
    regular = {name: conv for name, conv in filters(model).items() if not why_not_regular(model, conv, name)}
    first = [layers[0] for layers in stages(subject, regular).values()]
    if not first:
        raise UserError(f'{subject.name} has no regular 3x3 convolution')
    return first


def require_layer(modules: dict[str, nn.Module], name: str) -> nn.Module:
    """Return a network's layer by its name; raise UserError where there is none."""
    if name not in modules or not name:
        raise UserError(f'--layers {name}: the network has no such layer{did_you_mean(name, modules)}')
    return modules[name]


def why_not_regular(model: nn.Module, layer: nn.Module, name: str) -> str | None:
    """Return why a layer is no regular 3x3 convolution with padding 1, or None where it is one."""
    if type(layer) is not nn.Conv2d:
        return f'its class is {type(layer).__name__}, not nn.Conv2d'
    if isinstance(model.get_submodule(name.rpartition('.')[0]), PartialConv2d):
        return 'it is the convolution of a PConv'
    if layer.kernel_size != (3, 3):
        return f'its kernel is {"x".join(map(str, layer.kernel_size))}'
    if layer.stride[0] != layer.stride[1]:
        return f'its stride is {layer.stride}'
    return why_not_pconv(layer)
