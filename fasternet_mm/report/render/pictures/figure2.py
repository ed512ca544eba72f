"""The paper's figure 2: the speed of arithmetic, and the latency, over multiply-adds."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...schema import Report
from .style import INK, RED, colour_of, joined_caption, label_points, log_axis, new_figure, quoted_from
from .ways import Point, published_rows, ways

_PAPER = 'the paper: i9-9900X, 1 thread (quoted)'


def figure2(reports: Sequence[Report]) -> Figure | None:
    """Draw both of its parts for each device and way of running, at the smallest batch; the paper's points hollow."""
    groups = {}
    for way, points in ways(reports).items():
        least = min(point.m.batch_size for point in points)
        alike = [point for point in points if point.m.batch_size == least and _billions(point)]
        if len(alike) > 1:
            groups[way] = alike
    if not groups:
        return None
    rows = [row for row in published_rows(reports) if row.gflops and row.cpu_ms]
    quoted = [(row.gflops, row.cpu_ms, row.network) for row in rows]
    caption = joined_caption(
        [point for points in groups.values() for point in points], quoted_from('hollow squares', rows)
    )
    figure = new_figure(9.8 * len(groups), caption)
    axes = iter(figure.subplots(2 * len(groups), squeeze=False)[:, 0])
    for way, points in groups.items():
        here = [(_billions(p), p.m.latency_ms.p50 / p.m.batch_size, p.model.name) for p in points]
        for part, unit, value in (
            ('Speed of the arithmetic', '10^9 multiply-adds a second', lambda x, ms: 1e3 * x / ms),
            ('Latency', 'ms an image (p50, log scale)', lambda x, ms: ms),
        ):
            axis = next(axes)
            solid = sorted((x, value(x, ms), name) for x, ms, name in here)
            hollow = sorted((x, value(x, ms), name) for x, ms, name in quoted)
            for marker, dashes, drawn in (('s', ':', hollow), ('o', '-', solid)):
                ours = [p for p in drawn if colour_of(p[2]) == RED]
                axis.plot([p[0] for p in ours], [p[1] for p in ours], dashes, color=RED, linewidth=1.1, zorder=2)
                for x, y, name in drawn:
                    colour = colour_of(name)
                    style = dict(color=colour, markerfacecolor='white') if marker == 's' else dict(color=colour)
                    axis.plot(x, y, marker, markersize=6 if marker == 'o' else 4.5, zorder=3, **style)
            log_axis(axis, [p[0] for p in (*solid, *hollow)])
            if part == 'Latency':
                log_axis(axis, [p[1] for p in (*solid, *hollow)], 'y')
            axis.grid()
            axis.set_title(f'{part} over multiply-adds\n{way}', fontsize=10)
            axis.set_xlabel('10^9 multiply-adds an image (log scale)')
            axis.set_ylabel(unit)
            measured = Line2D([], [], linestyle='', marker='o', color=INK, label='measured here')
            paper = Line2D([], [], linestyle='', marker='s', color=INK, markerfacecolor='white', label=_PAPER)
            handles = [measured, *([paper] if hollow else [])]
            axis.legend(handles=handles, loc='upper left', handletextpad=0.1)
            figure.draw_without_rendering()  # places the axes, for the labels go by pixels
            names = {name for *_, name in solid}
            absent = [p for p in hollow if p[2] not in names]  # what only the paper has is named, too
            label_points(figure, axis, [*solid, *absent], [p for p in hollow if p[2] in names])
    return figure


def _billions(point: Point) -> float | None:
    """Return the multiply-adds of an image, if they were counted at the size that was timed."""
    counted = point.model.multiply_adds
    return counted.total / 1e9 if counted and counted.shape == point.m.shape else None
