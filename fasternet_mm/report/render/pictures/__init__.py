"""Pictures of a report, and of several joined: a family of pictures a file."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import matplotlib
from matplotlib.figure import Figure

from ...schema import Report
from .accuracy import accuracy_over_latency
from .figure2 import figure2
from .gap import efficiency_gap
from .latency import latency
from .roofline import roofline
from .split import split
from .style import STYLE
from .tradeoff import figure7, figure8

_OF_ONE_RUN = {
    'accuracy_over_latency.png': accuracy_over_latency,
    'latency.png': latency,
    'split.png': split,
    'roofline.png': roofline,
}
_OF_SEVERAL = {
    'figure2.png': figure2,
    'figure7.png': figure7,
    'figure8.png': figure8,
    'efficiency_gap.png': efficiency_gap,
}


def pictures(report: Report) -> dict[str, bytes]:
    """Draw what a report has data for, as PNG files by name."""
    return _drawn(_OF_ONE_RUN, report) | joined_pictures([report])


def joined_pictures(reports: Sequence[Report], with_paper: bool = False) -> dict[str, bytes]:
    """Draw what several reports have data for together, as PNG files by name.

    Args:
        reports (Sequence[Report]): Runs of any days and devices.
        with_paper (bool): Whether figures 7 and 8 have the paper's own panels, too.
    """
    paper = {f'figure{n}.png': partial(draw, with_paper=with_paper) for n, draw in ((7, figure7), (8, figure8))}
    return _drawn(_OF_SEVERAL | paper, reports)


def _drawn(draws: Mapping[str, Callable[..., Figure | None]], of: Report | Sequence[Report]) -> dict[str, bytes]:
    files = {}
    with matplotlib.rc_context(STYLE):
        for name, draw in draws.items():
            figure, file = draw(of), io.BytesIO()
            if figure:
                figure.savefig(file, format='png')
                files[name] = file.getvalue()
    return files
