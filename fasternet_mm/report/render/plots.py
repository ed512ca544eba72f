"""Pictures of a report; ``docs/report_schema.md`` says what a report holds."""

import io
import math
import textwrap

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from .tables import ACCURACIES, device_name, measured_accuracy, number

_ACCENT, _GREY, _INK = '#d1350f', '#868e96', '#343a40'
_MODES = {
    'eager': '#3b6fb6',
    'fused': '#2b9a66',
    'deploy': _ACCENT,
    'graphs': '#7a5230',
    'compile': '#8e59b5',
    'onnxruntime': '#e8a33d',
    'openvino': '#d66ba0',
}
_PARTS = {
    'preprocessing': '#adb5bd',
    'backbone': _ACCENT,
    'neck': '#e8a33d',
    'RPN': '#2b9a66',
    'RoI heads': '#3b6fb6',
    'head': '#3b6fb6',
    'post-processing': '#8e59b5',
    'everything else': '#ced4da',
}
_KINDS = {
    'PConv': _ACCENT,
    'PWConv': '#3b6fb6',
    'merging': '#2b9a66',
    'stem': '#e8a33d',
    'BN': '#8e59b5',
    'activation': '#d66ba0',
    'linear': '#7a5230',
    'other': _GREY,
}
_WIDTH, _DPI, _LINE = 9.0, 120, 0.148  # of a picture in inches, and of a line of its caption


def pictures(report: dict) -> dict[str, bytes]:
    """Draw what a report has data for.

    Args:
        report (dict): As ``docs/report_schema.md`` says.

    Returns:
        dict[str, bytes]: PNG files by name.
    """
    drawn = {
        'accuracy_over_latency.png': _accuracy_over_latency(report),
        'latency.png': _latency(report),
        'split.png': _split(report),
        'roofline.png': _roofline(report),
    }
    return {name: _png(figure) for name, figure in drawn.items() if figure}


def _caption(report: dict, shown: list[tuple[dict, dict | None, list[str]]]) -> str:
    """What the numbers of a picture rest on: the models, the measurements if there are any, and the labels of both."""
    taken = [m for _, m, _ in shown if m]
    facts = [
        ' and '.join(dict.fromkeys(device_name(report, m['device']) for m in taken)),
        ', '.join(dict.fromkeys(m['dtype'] for m in taken)),
        'batch ' + ', '.join(map(str, dict.fromkeys(m['batch_size'] for m in taken))) if taken else '',
        f'torch {report["environment"]["before"]["packages"].get("torch", "of unknown version")}',
        report['created'][:10],
    ]
    lines = ['; '.join(filter(None, facts))]
    if not report['complete']:
        lines.insert(0, 'INCOMPLETE: the run had not ended.')
    everybody = {model['name'] for model, _, _ in shown}
    names = {}
    for model, _, labels in shown:
        for label in labels:
            names.setdefault(label, {})[model['name']] = None
    for label, of in names.items():
        some = ', '.join(list(of)[:4]) + (f' and {len(of) - 4} more' if len(of) > 4 else '')
        lines.append(label if set(of) == everybody else f'{label} ({some})')
    return '\n'.join('\n'.join(textwrap.wrap(line, 128)) for line in lines)


def _figure(height: float, caption: str) -> Figure:
    """A figure that has `height` inches for its axes, and its caption below them."""
    below = (caption.count('\n') + 1) * _LINE + 0.15
    figure = Figure(figsize=(_WIDTH, height + below), layout='constrained', facecolor='white')
    FigureCanvasAgg(figure)
    share = below / (height + below)
    figure.get_layout_engine().set(rect=(0, share, 1, 1 - share), w_pad=0.1, h_pad=0.08)
    figure.text(0.012, 0.06 / (height + below), caption, fontsize=7.5, color=_INK, va='bottom', linespacing=1.4)
    return figure


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=_DPI)
    return file.getvalue()


def _bare(axis, grid: str) -> None:
    """Leave of an axes what carries information."""
    axis.spines[['top', 'right']].set_visible(False)
    axis.grid(axis=grid, color='#dee2e6', linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)


def _main_measurements(report: dict, kind: str) -> list[tuple[dict, dict]]:
    """Each model of a kind with its whole-model measurement in the first mode and the smallest batch."""
    found = [
        (model, m)
        for model in report['models']
        if model['kind'] == kind
        for m in model['measurements']
        if m['scope'] == kind and m['latency_ms']
    ]
    if not found:
        return []
    batch = min(m['batch_size'] for _, m in found)
    first = next(m for _, m in found if m['batch_size'] == batch)
    keys = ('mode', 'dtype', 'device', 'batch_size')
    chosen = {}
    for model, m in found:
        if all(m[key] == first[key] for key in keys):
            chosen.setdefault(model['name'], (model, m))
    return list(chosen.values())


def _accuracy_over_latency(report: dict) -> Figure | None:
    panels, shown = [], []
    for kind, quantities in ACCURACIES.items():
        quantity, (_, _, published) = next(iter(quantities.items()))
        points = []
        for model, m in _main_measurements(report, kind):
            value = measured_accuracy(model, quantity)
            quoted = value is None
            if quoted:
                value = (model['published'] or {}).get(published)
            if value is None:
                continue
            points.append((m['latency_ms']['p50'], value, model['name'], quoted))
            labels = model['labels'] + m['labels']
            shown.append((model, m, labels if quoted else labels + model['evaluation']['labels']))
        if points:
            panels.append((kind, quantity, shown[-1][1]['mode'], sorted(points)))
    if not panels:
        return None
    most = max(len(points) for *_, points in panels)
    figure = _figure((4.2 if most < 15 else 5.6) * len(panels), _caption(report, shown))
    for axis, (kind, quantity, mode, points) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels):
        ours = [p for p in points if 'fasternet' in p[2].lower()]
        axis.plot([p[0] for p in ours], [p[1] for p in ours], color=_ACCENT, linewidth=1.2, zorder=2)
        for x, y, name, quoted in points:
            colour = _ACCENT if 'fasternet' in name.lower() else _GREY
            axis.plot(x, y, 'o', color=colour, markerfacecolor='white' if quoted else colour, markersize=6, zorder=3)
        _bare(axis, 'both')
        axis.set_xscale('log')
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axis.xaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlim(points[0][0] / 1.3, points[-1][0] * 1.3)
        axis.margins(y=0.15)
        axis.set_title(f'{quantity} of the {kind}s over their latency', loc='left', fontsize=11)
        axis.set_xlabel(f'p50 latency, ms ({mode}, log scale)', fontsize=9)
        axis.set_ylabel(quantity + (' (%)' if kind == 'classifier' else ''), fontsize=9)
        kinds = dict.fromkeys(p[3] for p in points)
        handles = [
            Line2D([], [], linestyle='', marker='o', color=_INK, markerfacecolor='white' if quoted else _INK)
            for quoted in kinds
        ]
        texts = ['quoted from the paper, not measured' if quoted else 'evaluated here' for quoted in kinds]
        style = dict(fontsize=8, frameon=False, ncols=2, handletextpad=0.1)
        axis.legend(handles, texts, loc='lower right', bbox_to_anchor=(1, 0.99), **style)
        figure.draw_without_rendering()  # places the axes, for the labels go by pixels
        _label_points(figure, axis, points)
    return figure


def _label_points(figure: Figure, axis, points: list[tuple]) -> None:
    """Name each point where its name covers the least of other names and points."""
    dots = axis.transData.transform([p[:2] for p in points])
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in dots]
    frame = axis.get_window_extent()
    places = [
        (side * across, up, {1: 'left', 0: 'center', -1: 'right'}[side])
        for across, up in ((7, 5), (7, -5), (0, 11), (0, -11), (12, 16), (12, -16), (18, 28), (18, -28), (30, 42))
        for side in ((1, -1) if across else (0,))
    ]
    leader = dict(arrowstyle='-', color='#ced4da', linewidth=0.6, shrinkA=0, shrinkB=3)
    for index, (x, y, name, _) in enumerate(points):
        best = None
        for dx, dy, align in places:
            dy = dy if index % 2 else -dy  # first above one point, first below the next
            text = axis.annotate(
                name,
                (x, y),
                (dx, dy),
                textcoords='offset points',
                ha=align,
                va='center',
                fontsize=7.5,
                color=_ACCENT if 'fasternet' in name.lower() else _INK,
                arrowprops=leader if abs(dx) > 7 else None,
                in_layout=False,
                zorder=4,
            )
            text.update_positions(figure.canvas.get_renderer())
            box = Bbox(Text.get_window_extent(text, figure.canvas.get_renderer()).get_points())  # without its arrow
            cost = sum(_area(Bbox.intersection(box, other)) for other in taken)
            cost += _area(box) - _area(Bbox.intersection(box, frame))
            if best is None or cost < best[0]:
                if best:
                    best[1].remove()
                best = (cost, text, box)
            else:
                text.remove()
            if not best[0]:
                break
        taken.append(best[2])


def _area(box: Bbox | None) -> float:
    return box.width * box.height if box else 0


def _latency(report: dict) -> Figure | None:
    groups = {}
    for model in report['models']:
        for m in model['measurements']:
            if (m['error'] or '').startswith(f'mode {m["mode"]}'):  # which is not for this model; the table says so
                continue
            of = '' if m['scope'] == model['kind'] else f' of the {model["kind"]}s'
            groups.setdefault(f'{m["scope"]}s{of}', []).append((model, m))
    rows = [row for group in groups.values() for row in group]
    times = [m['latency_ms'] for _, m in rows if m['latency_ms']]
    if not times:
        return None
    # a few stalls would squeeze everything else
    end = 1.06 * max(t['p99'] for t in times)
    beyond = sum(sample > end for t in times for sample in t['samples'])
    shown = [(model, m, model['labels'] + m['labels']) for model, m in rows if m['latency_ms']]
    caption = _caption(report, shown)
    if beyond:
        caption += f'\n{beyond} of {sum(len(t["samples"]) for t in times)} samples lie beyond the axis'
    figure = _figure(0.26 * len(rows) + 0.35 * len(groups) + 1, caption)
    axes = figure.subplots(
        len(groups), sharex=True, squeeze=False, height_ratios=[len(group) + 0.6 for group in groups.values()]
    )[:, 0]
    for axis, (scope, group) in zip(axes, groups.items()):
        names = []
        for y, (model, m) in enumerate(group):
            names.append(f'{model["name"]}  {m["mode"]} {m["dtype"]} b{m["batch_size"]}')
            if not m['latency_ms']:
                text = f'error: {m["error"]}' if m['error'] else 'not measured'
                text = textwrap.shorten(text, 90, placeholder=' ...')
                axis.text(end * 0.01, y, text, va='center', fontsize=7.5, color=_ACCENT)
                continue
            t, colour = m['latency_ms'], _MODES.get(m['mode'], _GREY)
            samples = t['samples'][:: max(1, len(t['samples']) // 150)]
            scatter = [y + 0.3 * (i * 0.618 % 1 - 0.5) for i in range(len(samples))]
            axis.barh(y, t['p90'] - t['p10'], 0.62, t['p10'], color=colour, alpha=0.35)
            axis.plot(samples, scatter, '.', color=colour, markersize=2.5, alpha=0.35, markeredgewidth=0)
            axis.plot([t['p50']] * 2, [y - 0.36, y + 0.36], color=colour, linewidth=2, solid_capstyle='butt')
            axis.annotate(
                number(t['p50']),
                (1.01, y),
                xycoords=('axes fraction', 'data'),
                va='center',
                fontsize=8,
                color=_INK,
                annotation_clip=False,
            )
        _bare(axis, 'x')
        axis.set_yticks(range(len(group)), names)
        axis.set(xlim=(0, end), ylim=(len(group) - 0.4, -0.6))
        axis.tick_params(axis='y', length=0)
        axis.set_title(scope, loc='left', fontsize=10)
    axes[0].set_title('p50, ms', loc='right', fontsize=8, x=1.06)
    axes[-1].set_xlabel('latency, ms: bar from p10 to p90, line at p50, dots are samples', fontsize=9)
    return figure


def _split(report: dict) -> Figure | None:
    models = [model for model in report['models'] if model['split']]
    if not models:
        return None
    # a split is taken of one image, in the dtype that is measured first
    first = next((m for model in models for m in model['measurements']), None)
    first = first and dict(first, batch_size=1)
    shown = [(model, first, model['labels'] + model['split']['labels']) for model in models]
    figure = _figure(0.36 * len(models) + 1.5, _caption(report, shown))
    axis = figure.subplots()
    parts = list(dict.fromkeys([*_PARTS, *(part for model in models for part in model['split']['parts'])]))
    parts = [part for part in parts if any(part in model['split']['parts'] for model in models)]
    for y, model in enumerate(models):
        split, left = model['split'], 0
        total = sum(split['parts'].values())
        for part in parts:
            share = 100 * split['parts'].get(part, 0) / total
            colour = _PARTS.get(part, '#495057')
            axis.barh(y, share, 0.72, left, color=colour, edgecolor='white', linewidth=0.8)
            text = number(split['parts'].get(part, 0))
            if share > 1.1 * len(text) + 0.6:
                dark = part in ('preprocessing', 'neck')
                style = dict(ha='center', va='center', fontsize=7.5, color=_INK if dark else 'white')
                axis.text(left + share / 2, y, text, **style)
            left += share
        axis.text(101, y, f'{number(split["total_ms"])} ms', va='center', fontsize=8, color=_INK)
    _bare(axis, 'x')
    axis.set(xlim=(0, 100), ylim=(len(models) - 0.4, -0.6))
    axis.set_yticks(range(len(models)), [model['name'] for model in models])
    axis.tick_params(axis='y', length=0)
    axis.set_xlabel("share of the detector's time, %; inside, ms", fontsize=9)
    axis.set_title("Where a detector's time goes", loc='left', fontsize=11)
    handles = [Patch(color=_PARTS.get(part, '#495057'), label=part) for part in parts]
    figure.legend(handles=handles, loc='outside upper left', ncols=len(parts), fontsize=8, frameon=False)
    return figure


def _roofline(report: dict) -> Figure | None:
    model = next((model for model in report['models'] if model['rooflines']), None)
    if not model:
        return None
    roofline = model['rooflines'][0]
    drawn = [layer for layer in roofline['layers'] if layer['gflops'] and layer['flops_per_byte']]
    if not drawn:
        return None
    peak, copy = roofline['matmul_gflops'], roofline['copy_gb_per_s']
    figure = _figure(5, _caption(report, [(model, roofline, model['labels'])]))
    axis = figure.subplots()
    whole = sum(layer['ms'] for layer in roofline['layers'])
    longest = max(layer['ms'] for layer in drawn)
    kinds = {}
    for layer in roofline['layers']:
        kinds[layer['kind']] = kinds.get(layer['kind'], 0) + layer['ms'] / whole
    for layer in sorted(drawn, key=lambda layer: -layer['ms']):  # small ones on top
        axis.scatter(
            layer['flops_per_byte'],
            layer['gflops'],
            max(6, 600 * layer['ms'] / longest),
            color=_KINDS.get(layer['kind'], _GREY),
            alpha=0.6,
            edgecolor='white',
            linewidth=0.6,
            zorder=3,
        )
    ridge = peak / copy
    low = min(ridge, *(layer['flops_per_byte'] for layer in drawn)) / 2
    high = max(ridge, *(layer['flops_per_byte'] for layer in drawn)) * 4
    axis.plot([low, ridge, high], [copy * low, peak, peak], color=_INK, linewidth=1.4, zorder=2)
    _bare(axis, 'both')
    axis.set(xscale='log', yscale='log', xlim=(low, high))
    bottom = min(copy * low, *(layer['gflops'] for layer in drawn)) / 2
    axis.set_ylim(bottom, max(peak, *(layer['gflops'] for layer in drawn)) * 2.5)
    style = dict(fontsize=8, color=_INK, textcoords='offset points')
    axis.annotate(f'matrix product {_si(peak * 1e9)}FLOP/s', (high, peak), (-4, 4), ha='right', **style)
    middle = math.sqrt(low * ridge)
    text = axis.annotate(f'copy {_si(copy * 1e9)}B/s', (middle, copy * middle), (-6, 5), ha='right', **style)
    text.set_in_layout(False)
    handles = []
    for kind, share in sorted(kinds.items(), key=lambda item: -item[1]):
        absent = '' if any(layer['kind'] == kind for layer in drawn) else '\n(no FLOP, not drawn)'
        style = dict(marker='o', markersize=7, linestyle='', color=_KINDS.get(kind, _GREY))
        handles.append(Line2D([], [], label=f'{kind}  {100 * share:.1f} %{absent}', **style))
    style = dict(fontsize=8, title_fontsize=8, alignment='left', frameon=False)
    figure.legend(handles=handles, title='share of the time', loc='outside right upper', **style)
    where = f'{device_name(report, roofline["device"])}, {roofline["dtype"]}'
    axis.set_title(f'Roofline of {model["name"]}, {where}', loc='left', fontsize=11)
    axis.set_xlabel('FLOP per byte; the area of a marker is its share of the time', fontsize=9)
    axis.set_ylabel('GFLOP/s', fontsize=9)
    return figure


def _si(value: float) -> str:
    for prefix, factor in (('P', 1e15), ('T', 1e12), ('G', 1e9), ('M', 1e6)):
        if value >= factor:
            return f'{number(value / factor)} {prefix}'
    return f'{number(value)} '
