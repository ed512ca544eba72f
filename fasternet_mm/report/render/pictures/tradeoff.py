"""The paper's figures 7 and 8: accuracy over latency and over throughput, a panel for each device."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...schema import Published, Report
from ..tables import measured_accuracy
from .style import (
    INK,
    QUOTED,
    RED,
    colour_of,
    height_for,
    joined_caption,
    label_points,
    log_axis,
    new_figure,
    quoted_from,
)
from .ways import Point, name_of, published_rows, ways


class _Panel(NamedTuple):
    title: str
    latency: bool  # or throughput
    points: list[tuple[float, float, str, bool]]  # ms or images a second, top-1, name, and whether top-1 is quoted
    marker: str = 'o'  # a square where both are quoted


_PAPER: dict[str, tuple[bool, Callable[[Published], float | None]]] = {
    'RTX 2080 Ti, batch 32': (False, lambda row: row.gpu_fps),
    'i9-9900X, 1 thread, batch 1': (True, lambda row: row.cpu_ms),
    'Cortex-A72, 1 thread, batch 1': (True, lambda row: row.arm_ms),
}


def figure8(reports: Sequence[Report], with_paper: bool = False) -> Figure | None:
    """Draw top-1 over latency and over throughput, for each device and way of running."""
    return _figure(reports, with_paper, near=False)


def figure7(reports: Sequence[Report], with_paper: bool = False) -> Figure | None:
    """Draw what is no slower than the slowest FasterNet, and about as accurate; None where that is all of figure 8."""
    return _figure(reports, with_paper, near=True)


def _figure(reports: Sequence[Report], with_paper: bool, near: bool) -> Figure | None:
    groups, rows = ways(reports), published_rows(reports)
    shown, panels = [], []
    for way, points in groups.items():
        sizes = sorted({point.m.batch_size for point in points})
        for size in dict.fromkeys((sizes[0], sizes[-1])):
            alike = [point for point in points if point.m.batch_size == size]
            latency = size == sizes[0]
            panel = _Panel(f'{way}, batch {size}', latency, _valued(alike, latency))
            if len(panel.points) > 1:
                panels.append(panel)
                shown += alike
    if not panels:
        return None
    if with_paper:
        panels += [panel for panel in _quoted(rows) if panel.points]
    if near:
        cut = [_near(panel) for panel in panels]
        left_out = any(len(a.points) < len(b.points) for a, b in zip(cut, panels))
        panels = [panel for panel in cut if len(panel.points) > 1]
        if not left_out or not panels:
            return None
    names = {name for panel in panels for _, _, name, quoted in panel.points if quoted}
    quoted = [row for row in rows if row.network in names]
    what = 'top-1, and all that squares show' if with_paper else 'top-1'
    caption = joined_caption(shown, quoted_from(what, quoted))
    figure = new_figure(sum(height_for(len(panel.points)) for panel in panels), caption)
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axis, panel in zip(axes, panels):
        _draw(axis, panel)
    figure.draw_without_rendering()  # places the axes, for the labels go by pixels
    for axis, panel in zip(axes, panels):
        label_points(figure, axis, panel.points)
    return figure


def _valued(points: list[Point], latency: bool) -> list[tuple[float, float, str, bool]]:
    found = []
    for _, model, m in points:
        top1 = measured_accuracy(model, m.evaluation or model.evaluation, 'top-1')
        quoted = top1 is None
        top1 = getattr(model.published, 'top1', None) if quoted else top1
        if top1 is not None:
            found.append((m.latency_ms.p50 if latency else m.throughput, top1, name_of(model), quoted))
    return sorted(found)


def _quoted(rows: list[Published]) -> list[_Panel]:
    panels = []
    for device, (latency, value) in _PAPER.items():
        points = sorted((value(row), row.top1, row.network, True) for row in rows if value(row) and row.top1)
        panels.append(_Panel(f'the paper, quoted: {device}', latency, points, 's'))
    return panels


def _near(panel: _Panel) -> _Panel:
    ours = [p for p in panel.points if colour_of(p[2]) == RED]
    if not ours:
        return panel
    lowest, ends = min(p[1] for p in ours) - 1, [p[0] for p in ours]
    low, high = (0, max(ends)) if panel.latency else (min(ends), float('inf'))
    return panel._replace(points=[p for p in panel.points if p[1] >= lowest and low <= p[0] <= high])


def _draw(axis: Axes, panel: _Panel) -> None:
    ours = [p for p in panel.points if colour_of(p[2]) == RED]
    axis.plot([p[0] for p in ours], [p[1] for p in ours], color=RED, linewidth=1.2, zorder=2)
    for x, y, name, quoted in panel.points:
        colour = colour_of(name)
        axis.plot(x, y, panel.marker, color=colour, markerfacecolor='white' if quoted else colour, markersize=6)
    log_axis(axis, [p[0] for p in panel.points])
    axis.margins(y=0.15)
    axis.grid()
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel('p50 latency, ms (log scale)' if panel.latency else 'images a second (log scale)')
    axis.set_ylabel('top-1 (%)')
    texts = {True: f'top-1 {QUOTED}', False: 'top-1 evaluated here'}
    style = dict(linestyle='', marker=panel.marker, color=INK)
    handles = [
        Line2D([], [], markerfacecolor='white' if quoted else INK, label=texts[quoted], **style)
        for quoted in sorted({p[3] for p in panel.points})
    ]
    axis.legend(handles=handles, loc='lower right' if panel.latency else 'lower left', handletextpad=0.1)
