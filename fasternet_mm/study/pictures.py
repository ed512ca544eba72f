"""Pictures of a study."""

import io
import math
import textwrap
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from torch import Tensor

from ..report.render.pictures.style import (
    BLUE,
    BROWN,
    GREEN,
    GREY,
    INK,
    PURPLE,
    RED,
    STYLE,
    YELLOW,
    new_figure,
)
from .schema import Study
from .substitutes import BEST, DWCONV, GCONV, PCONV, PWCONV, TSHAPED

_COLOURS = {DWCONV: BLUE, GCONV: GREEN, PCONV: RED, BEST: BROWN, PWCONV: GREY, TSHAPED: PURPLE}
_STAGES = (BLUE, GREEN, YELLOW, RED)


def png(draw: Callable[[], Figure]) -> bytes:
    """Return what `draw` draws in the style of the report's pictures, as a PNG file."""
    with matplotlib.rc_context(STYLE):
        file = io.BytesIO()
        draw().savefig(file, format='png')
        return file.getvalue()


def caption_of(study: Study, labels: list[str] = []) -> str:
    """Return what a picture rests on: the model, device, versions, date, images and labels."""
    machine, packages = study.environment, study.environment.packages
    device = getattr(study.result, 'device', 'cpu')
    facts = [study.model, f'weights {study.checkpoint}' if study.checkpoint else '']
    facts += [f'{study.images.number} pictures of {study.images.folder}' if study.images else '']
    facts += [machine.gpu.name if machine.gpu and device != 'cpu' else machine.host.cpu, f'{machine.threads} threads']
    facts += [f'torch {packages.get("torch", "of unknown version")}', study.created[:10]]
    lines = ['; '.join(filter(None, facts)), *study.labels, *dict.fromkeys(labels)]
    return '\n'.join('\n'.join(textwrap.wrap(line, 128)) for line in lines)


def approximation_pictures(study: Study) -> dict[str, bytes]:
    """Draw a study of substitutes: errors over latency and multiply-adds, and the course of the training."""
    files = {'approximation.png': png(lambda: _errors(study))}
    if any(one.curve for layer in study.result.layers for one in layer.substitutes):
        files['training.png'] = png(lambda: _training(study))
    return files


def _errors(study: Study) -> Figure:
    layers = study.result.layers
    labels = [f'{layer.name}: {label}' for layer in layers for label in layer.labels]
    figure = new_figure(2.7 * len(layers) + 0.6, caption_of(study, labels))
    axes = figure.subplots(len(layers), 2, squeeze=False)
    used = {}
    for (left, right), layer in zip(axes, layers):
        for axis, cost in (
            (left, lambda one: one.latency_ms.p50),
            (right, lambda one: one.multiply_adds / 1e6),
        ):
            for one in layer.substitutes:
                used[one.name] = colour = _COLOURS[one.name]
                for fit, filled in ((one.optimum, True), (one.trained, False)):
                    if fit:
                        low, high = fit.interval
                        axis.plot([cost(one)] * 2, [low, high], color=colour, linewidth=1, alpha=0.6)
                        face = colour if filled else 'white'
                        axis.plot(cost(one), fit.test_error, 'o', color=colour, markerfacecolor=face, zorder=3)
            axis.axvline(cost(layer), color=INK, linewidth=0.8, linestyle=':')
            axis.grid()
            axis.set_ylim(bottom=0)
        left.set_title(f'{layer.name}: {layer.channels[0]} channels, {layer.size[0]} x {layer.size[1]}', fontsize=10)
        left.set_ylabel('test error over the variance')
    left.set_xlabel('p50 latency, ms; dotted: the convolution itself')
    right.set_xlabel('multiply-adds, millions')
    handles = [Line2D([], [], marker='o', linestyle='', color=colour, label=name) for name, colour in used.items()]
    handles += [
        Line2D([], [], marker='o', linestyle='', color=INK, markerfacecolor=face, label=text)
        for face, text in ((INK, 'least squares'), ('white', 'trained by Adam'))
    ]
    figure.legend(handles=handles, loc='outside upper left', ncols=4)
    return figure


def _training(study: Study) -> Figure:
    layers = study.result.layers
    columns = min(2, len(layers))
    rows = math.ceil(len(layers) / columns)
    figure = new_figure(2.9 * rows + 0.6, caption_of(study))
    axes, used = figure.subplots(rows, columns, squeeze=False).flatten(), {}
    for axis, layer in zip(axes, layers):
        for one in layer.substitutes:
            if one.curve:
                used[one.name] = colour = _COLOURS[one.name]
                axis.plot(one.curve.steps, one.curve.errors, 'o-', color=colour, markersize=3, linewidth=1.2)
        axis.set(xscale='log', yscale='log')
        axis.grid()
        axis.set_title(layer.name, fontsize=10)
        axis.set_xlabel('steps of Adam')
        axis.set_ylabel('validation error over the variance')
    for axis in axes[len(layers) :]:
        axis.remove()
    handles = [Line2D([], [], color=colour, label=name) for name, colour in used.items()]
    figure.legend(handles=handles, loc='outside upper left', ncols=3)
    return figure


def salient_pictures(study: Study) -> dict[str, bytes]:
    """Draw the histogram of salient positions by stage, with the level of chance."""
    return {'salient.png': png(lambda: _salient(study))}


def _salient(study: Study) -> Figure:
    stages = study.result.stages
    figure = new_figure(3.6, caption_of(study))
    axis = figure.subplots()
    width = 0.8 / len(stages)
    for number, (stage, colour) in enumerate(zip(stages, _STAGES)):
        shares = [100 * count / stage.filters for count in stage.counts]
        places = [1 + place + (number - (len(stages) - 1) / 2) * width for place in range(9)]
        axis.bar(places, shares, width, color=colour, label=f'{stage.name} ({stage.filters} filters)')
    axis.axhline(100 / 9, color=INK, linewidth=1, linestyle='--', label='chance')
    axis.set_xticks(range(1, 10))
    axis.grid(axis='y')
    axis.set_title('Where 3x3 filters are largest')
    axis.set_xlabel('salient position: 1 top left, row by row, 5 the centre, 9 bottom right')
    axis.set_ylabel('filters, %')
    axis.legend()
    return figure


def redundancy_pictures(study: Study, picture: Image.Image, maps: dict[str, Tensor]) -> dict[str, bytes]:
    """Draw a grid of feature maps for each layer, after the image.

    Args:
        study (Study): Of redundancy.
        picture (Image.Image): As the network saw it.
        maps (dict[str, Tensor]): By layer, (n, H, W).
    """
    return {
        f'maps_{number}.png': png(lambda name=name: _maps(study, picture, name, maps[name]))
        for number, name in enumerate(maps, 1)
    }


def _maps(study: Study, picture: Image.Image, name: str, maps: Tensor) -> Figure:
    side, colour = 112, matplotlib.colormaps['viridis']
    tiles = [np.asarray(picture.resize((side, side)))]
    for one in maps.numpy():
        spread = np.ptp(one) or 1
        pixels = np.uint8(255 * colour((one - one.min()) / spread)[..., :3])
        tiles.append(np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)))
    columns, gap = 8, 4
    rows = math.ceil(len(tiles) / columns)
    grid = np.full((rows * (side + gap), columns * (side + gap), 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (place * (side + gap) for place in divmod(number, columns))
        grid[top : top + side, left : left + side] = tile
    told = f'the picture, and the first maps that {name} sees, each from its least value (dark) to its largest'
    figure = new_figure(9 * rows / columns, caption_of(study, [told]))
    axis = figure.subplots()
    axis.imshow(grid)
    axis.axis('off')
    return figure
