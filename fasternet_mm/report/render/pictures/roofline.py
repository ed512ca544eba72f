"""A backbone's layers under the machine's roofs."""

import math
from collections import Counter
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...schema import Layer, Model, Report, Roofline
from ..tables import device_name
from .style import GREY, INK, KIND_COLOURS, caption_of, new_figure, si

_FORMS = {'PConv slicing': 's', 'PConv in place': '^'}


def roofline(report: Report) -> Figure | None:
    """Draw the first roofline: achieved arithmetic over arithmetic intensity, layer by layer, or of all stacks."""
    model = next((model for model in report.models if model.rooflines), None)
    if model and model.kind == 'operator':
        return _stacks(report, [model for model in report.models if model.kind == 'operator' and model.rooflines])
    roofline = model and model.rooflines[0]
    drawn = [layer for layer in roofline.layers if layer.gflops and layer.flops_per_byte] if model else []
    if not drawn:
        return None
    figure = new_figure(5, caption_of(report, [(model, model.labels)], [roofline]))
    axis = figure.subplots()
    longest = max(layer.ms for layer in drawn)
    for layer in sorted(drawn, key=lambda layer: -layer.ms):  # small ones on top
        style = dict(color=KIND_COLOURS.get(layer.kind, GREY), alpha=0.6, edgecolor='white', linewidth=0.6, zorder=3)
        axis.scatter(layer.flops_per_byte, layer.gflops, max(6, 600 * layer.ms / longest), **style)
    _draw_roofs(axis, roofline, drawn)
    shares = Counter()
    for layer in roofline.layers:
        shares[layer.kind] += layer.ms / sum(layer.ms for layer in roofline.layers)
    handles = []
    for kind, share in shares.most_common():
        absent = '' if any(layer.kind == kind for layer in drawn) else '\n(no FLOP, not drawn)'
        style = dict(marker='o', markersize=7, linestyle='', color=KIND_COLOURS.get(kind, GREY))
        handles.append(Line2D([], [], label=f'{kind}  {100 * share:.1f} %{absent}', **style))
    figure.legend(handles=handles, title='share of the time', loc='outside right upper', alignment='left')
    where = f'{device_name(report, roofline.device)}, {roofline.dtype}'
    axis.set_title(f'Roofline of {model.name}, {where}')
    axis.set_xlabel('FLOP per byte; the area of a marker is its share of the time')
    axis.set_ylabel('GFLOP/s')
    return figure


def _draw_roofs(axis: Axes, roofline: Roofline, drawn: list[Layer]) -> None:
    """Draw what the machine reaches in a large product and in a copy, on axes that hold all layers."""
    peak, copy = roofline.matmul_gflops, roofline.copy_gb_per_s
    ridge = peak / copy
    intensities, speeds = [layer.flops_per_byte for layer in drawn], [layer.gflops for layer in drawn]
    low, high = min(ridge, *intensities) / 2, max(ridge, *intensities) * 4
    axis.plot([low, ridge, high], [copy * low, peak, peak], color=INK, linewidth=1.4, zorder=2)
    axis.grid()
    axis.set(xscale='log', yscale='log', xlim=(low, high))
    axis.set_ylim(min(copy * low, *speeds) / 2, max(peak, *speeds) * 2.5)
    style = dict(fontsize=8, color=INK, textcoords='offset points', ha='right')
    axis.annotate(f'matrix product {si(peak * 1e9)}FLOP/s', (high, peak), (-4, 4), **style)
    middle = math.sqrt(low * ridge)
    axis.annotate(f'copy {si(copy * 1e9)}B/s', (middle, copy * middle), (-6, 5), in_layout=False, **style)


def _stacks(report: Report, models: list[Model]) -> Figure | None:
    """Draw stacks of equal layers, at the smallest batch, by the whole stack's time."""
    first, points = models[0].rooflines[0], []
    for model in models:
        for one in model.rooflines:
            layers = [layer for layer in one.layers if layer.flops_per_byte]
            if layers and (one.dtype, one.batch_size) == (first.dtype, first.batch_size):
                operations = sum(layer.gflops * layer.ms for layer in layers)
                whole = sum(layer.ms for layer in one.layers)
                points.append((model, replace(layers[0], gflops=operations / whole)))
    if not points:
        return None
    figure = new_figure(5, caption_of(report, [(model, model.labels) for model, _ in points], [first]))
    axis, handles = figure.subplots(), {}
    for model, layer in points:
        marker = _FORMS.get(model.operator, 'o')
        style = dict(color=KIND_COLOURS.get(layer.kind, GREY), marker=marker, markersize=7, linestyle='')
        axis.plot(layer.flops_per_byte, layer.gflops, alpha=0.75, zorder=3, **style)
        handles[model.operator] = Line2D([], [], label=model.operator, **style)
    _draw_roofs(axis, first, [layer for _, layer in points])
    figure.legend(handles=handles.values(), loc='outside right upper', alignment='left')
    axis.set_title(f'Operators, eager, {device_name(report, first.device)}, {first.dtype}, batch {first.batch_size}')
    axis.set_xlabel('FLOP per byte, each read or written once; a marker is a stack of ten layers')
    axis.set_ylabel('GFLOP/s')
    return figure
