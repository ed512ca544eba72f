"""A detector's time by part."""

import dataclasses

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ...schema import Report
from ..tables import number
from .style import BLUE, GREEN, INK, PURPLE, RED, YELLOW, caption_of, new_figure

_PARTS = {
    'preprocessing': '#adb5bd', 'backbone': RED, 'neck': YELLOW, 'RPN': GREEN, 'RoI heads': BLUE, 'head': BLUE,
    'post-processing': PURPLE, 'everything else': '#ced4da',
}  # fmt: skip


def split(report: Report) -> Figure | None:
    """Draw the shares of the parts of each detector."""
    models = [model for model in report.models if model.split]
    if not models:
        return None
    # a split is taken of one image, in the dtype that is measured first
    taken = [dataclasses.replace(m, batch_size=1) for model in models for m in model.measurements][:1]
    shown = [(model, model.labels + model.split.labels) for model in models]
    figure = new_figure(0.36 * len(models) + 1.5, caption_of(report, shown, taken))
    axis = figure.subplots()
    found = list(dict.fromkeys(part for model in models for part in model.split.parts))
    parts = [part for part in _PARTS if part in found] + [part for part in found if part not in _PARTS]
    for y, model in enumerate(models):
        ms, left = model.split.parts, 0
        for part in parts:
            share, text = 100 * ms.get(part, 0) / sum(ms.values()), number(ms.get(part, 0))
            axis.barh(y, share, 0.72, left, color=_PARTS.get(part, '#495057'), edgecolor='white', linewidth=0.8)
            if share > 1.1 * len(text) + 0.6:
                colour = INK if part in ('preprocessing', 'neck') else 'white'
                axis.text(left + share / 2, y, text, ha='center', va='center', fontsize=7.5, color=colour)
            left += share
        axis.text(101, y, f'{number(model.split.total_ms)} ms', va='center', fontsize=8, color=INK)
    axis.grid(axis='x')
    axis.set(xlim=(0, 100), ylim=(len(models) - 0.4, -0.6))
    axis.set_yticks(range(len(models)), [model.name for model in models])
    axis.tick_params(axis='y', length=0)
    axis.set_xlabel("share of the detector's time, %; inside, ms")
    axis.set_title("Where a detector's time goes")
    handles = [Patch(color=_PARTS.get(part, '#495057'), label=part) for part in parts]
    figure.legend(handles=handles, loc='outside upper left', ncols=len(parts))
    return figure
