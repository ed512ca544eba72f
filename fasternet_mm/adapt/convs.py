"""PConvBlocks in the place of the convolutions of any network."""

import copy
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import UserError
from ..models import PartialConv2d, PConvBlock, why_not_pconv
from .least_squares import SecondMoments, fit_pconv, t_shaped


@dataclass(frozen=True)
class ConvRow:
    """What became of one convolution of a network.

    Attributes:
        layer (str): Its name in the network, the first one where it has several.
        kept (str | None): Why it stays; None where a PConvBlock has taken its place.
        parameters (tuple[int, int]): Before and after.
        multiply_adds (tuple[int, int] | None): For one image, before and after; None without samples, and where these
            do not reach it.
        error (float | None): Norm of the difference of the new layer's outputs, on its own inputs, from what the old
            network had there, over the norm of these; None where nothing was fitted.
    """

    layer: str
    kept: str | None
    parameters: tuple[int, int]
    multiply_adds: tuple[int, int] | None = None
    error: float | None = None


def replace_convs(
    model: nn.Module,
    where: Callable[[str, nn.Conv2d], bool] = lambda name, conv: True,
    n_div: int = 4,
    samples: Tensor | Iterable[Tensor] | None = None,
) -> list[ConvRow]:
    """Put PConvBlocks in the place of a network's k x k convolutions, in place.

    With `samples`, layers are fitted one by one, in the order in which they run: each gets the weights of the least
    squared error between its outputs, for the inputs that it has once the layers before it are replaced, and what the
    old network has there. So a layer makes up for some of what those before it have lost. The network is in evaluation
    mode meanwhile. It runs twice for each layer, and a copy of it is held. Statistics of the norms stay as they are.

    Without `samples` the new layers start at random.

    Args:
        model (nn.Module): A network; its convolutions may be shared between layers, but it is not one itself.
        where (Callable): Takes a layer's name and the convolution, and returns whether to replace it. Defaults to all.
        n_div (int): See :class:`PConvBlock`. Defaults to 4.
        samples (Tensor | Iterable[Tensor], optional): A batch or several of what `model` takes, (N, C, H, W).

    Returns:
        list[ConvRow]: One for each nn.Conv2d, in the order of the network's modules.

    Raises:
        UserError: If `model` is a convolution, `samples` are empty or not as above, or the two networks cannot be
            compared, since a layer runs on other numbers of pixels in one; nothing is changed then.
    """
    if isinstance(model, nn.Conv2d):
        raise UserError('replace_convs changes a network in place; a convolution alone is replaced by a PConvBlock')
    convs = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    kept = {name: reason for name, conv in convs.items() if (reason := _why_kept(model, name, conv, n_div))}
    kept |= {name: "not chosen by 'where'" for name in convs.keys() - kept.keys() if not where(name, convs[name])}
    pixels, errors = {}, {}
    if samples is None:
        blocks = {name: _block_like(conv, n_div) for name, conv in convs.items() if name not in kept}
    else:
        batches = _batches(samples)
        with _evaluating(model), torch.no_grad():
            pixels = _pixels(model, convs, batches[0])
            kept |= {name: 'the samples do not reach it' for name in convs.keys() - kept.keys() - pixels.keys()}
            blocks, errors = _fitted(model, [name for name in pixels if name not in kept], batches, n_div)
    for name, block in blocks.items():
        _put(model, convs[name], block.train(convs[name].training))
    return [
        ConvRow(
            name,
            kept.get(name),
            (_count(conv), _count(blocks.get(name, conv))),
            tuple(_multiply_adds(layer, *pixels[name]) for layer in (conv, blocks.get(name, conv)))
            if name in pixels
            else None,
            errors.get(name),
        )
        for name, conv in convs.items()
    ]


def _why_kept(model: nn.Module, name: str, conv: nn.Conv2d, n_div: int) -> str | None:
    reason = why_not_pconv(conv, n_div)
    if isinstance(model.get_submodule(name.rpartition('.')[0]), PartialConv2d):
        return 'it is the convolution of a PConv'
    if type(conv) is not nn.Conv2d:
        return f'its class is {type(conv).__name__}, not nn.Conv2d'
    if conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks or conv._backward_pre_hooks:
        return 'it has hooks'
    return reason


def _block_like(conv: nn.Conv2d, n_div: int) -> PConvBlock:
    bias = conv.bias is not None
    block = PConvBlock(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, n_div, bias)
    return block.to(conv.weight.device, conv.weight.dtype)


def _batches(samples: Tensor | Iterable[Tensor]) -> list[Tensor]:
    batches = [samples] if isinstance(samples, Tensor) else list(samples)
    for batch in batches:
        if not isinstance(batch, Tensor) or batch.dim() != 4 or not len(batch):
            found = tuple(batch.shape) if isinstance(batch, Tensor) else type(batch).__name__
            raise UserError(f'samples must be batches of images, tensors of shape (N, C, H, W), but one is {found}')
    if not batches:
        raise UserError('samples must hold at least one batch of images, but are empty')
    return batches


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _watched(layer: nn.Module, see: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Call `see` with the input and the output of each run of a layer."""
    handle = layer.register_forward_hook(lambda module, inputs, output: see(inputs[0], output))
    try:
        yield
    finally:
        handle.remove()


def _pixels(model: nn.Module, convs: dict[str, nn.Conv2d], batch: Tensor) -> dict[str, tuple[int, int]]:
    """Return input and output pixels of the convolutions that run, for one image, in the order of their first run."""
    seen = {}

    def see(name: str, conv: nn.Conv2d, x: Tensor, y: Tensor) -> None:
        before = seen.get(name, (0, 0))
        seen[name] = before[0] + x.numel() // conv.in_channels, before[1] + y.numel() // conv.out_channels

    with ExitStack() as stack:
        for name, conv in convs.items():
            stack.enter_context(_watched(conv, partial(see, name, conv)))
        model(batch)
    return {name: (before // len(batch), after // len(batch)) for name, (before, after) in seen.items()}


def _fitted(
    model: nn.Module, names: list[str], batches: list[Tensor], n_div: int
) -> tuple[dict[str, PConvBlock], dict[str, float]]:
    """Return a fitted block for each of the convolutions, and its error."""
    trial, blocks, errors, scarce = copy.deepcopy(model), {}, {}, []
    for name in names:
        conv = model.get_submodule(name)
        block, bias = _block_like(conv, n_div), conv.bias is not None
        moments = _moments(model, trial, name, block, batches)
        fit = fit_pconv(moments, block.pconv.conv_channels, conv.kernel_size[0], bias)
        block.pconv.partial_conv3.weight.copy_(fit.partial)
        block.pwconv.weight.copy_(fit.pointwise)
        if bias:
            block.pwconv.bias.copy_(fit.bias)
        blocks[name], errors[name] = block, fit.error
        _put(trial, trial.get_submodule(name), block)
        if moments.rows < len(moments.inputs):
            scarce.append(name)
    if scarce:
        line = (
            f'{len(scarce)} of {len(names)} layers, from {scarce[0]} on, see fewer pixels in the samples than they '
            'have weights for an output: their fits and errors say nothing of other images; give more samples'
        )
        print_log(line, 'current', logging.WARNING)
    return blocks, errors


def _moments(model: nn.Module, trial: nn.Module, name: str, block: PConvBlock, batches: list[Tensor]) -> SecondMoments:
    """Return the moments of a layer's inputs in `trial`, as `block` will see them, and of its outputs in `model`."""
    conv, moments, wanted = model.get_submodule(name), SecondMoments(), deque()

    def add(x: Tensor, y: Tensor) -> None:
        want = wanted.popleft() if wanted else torch.empty(0)
        if want.shape != y.shape:
            raise UserError(
                f'{name} gives {tuple(y.shape)} in the replaced network, but {tuple(want.shape)} in the old one: '
                'where it runs depends on what it finds, so it cannot be fitted; leave it out by `where`'
            )
        rows = t_shaped(x, block.pconv.conv_channels, block.kernel_size[0], block.stride, conv.bias is not None)
        moments.add(rows, want.movedim(1, -1).flatten(0, 2))

    for batch in batches:
        with _watched(conv, lambda x, y: wanted.append(y.clone())):  # what follows may overwrite it
            model(batch)
        with _watched(trial.get_submodule(name), add):
            trial(batch)
    return moments


def _put(model: nn.Module, conv: nn.Conv2d, block: PConvBlock) -> None:
    """Replace a convolution wherever it stands."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # named_children() gives each module once
            if child is conv:
                setattr(parent, name, block)


def _count(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def _multiply_adds(layer: nn.Module, before: int, after: int) -> int:
    """Return those of a layer with as many input and output pixels."""
    if isinstance(layer, PConvBlock):
        return before * layer.pconv.partial_conv3.weight.numel() + after * layer.pwconv.weight.numel()
    return after * layer.weight.numel()
