"""Pictures of a report."""

import dataclasses
import io
import math
import textwrap
from collections import Counter

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from ..schema import MODES, Measurement, Model, Report, Roofline
from .tables import ACCURACIES, device_name, measured_accuracy, number

_RED, _BLUE, _GREEN, _YELLOW = '#d1350f', '#3b6fb6', '#2b9a66', '#e8a33d'
_PURPLE, _PINK, _BROWN, _GREY, _INK = '#8e59b5', '#d66ba0', '#7a5230', '#868e96', '#343a40'
_MODES = dict(zip(MODES, (_BLUE, _GREEN, _RED, _BROWN, _PURPLE, _GREY, _GREY, _YELLOW, _PINK), strict=True))
_PARTS = {
    'preprocessing': '#adb5bd', 'backbone': _RED, 'neck': _YELLOW, 'RPN': _GREEN, 'RoI heads': _BLUE, 'head': _BLUE,
    'post-processing': _PURPLE, 'everything else': '#ced4da',
}  # fmt: skip
_KINDS = dict(
    PConv=_RED, PWConv=_BLUE, merging=_GREEN, stem=_YELLOW, BN=_PURPLE, activation=_PINK, linear=_BROWN,
)  # fmt: skip
_WIDTH, _LINE = 9.0, 0.148  # of a picture in inches, and of a line of its caption
_STYLE = {
    **{f'axes.spines.{side}': False for side in ('top', 'right')},
    **{'axes.axisbelow': True, 'axes.labelsize': 9, 'axes.titlesize': 11, 'axes.titlelocation': 'left'},
    **{'grid.color': '#dee2e6', 'grid.linewidth': 0.6, 'xtick.labelsize': 8, 'ytick.labelsize': 8},
    **{'legend.fontsize': 8, 'legend.title_fontsize': 8, 'legend.frameon': False, 'savefig.dpi': 120},
}


def pictures(report: Report) -> dict[str, bytes]:
    """Draw what a report has data for, as PNG files by name."""
    drawn = {
        'accuracy_over_latency.png': _accuracy_over_latency,
        'latency.png': _latency,
        'split.png': _split,
        'roofline.png': _roofline,
    }
    files = {}
    with matplotlib.rc_context(_STYLE):
        for name, draw in drawn.items():
            figure, file = draw(report), io.BytesIO()
            if figure:
                figure.savefig(file, format='png')
                files[name] = file.getvalue()
    return files


def _caption(report: Report, shown: list[tuple[Model, list[str]]], taken: list[Measurement | Roofline]) -> str:
    """Say what the numbers of a picture rest on: the measurements if there are any, the models and all labels."""
    facts = [
        ' and '.join(dict.fromkeys(device_name(report, m.device) for m in taken)),
        ', '.join(dict.fromkeys(m.dtype for m in taken)),
        'batch ' + ', '.join(map(str, dict.fromkeys(m.batch_size for m in taken))) if taken else '',
        f'torch {report.environment.before.packages.get("torch", "of unknown version")}',
        report.created[:10],
    ]
    lines = [] if report.complete else ['INCOMPLETE: the run had not ended.']
    lines.append('; '.join(filter(None, facts)))
    everybody = {model.name for model, _ in shown}
    names = {}
    for model, labels in shown:
        for label in labels:
            names.setdefault(label, {})[model.name] = None
    for label, of in names.items():
        some = ', '.join(list(of)[:4]) + (f' and {len(of) - 4} more' if len(of) > 4 else '')
        lines.append(label if set(of) == everybody else f'{label} ({some})')
    return '\n'.join('\n'.join(textwrap.wrap(line, 128)) for line in lines)


def _figure(height: float, caption: str) -> Figure:
    """Return a figure that has `height` inches for its axes, and its caption below them."""
    below = (caption.count('\n') + 1) * _LINE + 0.15
    figure = Figure(figsize=(_WIDTH, height + below), layout='constrained', facecolor='white')
    FigureCanvasAgg(figure)
    share = below / (height + below)
    figure.get_layout_engine().set(rect=(0, share, 1, 1 - share), w_pad=0.1, h_pad=0.08)
    figure.text(0.012, 0.06 / (height + below), caption, fontsize=7.5, color=_INK, va='bottom', linespacing=1.4)
    return figure


def _main_measurements(report: Report, kind: str) -> list[tuple[Model, Measurement]]:
    """Return each model's measurement in the first mode and the smallest batch, and those with an own accuracy."""
    models = [model for model in report.models if model.kind == kind]
    found = [(model, m) for model in models for m in model.measurements if m.scope == kind and m.latency_ms]
    if not found:
        return []
    first = min((m for _, m in found), key=lambda m: m.batch_size)
    chosen = {}
    for model, m in found:
        alike = all(getattr(m, key) == getattr(first, key) for key in ('mode', 'dtype', 'device', 'batch_size'))
        if alike or (m.evaluation and m.device == first.device):
            chosen.setdefault((model.name, m.mode, m.dtype), (model, m))
    return list(chosen.values())


_TOLD_APART = {'model': lambda model, m: model.name, 'form': lambda model, m: f'{m.mode} {m.dtype}'}


def _accuracy_over_latency(report: Report) -> Figure | None:
    panels, shown, taken = [], [], []
    for kind, quantities in ACCURACIES.items():
        quantity, (_, _, published) = next(iter(quantities.items()))
        points, measured = [], _main_measurements(report, kind)
        several = {what: len({of(*one) for one in measured}) > 1 for what, of in _TOLD_APART.items()}
        for model, m in measured:
            done = m.evaluation or model.evaluation
            value, labels = measured_accuracy(model, done, quantity), model.labels + m.labels
            quoted = value is None
            if quoted:
                value = getattr(model.published, published, None)
            else:
                labels = labels + done.labels
            if value is not None:
                name = ' '.join(of(model, m) for what, of in _TOLD_APART.items() if several[what]) or model.name
                points.append((m.latency_ms.p50, value, name, quoted))
                shown.append((model, labels))
                taken.append(m)
        if points:
            panels.append((kind, quantity, '' if several['form'] else f'{taken[-1].mode}, ', sorted(points)))
    if not panels:
        return None
    most = max(len(points) for *_, points in panels)
    figure = _figure((4.2 if most < 15 else 5.6) * len(panels), _caption(report, shown, taken))
    for axis, (kind, quantity, mode, points) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels):
        ours = [p for p in points if _colour(p[2]) == _RED and mode]  # a line goes through models, not through forms
        axis.plot([p[0] for p in ours], [p[1] for p in ours], color=_RED, linewidth=1.2, zorder=2)
        for x, y, name, quoted in points:
            colour = _colour(name)
            axis.plot(x, y, 'o', color=colour, markerfacecolor='white' if quoted else colour, markersize=6, zorder=3)
        axis.grid()
        axis.set_xscale('log')
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axis.xaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlim(points[0][0] / 1.3, points[-1][0] * 1.3)
        axis.margins(y=0.15)
        axis.set_title(f'{quantity} of the {kind}s over their latency')
        axis.set_xlabel(f'p50 latency, ms ({mode}log scale)')
        axis.set_ylabel(quantity + (' (%)' if kind == 'classifier' else ''))
        texts = {True: 'quoted from the paper, not measured', False: 'evaluated here'}
        style = dict(linestyle='', marker='o', color=_INK)
        handles = [
            Line2D([], [], markerfacecolor='white' if quoted else _INK, label=texts[quoted], **style)
            for quoted in dict.fromkeys(p[3] for p in points)
        ]
        axis.legend(handles=handles, loc='lower right', bbox_to_anchor=(1, 0.99), ncols=2, handletextpad=0.1)
        figure.draw_without_rendering()  # places the axes, for the labels go by pixels
        _label_points(figure, axis, points)
    return figure


def _colour(name: str, other: str = _GREY) -> str:
    return _RED if 'fasternet' in name.lower() else other


def _label_points(figure: Figure, axis, points: list[tuple]) -> None:
    """Name each point where its name covers the least of other names and points."""
    dots = axis.transData.transform([p[:2] for p in points])
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in dots]
    frame, renderer = axis.get_window_extent(), figure.canvas.get_renderer()
    places = [
        (side * across, up, {1: 'left', 0: 'center', -1: 'right'}[side])
        for across, up in ((7, 5), (7, -5), (0, 11), (0, -11), (12, 16), (12, -16), (18, 28), (18, -28), (30, 42))
        for side in ((1, -1) if across else (0,))
    ]
    leader = dict(arrowstyle='-', color='#ced4da', linewidth=0.6, shrinkA=0, shrinkB=3)
    for index, (x, y, name, _) in enumerate(points):
        style = dict(textcoords='offset points', va='center', fontsize=7.5, color=_colour(name, _INK), in_layout=False)
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
        taken.append(best[3])


def _area(box: Bbox | None) -> float:
    return box.width * box.height if box else 0


def _latency(report: Report) -> Figure | None:
    groups = {}
    for model in report.models:
        for m in model.measurements:
            if not m.unsupported:  # the table says so
                of = '' if m.scope == model.kind else f' of the {model.kind}s'
                groups.setdefault(f'{m.scope}s{of}', []).append((model, m))
    timed = [(model, m) for group in groups.values() for model, m in group if m.latency_ms]
    if not timed:
        return None
    # a few stalls would squeeze everything else
    end = 1.06 * max(m.latency_ms.p99 for _, m in timed)
    samples = [sample for _, m in timed for sample in m.latency_ms.samples]
    beyond = sum(sample > end for sample in samples)
    caption = _caption(report, [(model, model.labels + m.labels) for model, m in timed], [m for _, m in timed])
    caption += f'\n{beyond} of {len(samples)} samples lie beyond the axis' if beyond else ''
    figure = _figure(0.26 * sum(map(len, groups.values())) + 0.35 * len(groups) + 1, caption)
    heights = [len(group) + 0.6 for group in groups.values()]
    axes = figure.subplots(len(groups), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (scope, group) in zip(axes, groups.items()):
        names = [f'{model.name}  {m.mode} {m.dtype} b{m.batch_size}' for model, m in group]
        for y, (_, m) in enumerate(group):
            if not m.latency_ms:
                text = textwrap.shorten(f'error: {m.error}' if m.error else 'not measured', 90, placeholder=' ...')
                axis.text(end * 0.01, y, text, va='center', fontsize=7.5, color=_RED)
                continue
            t, colour = m.latency_ms, _MODES.get(m.mode, _GREY)
            some = t.samples[:: max(1, len(t.samples) // 150)]
            scatter = [y + 0.3 * (i * 0.618 % 1 - 0.5) for i in range(len(some))]
            axis.barh(y, t.p90 - t.p10, 0.62, t.p10, color=colour, alpha=0.35)
            axis.plot(some, scatter, '.', color=colour, markersize=2.5, alpha=0.35, markeredgewidth=0)
            axis.plot([t.p50] * 2, [y - 0.36, y + 0.36], color=colour, linewidth=2, solid_capstyle='butt')
            style = dict(va='center', fontsize=8, color=_INK, annotation_clip=False)
            axis.annotate(number(t.p50), (1.01, y), xycoords=('axes fraction', 'data'), **style)
        axis.grid(axis='x')
        axis.set_yticks(range(len(group)), names)
        axis.set(xlim=(0, end), ylim=(len(group) - 0.4, -0.6))
        axis.tick_params(axis='y', length=0)
        axis.set_title(scope, fontsize=10)
    axes[0].set_title('p50, ms', loc='right', fontsize=8, x=1.06)
    axes[-1].set_xlabel('latency, ms: bar from p10 to p90, line at p50, dots are samples')
    return figure


def _split(report: Report) -> Figure | None:
    models = [model for model in report.models if model.split]
    if not models:
        return None
    # a split is taken of one image, in the dtype that is measured first
    taken = [dataclasses.replace(m, batch_size=1) for model in models for m in model.measurements][:1]
    shown = [(model, model.labels + model.split.labels) for model in models]
    figure = _figure(0.36 * len(models) + 1.5, _caption(report, shown, taken))
    axis = figure.subplots()
    found = list(dict.fromkeys(part for model in models for part in model.split.parts))
    parts = [part for part in _PARTS if part in found] + [part for part in found if part not in _PARTS]
    for y, model in enumerate(models):
        ms, left = model.split.parts, 0
        for part in parts:
            share, text = 100 * ms.get(part, 0) / sum(ms.values()), number(ms.get(part, 0))
            axis.barh(y, share, 0.72, left, color=_PARTS.get(part, '#495057'), edgecolor='white', linewidth=0.8)
            if share > 1.1 * len(text) + 0.6:
                colour = _INK if part in ('preprocessing', 'neck') else 'white'
                axis.text(left + share / 2, y, text, ha='center', va='center', fontsize=7.5, color=colour)
            left += share
        axis.text(101, y, f'{number(model.split.total_ms)} ms', va='center', fontsize=8, color=_INK)
    axis.grid(axis='x')
    axis.set(xlim=(0, 100), ylim=(len(models) - 0.4, -0.6))
    axis.set_yticks(range(len(models)), [model.name for model in models])
    axis.tick_params(axis='y', length=0)
    axis.set_xlabel("share of the detector's time, %; inside, ms")
    axis.set_title("Where a detector's time goes")
    handles = [Patch(color=_PARTS.get(part, '#495057'), label=part) for part in parts]
    figure.legend(handles=handles, loc='outside upper left', ncols=len(parts))
    return figure


def _roofline(report: Report) -> Figure | None:
    model = next((model for model in report.models if model.rooflines), None)
    roofline = model and model.rooflines[0]
    drawn = [layer for layer in roofline.layers if layer.gflops and layer.flops_per_byte] if model else []
    if not drawn:
        return None
    peak, copy = roofline.matmul_gflops, roofline.copy_gb_per_s
    figure = _figure(5, _caption(report, [(model, model.labels)], [roofline]))
    axis = figure.subplots()
    longest = max(layer.ms for layer in drawn)
    for layer in sorted(drawn, key=lambda layer: -layer.ms):  # small ones on top
        style = dict(color=_KINDS.get(layer.kind, _GREY), alpha=0.6, edgecolor='white', linewidth=0.6, zorder=3)
        axis.scatter(layer.flops_per_byte, layer.gflops, max(6, 600 * layer.ms / longest), **style)
    ridge = peak / copy
    intensities, speeds = [layer.flops_per_byte for layer in drawn], [layer.gflops for layer in drawn]
    low, high = min(ridge, *intensities) / 2, max(ridge, *intensities) * 4
    axis.plot([low, ridge, high], [copy * low, peak, peak], color=_INK, linewidth=1.4, zorder=2)
    axis.grid()
    axis.set(xscale='log', yscale='log', xlim=(low, high))
    axis.set_ylim(min(copy * low, *speeds) / 2, max(peak, *speeds) * 2.5)
    style = dict(fontsize=8, color=_INK, textcoords='offset points', ha='right')
    axis.annotate(f'matrix product {_si(peak * 1e9)}FLOP/s', (high, peak), (-4, 4), **style)
    middle = math.sqrt(low * ridge)
    axis.annotate(f'copy {_si(copy * 1e9)}B/s', (middle, copy * middle), (-6, 5), in_layout=False, **style)
    shares = Counter()
    for layer in roofline.layers:
        shares[layer.kind] += layer.ms / sum(layer.ms for layer in roofline.layers)
    handles = []
    for kind, share in shares.most_common():
        absent = '' if any(layer.kind == kind for layer in drawn) else '\n(no FLOP, not drawn)'
        style = dict(marker='o', markersize=7, linestyle='', color=_KINDS.get(kind, _GREY))
        handles.append(Line2D([], [], label=f'{kind}  {100 * share:.1f} %{absent}', **style))
    figure.legend(handles=handles, title='share of the time', loc='outside right upper', alignment='left')
    where = f'{device_name(report, roofline.device)}, {roofline.dtype}'
    axis.set_title(f'Roofline of {model.name}, {where}')
    axis.set_xlabel('FLOP per byte; the area of a marker is its share of the time')
    axis.set_ylabel('GFLOP/s')
    return figure


def _si(value: float) -> str:
    for prefix, factor in (('P', 1e15), ('T', 1e12), ('G', 1e9), ('M', 1e6)):
        if value >= factor:
            return f'{number(value / factor)} {prefix}'
    return f'{number(value)} '
