"""The distribution of the latencies of one run."""

import textwrap

from matplotlib.figure import Figure

from ...schema import Report
from ..tables import number
from .style import GREY, INK, MODE_COLOURS, RED, caption_of, new_figure


def latency(report: Report) -> Figure | None:
    """Draw the samples of each measurement with p10, p50 and p90, by scope."""
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
    caption = caption_of(report, [(model, model.labels + m.labels) for model, m in timed], [m for _, m in timed])
    caption += f'\n{beyond} of {len(samples)} samples lie beyond the axis' if beyond else ''
    figure = new_figure(0.26 * sum(map(len, groups.values())) + 0.35 * len(groups) + 1, caption)
    heights = [len(group) + 0.6 for group in groups.values()]
    axes = figure.subplots(len(groups), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (scope, group) in zip(axes, groups.items()):
        names = [f'{model.name}  {m.mode} {m.dtype} b{m.batch_size}' for model, m in group]
        for y, (_, m) in enumerate(group):
            if not m.latency_ms:
                text = textwrap.shorten(f'error: {m.error}' if m.error else 'not measured', 90, placeholder=' ...')
                axis.text(end * 0.01, y, text, va='center', fontsize=7.5, color=RED)
                continue
            t, colour = m.latency_ms, MODE_COLOURS.get(m.mode, GREY)
            some = t.samples[:: max(1, len(t.samples) // 150)]
            scatter = [y + 0.3 * (i * 0.618 % 1 - 0.5) for i in range(len(some))]
            axis.barh(y, t.p90 - t.p10, 0.62, t.p10, color=colour, alpha=0.35)
            axis.plot(some, scatter, '.', color=colour, markersize=2.5, alpha=0.35, markeredgewidth=0)
            axis.plot([t.p50] * 2, [y - 0.36, y + 0.36], color=colour, linewidth=2, solid_capstyle='butt')
            style = dict(va='center', fontsize=8, color=INK, annotation_clip=False)
            axis.annotate(number(t.p50), (1.01, y), xycoords=('axes fraction', 'data'), **style)
        axis.grid(axis='x')
        axis.set_yticks(range(len(group)), names)
        axis.set(xlim=(0, end), ylim=(len(group) - 0.4, -0.6))
        axis.tick_params(axis='y', length=0)
        axis.set_title(scope, fontsize=10)
    axes[0].set_title('p50, ms', loc='right', fontsize=8, x=1.06)
    axes[-1].set_xlabel('latency, ms: bar from p10 to p90, line at p50, dots are samples')
    return figure
