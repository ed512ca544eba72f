"""Accuracy, latency and size of a model, measured together: what `tools/report.py` is made of."""

from .measure.environment import snapshot
from .measure.evaluation import check_evaluation, evaluate
from .measure.modes import DTYPES, MODES
from .measure.runner import SCOPES, Options, Reporter, check_continues, new_report
from .measure.subject import Subject, from_config, from_timm, require_timm
from .measure.timing import Limits
from .paper.suites import suite
from .render.compare import compare
from .render.output import load, save, terminal_tables, write

__all__ = [
    'DTYPES',
    'MODES',
    'SCOPES',
    'Limits',
    'Options',
    'Reporter',
    'Subject',
    'check_continues',
    'check_evaluation',
    'compare',
    'evaluate',
    'from_config',
    'from_timm',
    'load',
    'new_report',
    'require_timm',
    'save',
    'snapshot',
    'suite',
    'terminal_tables',
    'write',
]
