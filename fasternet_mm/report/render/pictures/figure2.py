"""The paper's figure 2: the speed of arithmetic, and the latency, over multiply-adds."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...schema import Report
from .style import INK, RED, colour_of, height_for, joined_caption, label_points, log_axis, new_figure, quoted_from
from .ways import Point, name_of, published_rows, ways

_Named = tuple[float, float, str]  # 10^9 multiply-adds, their number in a second or ms, and the network
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
    taken = [point for points in groups.values() for point in points]
    height = sum(2 * height_for(len(points)) for points in groups.values())
    figure = new_figure(height, joined_caption(taken, quoted_from('hollow squares', rows)))
    axes, drawn = figure.subplots(2 * len(groups), squeeze=False)[:, 0], []
    for (way, points), speeds, times in zip(groups.items(), axes[::2], axes[1::2]):
        here = [(_billions(p), p.m.latency_ms.p50 / p.m.batch_size, name_of(p.model)) for p in points]
        paper = [(row.gflops, row.cpu_ms, row.network) for row in rows]
        drawn += [[[(x, 1e3 * x / ms, name) for x, ms, name in of] for of in (here, paper)], [here, paper]]
        speeds.set_title(f'Speed of the arithmetic over multiply-adds\n{way}', fontsize=10)
        speeds.set_ylabel('10^9 multiply-adds a second')
        log_axis(times, [ms for _, ms, _ in (*here, *paper)], 'y')
        times.set_title(f'Latency over multiply-adds\n{way}', fontsize=10)
        times.set_ylabel('ms an image (p50, log scale)')
    for axis, (here, paper) in zip(axes, drawn):
        _draw(axis, here, paper)
    figure.draw_without_rendering()  # places the axes, for the labels go by pixels
    for axis, (here, paper) in zip(axes, drawn):
        names = {name for *_, name in here}
        absent = [p for p in paper if p[2] not in names]  # what only the paper has is named, too
        label_points(figure, axis, sorted(here + absent), [p for p in paper if p[2] in names])
    return figure


def _draw(axis: Axes, here: list[_Named], paper: list[_Named]) -> None:
    """Draw what was measured as circles, and what is quoted as hollow squares, with a line through the FasterNets."""
    handles = []
    for marker, dashes, label, points in (('s', ':', _PAPER, paper), ('o', '-', 'measured here', here)):
        hollow = dict(markerfacecolor='white') if marker == 's' else {}
        ours = sorted(p for p in points if colour_of(p[2]) == RED)
        axis.plot([p[0] for p in ours], [p[1] for p in ours], dashes, color=RED, linewidth=1.1, zorder=2)
        for x, y, name in points:
            axis.plot(x, y, marker, color=colour_of(name), markersize=4.5 if hollow else 6, zorder=3, **hollow)
        if points:
            handles.append(Line2D([], [], linestyle='', marker=marker, color=INK, label=label, **hollow))
    log_axis(axis, [p[0] for p in (*here, *paper)])
    axis.grid()
    axis.set_xlabel('10^9 multiply-adds an image (log scale)')
    axis.legend(handles=handles, loc='upper left', handletextpad=0.1)


def _billions(point: Point) -> float | None:
    """Return the multiply-adds of an image, if they were counted at the size that was timed."""
    counted = point.model.multiply_adds
    return counted.total / 1e9 if counted and counted.shape == point.m.shape else None
