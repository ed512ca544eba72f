"""Accuracy over latency, of everything that one run measured."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...schema import Measurement, Model, Report
from ..tables import ACCURACIES, measured_accuracy
from .style import INK, QUOTED, RED, caption_of, colour_of, label_points, log_axis, new_figure, quoted_from


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


def accuracy_over_latency(report: Report) -> Figure | None:
    """Draw a panel for classifiers and one for detectors, in the first mode and the smallest batch."""
    panels, shown, taken, rows = [], [], [], []
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
                rows.append(model.published)
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
    caption = caption_of(report, shown, taken, quoted_from('accuracy', rows))
    figure = new_figure((4.2 if most < 15 else 5.6) * len(panels), caption)
    for axis, (kind, quantity, mode, points) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels):
        ours = [p for p in points if colour_of(p[2]) == RED and mode]  # a line goes through models, not through forms
        axis.plot([p[0] for p in ours], [p[1] for p in ours], color=RED, linewidth=1.2, zorder=2)
        for x, y, name, quoted in points:
            colour = colour_of(name)
            axis.plot(x, y, 'o', color=colour, markerfacecolor='white' if quoted else colour, markersize=6, zorder=3)
        axis.grid()
        log_axis(axis, [p[0] for p in points])
        axis.margins(y=0.15)
        axis.set_title(f'{quantity} of the {kind}s over their latency')
        axis.set_xlabel(f'p50 latency, ms ({mode}log scale)')
        axis.set_ylabel(quantity + (' (%)' if kind == 'classifier' else ''))
        texts = {True: QUOTED, False: 'evaluated here'}
        style = dict(linestyle='', marker='o', color=INK)
        handles = [
            Line2D([], [], markerfacecolor='white' if quoted else INK, label=texts[quoted], **style)
            for quoted in dict.fromkeys(p[3] for p in points)
        ]
        axis.legend(handles=handles, loc='lower right', bbox_to_anchor=(1, 0.99), ncols=2, handletextpad=0.1)
        figure.draw_without_rendering()  # places the axes, for the labels go by pixels
        label_points(figure, axis, points)
    return figure
