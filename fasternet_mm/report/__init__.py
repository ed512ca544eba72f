"""Accuracy, latency and size of a model, measured together: what `tools/report.py` is made of."""

from .comparison import compare
from .environment import snapshot
from .evaluation import check_evaluation, evaluate
from .modes import DTYPES, MODES
from .output import load, save, terminal_tables, write
from .run import SCOPES, Options, Reporter, check_continues, new_report
from .subject import Subject, from_config, from_timm, require_timm
from .suites import suite
from .timing import Limits

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
