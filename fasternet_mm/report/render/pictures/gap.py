"""How far each network is from the time that its arithmetic alone would take, and where the gap comes from."""

from collections import Counter
from collections.abc import Sequence
from string import ascii_lowercase
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ...schema import Measurement, Model, Report, Roofline
from ..tables import device_name, number
from .style import GREY, INK, KIND_COLOURS, MODE_COLOURS, joined_caption, log_axis, new_figure

# what FasterNet's own kinds of layers are, as operators
_OPERATORS = dict(stem='Conv', merging='Conv', BN='norm')
_ORDER = ('Conv', 'PConv', 'PWConv', 'linear', 'GConv', 'DWConv', 'attention', 'norm', 'activation')
_IDEAL = '#ced4da'


class _Row(NamedTuple):
    report: Report
    model: Model
    roofline: Roofline
    timed: list[Measurement]
    ideal_ms: float


def efficiency_gap(reports: Sequence[Report]) -> Figure | None:
    """Draw ideal and real times of all networks whose layers were timed, and the gap by kind of operator.

    The ideal time is that of the multiply-adds at the speed of a large matrix product on the same machine. The idea is
    from Lavin, "On the Efficiency of Convolutional Neural Networks" (arXiv 2404.03617), whose plots join the two
    latencies of a network by a line; the kinds of operators are added here.
    """
    rows = [_row(report, model) for report in reports for model in report.models if model.rooflines]
    rows.sort(key=lambda row: row.ideal_ms)
    if len(rows) < 2:  # of one network roofline.png says more
        return None
    taken = [(row.report, row.model, m) for row in rows for m in (row.roofline, *row.timed)]
    peaks = ' and '.join(dict.fromkeys(f'{number(row.roofline.matmul_gflops)} GFLOP/s' for row in rows))
    forms = ' and '.join(dict.fromkeys(row.roofline.mode for row in rows))
    said = f'ideal: the multiply-adds at the speed of a large matrix product, {peaks}; layers were timed {forms}'
    letters = dict(zip(dict.fromkeys(map(_device, rows)), ascii_lowercase))
    where = '; '.join(f'{letter}: {device}' for device, letter in letters.items())
    figure = new_figure(0.3 * len(rows) + 1.7, joined_caption(taken, [said, *([where] if len(letters) > 1 else [])]))
    left, right = figure.subplots(1, 2, sharey=True)
    _times(left, rows)
    _shares(right, rows)
    names = [row.model.name + (f' ({letters[_device(row)]})' if len(letters) > 1 else '') for row in rows]
    left.set_yticks(range(len(rows)), names)
    left.set_ylim(len(rows) - 0.4, -0.6)
    for axis in (left, right):
        axis.grid(axis='x')
        axis.tick_params(axis='y', length=0)
    modes = dict.fromkeys(m.mode for row in rows for m in row.timed)
    handles = [Line2D([], [], linestyle='', marker='|', markersize=9, color=INK, label='ideal time')]
    handles += [Line2D([], [], linestyle='', marker='o', color=MODE_COLOURS[mode], label=mode) for mode in modes]
    found = {kind for row in rows for kind in _gap(row.roofline)}
    kinds = [kind for kind in _ORDER if kind in found] + sorted(found - {*_ORDER})
    handles += [Patch(color=_IDEAL, label='ideal share'), *(Patch(color=_colour(kind), label=kind) for kind in kinds)]
    figure.legend(handles=handles, loc='outside upper left', ncols=9, columnspacing=1, handletextpad=0.3)
    return figure


def _device(row: _Row) -> str:
    return device_name(row.report, row.roofline.device)


def _row(report: Report, model: Model) -> _Row:
    """Take a model's first roofline, and what was timed of the same part, dtype and batch size."""
    roofline, counted = model.rooflines[0], model.multiply_adds
    alike = [m for m in model.measurements if (m.dtype, m.batch_size) == (roofline.dtype, roofline.batch_size)]
    alike = [m for m in alike if m.latency_ms]
    for scope in ('backbone', model.kind):
        timed = [m for m in alike if m.scope == scope]
        macs = counted and (counted.parts.get('backbone') if scope == 'backbone' else counted.total)
        if timed and macs and counted.shape == timed[0].shape:
            return _Row(report, model, roofline, timed, 2 * macs * roofline.batch_size / roofline.matmul_gflops / 1e6)
    return _Row(report, model, roofline, [], roofline.arithmetic_floor_ms)


def _times(axis: Axes, rows: list[_Row]) -> None:
    for y, row in enumerate(rows):
        times = {m.mode: m.latency_ms.p50 for m in row.timed}
        axis.plot([row.ideal_ms, max([row.ideal_ms, *times.values()])], [y, y], color=_IDEAL, linewidth=2, zorder=2)
        axis.plot(row.ideal_ms, y, '|', color=INK, markersize=10, zorder=3)
        for mode, ms in times.items():
            axis.plot(ms, y, 'o', color=MODE_COLOURS[mode], markersize=5, zorder=3)
    log_axis(axis, [ms for row in rows for ms in (row.ideal_ms, *(m.latency_ms.p50 for m in row.timed))], dense=False)
    axis.set_title('From the ideal to the real time')
    axis.set_xlabel('ms (log scale)')


def _shares(axis: Axes, rows: list[_Row]) -> None:
    for y, row in enumerate(rows):
        layers = row.roofline.layers
        total, gap = sum(layer.ms for layer in layers), _gap(row.roofline)
        ideal, left = total - sum(gap.values()), 0.0
        for ms, colour in [(ideal, _IDEAL), *((ms, _colour(kind)) for kind, ms in gap.items())]:
            axis.barh(y, 100 * ms / total, 0.7, left, color=colour, edgecolor='white', linewidth=0.6)
            left += 100 * ms / total
        axis.text(1, y, f'{100 * ideal / total:.0f} %', va='center', fontsize=7.5, color=INK)
        axis.text(101, y, f'{number(total)} ms', va='center', fontsize=7.5, color=INK)
    axis.set_xlim(0, 100)
    axis.set_title('Where the gap is: layers timed one by one')
    axis.set_xlabel('share of the time, %')


def _gap(roofline: Roofline) -> dict[str, float]:
    """Return the milliseconds above the ideal by kind of operator, in the order of the legend."""
    found = Counter()
    for layer in roofline.layers:
        ideal = layer.gflops * layer.ms / roofline.matmul_gflops
        found[_OPERATORS.get(layer.kind, layer.kind)] += max(layer.ms - ideal, 0.0)
    return {kind: found[kind] for kind in [*_ORDER, *sorted(found.keys() - {*_ORDER})] if kind in found}


def _colour(kind: str) -> str:
    return KIND_COLOURS.get(kind, GREY)
