"""Accuracy, latency and size of a model, measured together: what `tools/report.py` is made of.

``measure/`` fills a report, ``paper/`` knows what was published, ``render/`` shows it; ``schema.py`` is its format.
``claims/`` holds it, and studies, against what the paper says.
"""

from .command import from_config, run, run_suite, select_device
from .measure.environment import snapshot
from .measure.evaluation import check_evaluation, evaluate
from .measure.modes import DTYPES
from .measure.runner import SCOPES, Options, Reporter, check_continues, new_report
from .measure.subject import Subject, from_timm, require_timm
from .measure.timing import Limits
from .paper.suites import TABLES, suite
from .render.compare import compare
from .render.files import draw, load, save, write
from .render.terminal import terminal_tables
from .schema import MODES

__all__ = [
    'DTYPES', 'MODES', 'SCOPES', 'TABLES', 'Limits', 'Options', 'Reporter', 'Subject', 'check_continues',
    'check_evaluation', 'compare', 'draw', 'evaluate', 'from_config', 'from_timm', 'load', 'new_report', 'require_timm',
    'run', 'run_suite', 'save', 'select_device', 'snapshot', 'suite', 'terminal_tables', 'write',
]  # fmt: skip
