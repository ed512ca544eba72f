"""Activation maps and class-activation maps of any layer, and where in the picture they lie."""

import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError, did_you_mean

# by name: the class of pytorch_grad_cam that weights a map by gradients, or None where none are needed
METHODS = dict(activation=None, eigencam=None, gradcam='GradCAM', hirescam='HiResCAM', layercam='LayerCAM')
_EXTRA_TOKENS = range(6)  # class, distillation and register tokens before those of the picture


def require_grad_cam(methods: Sequence[str]) -> None:
    """Raise UserError if one of the methods needs the package grad-cam, and it is not there."""
    wanted = [name for name in methods if METHODS[name]]
    if wanted and importlib.util.find_spec('pytorch_grad_cam') is None:
        raise UserError(
            f"--method {wanted[0]} is computed by grad-cam, which is not installed: pip install 'fasternet_mm[study]', "
            'or pip install grad-cam; activation and eigencam work without it'
        )


# layers


@contextmanager
def tapped(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Give a dict that gets the outputs of each layer, in the order of its calls, while the model runs.

    What comes after a layer gets copies, for it may write over them.
    """
    seen, handles = {name: [] for name in names}, []

    def keep(name: str, layer: nn.Module, inputs: tuple, output: object) -> object:
        seen[name] += _tensors_of(output)
        if type(output) in (tuple, list):
            return type(output)(each.clone() if isinstance(each, Tensor) else each for each in output)
        return output.clone() if isinstance(output, Tensor) else output

    try:
        for name in seen:
            handles.append(model.get_submodule(name).register_forward_hook(partial(keep, name)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _tensors_of(output: object) -> list[Tensor]:
    """Return the floating-point tensors of a layer's output."""
    outputs = output if isinstance(output, (tuple, list)) else [output]
    return [each for each in outputs if isinstance(each, Tensor) and each.is_floating_point()]


def require_layers(model: nn.Module, names: Sequence[str]) -> None:
    """Raise UserError, with the nearest names, if the model has not all of these layers; ``[number]`` is left out."""
    known = [name for name, _ in model.named_modules() if name]
    for name in map(module_of, names):
        if name not in known:
            upper = ', '.join(each for each in known if '.' not in each)
            raise UserError(
                f'--layer {name}: there is no such layer{did_you_mean(name, known)}; the upper ones are {upper}, and '
                '--list-layers names all that have maps'
            )


def module_of(name: str) -> str:
    """Return the layer of ``layer[number]``."""
    return re.sub(r'\[\d+]$', '', name)


@dataclass
class Output:
    """Hold what a layer gave for one image, and how that is a map."""

    tensor: Tensor
    as_map: Callable[[Tensor], Tensor]  # makes (C, h, w) of a tensor of its shape

    def array(self, tensor: Tensor | None = None) -> np.ndarray:
        """Return the output, or a gradient of its shape, as (C, h, w)."""
        return self.as_map(self.tensor if tensor is None else tensor).detach().float().cpu().numpy()


def outputs_of(seen: dict[str, list[Tensor]], names: Sequence[str], size: tuple[int, int]) -> dict[str, Output]:
    """Return the maps that layers gave, by name; with a number where a layer gave several.

    Args:
        seen (dict[str, list[Tensor]]): Of :func:`tapped`.
        names (Sequence[str]): ``layer``, for all of its outputs that are maps, or ``layer[number]``.
        size (tuple[int, int]): H, W of the network's input.

    Raises:
        UserError: If a layer gave no map over the input, or none of this number.
    """
    found = {}
    for name in names:
        layer = module_of(name)
        tensors = seen[layer]
        given = {layer if len(tensors) == 1 else f'{layer}[{index}]': each for index, each in enumerate(tensors)}
        if name != layer:
            given = {key: each for key, each in given.items() if key == name}
        if not given:
            raise UserError(f'--layer {name}: the layer gives {len(tensors)} maps in a run, and not this one')
        layouts = {key: layout(each.shape, size) for key, each in given.items()}
        if not any(layouts.values()):
            shapes = ', '.join(str(tuple(each.shape)) for each in given.values())
            raise UserError(
                f'--layer {name}: its output of shape {shapes} is no map over the picture: (1, C, h, w), '
                '(1, h, w, C) or (1, tokens, C) on a grid; --list-layers names those'
            )
        found |= {key: Output(given[key], as_map) for key, as_map in layouts.items() if as_map}
    return found


def layout(shape: Sequence[int], size: tuple[int, int]) -> Callable[[Tensor], Tensor] | None:
    """Return what makes (C, h, w) of a layer's output of this shape, or None where it is no map over the input.

    Args:
        shape (Sequence[int]): (1, C, h, w), (1, h, w, C), or (1, N, C) of tokens on a grid, perhaps after others.
        size (tuple[int, int]): H, W of the network's input.
    """
    grids = dict.fromkeys(tuple(-(-side // stride) for side in size) for stride in range(1, max(size)))
    if len(shape) == 4 and shape[0] == 1:
        if tuple(shape[2:]) not in grids and tuple(shape[1:3]) in grids:
            return lambda output: output[0].permute(2, 0, 1)
        return (lambda output: output[0]) if shape[2] * shape[3] > 1 else None
    if len(shape) == 3 and shape[0] == 1:
        for extra in _EXTRA_TOKENS:
            for grid in grids:
                if grid[0] * grid[1] == shape[1] - extra:
                    return lambda output: output[0, extra:].T.unflatten(1, grid)
    return None


def map_shapes(model: nn.Module, run: Callable[[], object], size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the layers that give maps over the input and the shapes of these, in the order in which they end.

    Args:
        model (nn.Module): The network.
        run (Callable): Runs it on one image.
        size (tuple[int, int]): H, W of its input.
    """
    shapes, handles = {}, []

    def note(name: str, layer: nn.Module, inputs: tuple, output: object) -> None:
        shapes.setdefault(name, []).extend(each.shape for each in _tensors_of(output))

    try:
        for name, layer in model.named_modules():
            if name:
                handles.append(layer.register_forward_hook(partial(note, name)))
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, given in shapes.items():
        for index, shape in enumerate(given):
            if as_map := layout(shape, size):
                key = name if len(given) == 1 else f'{name}[{index}]'
                found[key] = tuple(as_map(torch.empty(shape, device='meta')).shape)
    return found


# maps


def heat(method: str, activation: np.ndarray, gradient: np.ndarray | None) -> np.ndarray:
    """Return the map (h, w), 0 and above, of activations (C, h, w) by one of :data:`METHODS`.

    Args:
        method (str): 'activation' is the root mean square of the channels; 'eigencam' their first principal component;
            'gradcam' their sum, each weighted by its mean gradient; 'hirescam' the sum of their products with the
            gradient, place by place; 'layercam' the same of positive gradients alone.
        activation (np.ndarray): (C, h, w).
        gradient (np.ndarray | None): Of the same shape; for the last three.
    """
    if method == 'activation':
        found = np.sqrt(np.square(activation).mean(0))
    elif method == 'eigencam':
        found = _first_component(activation)
    else:
        import pytorch_grad_cam

        cam = getattr(pytorch_grad_cam, METHODS[method])(nn.Conv2d(1, 1, 1), [])  # its formula alone looks at no model
        found = cam.get_cam_image(None, None, None, activation[None], gradient[None], False)[0]
    return np.maximum(found, 0)


def _first_component(activation: np.ndarray) -> np.ndarray:
    """Return EigenCAM's map; that of grad-cam takes memory for the square of the number of places."""
    flat = activation.reshape(len(activation), -1).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    projection = np.linalg.eigh(flat @ flat.T)[1][:, -1] @ flat
    if -projection.min() > projection.max():  # the sign of a component is free
        projection = -projection
    return projection.reshape(activation.shape[1:])


def scaled(found: np.ndarray) -> np.ndarray:
    """Return a map as it is drawn: from 0, its least, to 1; all 0 where it says nothing."""
    found = found - found.min()
    return found / found.max() if found.max() > 0 else found


# places in the picture


def geometry(read: Callable[[np.ndarray], np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Return the 2x3 matrix from a picture's pixels x, y to those of the network's input, resized and cropped.

    Args:
        read (Callable): What is done to a picture (H, W, 3), uint8, but for its values; returns (h, w, 3).
        size (tuple[int, int]): H, W of the picture.
    """
    ramps = np.full((*size, 3), 255.0)  # whose values say where a pixel comes from
    ramps[..., 0] = np.linspace(0, 255, size[1])
    ramps[..., 1] = np.linspace(0, 255, size[0])[:, None]
    dither = np.random.default_rng(0).random((*size, 1))  # integers with the ramp as their mean
    seen = read(np.uint8(np.floor(ramps + dither)))
    rows, columns = np.nonzero(seen[..., 2] > 254)  # the rest is padding
    matrix = np.zeros((2, 3))
    for axis, places in enumerate((columns, rows)):
        values = seen[rows, columns, axis] * ((size[1 - axis] - 1) / 255)
        slope, offset = np.polyfit(places, values, 1)
        matrix[axis, [axis, 2]] = 1 / slope, -offset / slope
    return matrix


def over_picture(
    found: np.ndarray, inputs: tuple[int, int], matrix: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a map (h, w) of an input of H, W at the size of the picture, and which of the picture is in the input.

    Args:
        found (np.ndarray): The map.
        inputs (tuple[int, int]): H, W of the network's input.
        matrix (np.ndarray): Of :func:`geometry`.
        size (tuple[int, int]): H, W of the picture.
    """
    scale = np.array([found.shape[1] / inputs[1], found.shape[0] / inputs[0]])
    to_map = matrix * scale[:, None]
    to_map[:, 2] += scale / 2 - 0.5  # cells and pixels are squares about their centres
    large = cv2.warpAffine(
        found.astype(np.float32), to_map, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    x, y = (np.arange(side) * matrix[axis, axis] + matrix[axis, 2] for axis, side in enumerate(size[::-1]))
    visible = np.outer((y > -1) & (y < inputs[0]), (x > -1) & (x < inputs[1]))
    return large * visible, visible
