"""What all pictures share: colours, the caption that says what the numbers rest on, and names beside points."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from ...schema import MODES, Measurement, Model, Published, Report, Roofline
from ..tables import device_name, number

RED, BLUE, GREEN, YELLOW = '#d1350f', '#3b6fb6', '#2b9a66', '#e8a33d'
PURPLE, PINK, BROWN, GREY, INK = '#8e59b5', '#d66ba0', '#7a5230', '#868e96', '#343a40'
MODE_COLOURS = dict(zip(MODES, (BLUE, GREEN, RED, BROWN, PURPLE, GREY, GREY, YELLOW, PINK), strict=True))
KIND_COLOURS = dict(
    PConv=RED, PWConv=BLUE, merging=GREEN, stem=YELLOW, BN=PURPLE, activation=PINK, linear=BROWN, Conv=GREEN,
    DWConv=YELLOW, GConv='#c2a83e', attention='#1098ad', norm=PURPLE,
)  # fmt: skip
_WIDTH, _LINE = 9.0, 0.148  # of a picture in inches, and of a line of its caption
STYLE = {
    **{f'axes.spines.{side}': False for side in ('top', 'right')},
    **{'axes.axisbelow': True, 'axes.labelsize': 9, 'axes.titlesize': 11, 'axes.titlelocation': 'left'},
    **{'grid.color': '#dee2e6', 'grid.linewidth': 0.6, 'xtick.labelsize': 8, 'ytick.labelsize': 8},
    **{'legend.fontsize': 8, 'legend.title_fontsize': 8, 'legend.frameon': False, 'savefig.dpi': 120},
}
QUOTED = 'quoted, not measured'


def caption_of(
    report: Report,
    shown: list[tuple[Model, list[str]]],
    taken: list[Measurement | Roofline],
    quoted: Sequence[str] = (),
) -> str:
    """Say what the numbers of a picture rest on: the measurements if there are any, the models and all labels.

    Args:
        report (Report): The run.
        shown (list): Models, each with its labels.
        taken (list): What was measured.
        quoted (Sequence[str]): What was quoted, see :func:`quoted_from`.
    """
    return _wrapped([*_facts(report, taken), *_labels(shown), *quoted])


def joined_caption(points: Sequence[tuple[Report, Model, Measurement | Roofline]], quoted: Sequence[str] = ()) -> str:
    """Say the same of several runs: a line for each, the labels of all, and that runs were not measured in turn."""
    runs = {}
    for report, _, m in points:
        runs.setdefault(id(report), (report, []))[1].append(m)
    lines = list(dict.fromkeys(fact for report, taken in runs.values() for fact in _facts(report, taken)))
    shown = []
    for _, model, m in points:
        done = getattr(m, 'evaluation', None) or model.evaluation
        shown.append((model, model.labels + getattr(m, 'labels', []) + (done.labels if done else [])))
    lines += _labels(shown)
    lines += [f'{len(runs)} runs, which were not measured side by side'] if len(runs) > 1 else []
    return _wrapped([*lines, *quoted])


def _facts(report: Report, taken: Sequence[Measurement | Roofline]) -> list[str]:
    facts = [
        ' and '.join(dict.fromkeys(device_name(report, m.device) for m in taken)),
        ', '.join(dict.fromkeys(m.dtype for m in taken)),
        'batch ' + ', '.join(map(str, dict.fromkeys(m.batch_size for m in taken))) if taken else '',
        f'torch {report.environment.before.packages.get("torch", "of unknown version")}',
        report.created[:10],
    ]
    lines = [] if report.complete else ['INCOMPLETE: the run had not ended.']
    return [*lines, '; '.join(filter(None, facts))]


def _labels(shown: list[tuple[Model, list[str]]]) -> list[str]:
    """Return each label, with the models that have it where not all do."""
    everybody, names, lines = {model.name for model, _ in shown}, {}, []
    for model, labels in shown:
        for label in labels:
            names.setdefault(label, {})[model.name] = None
    for label, of in names.items():
        lines.append(label if set(of) == everybody else f'{label} ({_some(list(of), 4)})')
    return lines


def _some(texts: Sequence[str], most: int) -> str:
    return ', '.join(texts[:most]) + (f' and {len(texts) - most} more' if len(texts) > most else '')


def _wrapped(lines: list[str]) -> str:
    return '\n'.join('\n'.join(textwrap.wrap(line, 128)) for line in lines)


def quoted_from(what: str, rows: Sequence[Published | None]) -> list[str]:
    """Say where quoted figures are from, and what there is to know of them; nothing where there are none."""
    rows, notes = [row for row in rows if row and row.source], {}
    for row in rows:
        if row.note:
            notes.setdefault(row.note, []).append(row.network or row.backbone)
    sources = list(dict.fromkeys(row.source for row in rows))
    lines = [f'{what}: quoted from {_some(sources, 2)}, not measured here'] if rows else []
    return lines + [f'quoted: {note} ({_some(names, 8)})' for note, names in notes.items()]


def new_figure(height: float, caption: str) -> Figure:
    """Return a figure that has `height` inches for its axes, and its caption below them."""
    below = (caption.count('\n') + 1) * _LINE + 0.15
    figure = Figure(figsize=(_WIDTH, height + below), layout='constrained', facecolor='white')
    FigureCanvasAgg(figure)
    share = below / (height + below)
    figure.get_layout_engine().set(rect=(0, share, 1, 1 - share), w_pad=0.1, h_pad=0.08)
    figure.text(0.012, 0.06 / (height + below), caption, fontsize=7.5, color=INK, va='bottom', linespacing=1.4)
    return figure


def height_for(points: int) -> float:
    """Return the inches that an axis needs for the names beside so many points."""
    return 3.6 + 0.06 * points


def colour_of(name: str, other: str = GREY) -> str:
    """Return red for a FasterNet."""
    return RED if 'fasternet' in name.lower() else other


def log_axis(axis: Axes, values: Sequence[float], which: str = 'x', dense: bool = True) -> None:
    """Make an axis logarithmic, with plain numbers, and wide enough for the names beside the values."""
    one = getattr(axis, f'{which}axis')
    getattr(axis, f'set_{which}scale')('log')
    one.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if dense else (1, 2, 5)))
    one.set_major_formatter(StrMethodFormatter('{x:g}'))
    one.set_minor_formatter(NullFormatter())
    getattr(axis, f'set_{which}lim')(min(values) / 1.3, max(values) * 1.3)


def label_points(figure: Figure, axis: Axes, points: list[tuple], others: Sequence[tuple] = ()) -> None:
    """Name each point (x, y, name, ...) where its name covers the least of other names, points, and `others`."""
    dots = axis.transData.transform([p[:2] for p in (*points, *others)])
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in dots]
    frame, renderer = axis.get_window_extent(), figure.canvas.get_renderer()
    places = [
        (side * across, up, {1: 'left', 0: 'center', -1: 'right'}[side])
        for across, up in ((7, 5), (7, -5), (0, 11), (0, -11), (12, 16), (12, -16), (18, 28), (18, -28), (30, 42))
        for side in ((1, -1) if across else (0,))
    ]
    leader = dict(arrowstyle='-', color='#ced4da', linewidth=0.6, shrinkA=0, shrinkB=3)
    for index, (x, y, name, *_) in enumerate(points):
        style = dict(textcoords='offset points', va='center', fontsize=7.5, color=colour_of(name, INK), in_layout=False)
        tried = []
        for dx, dy, align in places:
            dy = dy if index % 2 else -dy  # first above one point, first below the next
            arrow = leader if abs(dx) > 7 else None
            text = axis.annotate(name, (x, y), (dx, dy), ha=align, arrowprops=arrow, zorder=4, **style)
            text.update_positions(renderer)
            box = Bbox(Text.get_window_extent(text, renderer).get_points())  # without its arrow
            cost = sum(_area(Bbox.intersection(box, other)) for other in taken)
            tried.append((cost + _area(box) - _area(Bbox.intersection(box, frame)), len(tried), text, box))
            if not tried[-1][0]:
                break
        best = min(tried)
        for one in tried:
            if one is not best:
                one[2].remove()
        taken.append(best[3].padded(4, 0))


def _area(box: Bbox | None) -> float:
    return box.width * box.height if box else 0


def si(value: float) -> str:
    """Return a number with a prefix for the unit that follows."""
    for prefix, factor in (('P', 1e15), ('T', 1e12), ('G', 1e9), ('M', 1e6)):
        if value >= factor:
            return f'{number(value / factor)} {prefix}'
    return f'{number(value)} '
