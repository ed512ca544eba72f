"""How tests measure: shortly, on small images."""

import copy
import tempfile
from pathlib import Path

import torch

from fasternet_mm.report import Limits, Options, Reporter, new_report
from fasternet_mm.report.schema import Report, from_json, to_json

CPU = torch.device('cpu')
FAST = Limits(warmup=0.0, min_seconds=0.0, repeats=2)


def run(subjects, **options) -> Report:
    """Measure models, as they would be read from a file again."""
    options = Options(**dict(dict(device=CPU, shape=(64, 64), limits=FAST, evaluate=False), **options))
    saved = []
    reporter = Reporter(new_report(options, ['report.py']), options, lambda r: saved.append(copy.deepcopy(r)), str)
    with tempfile.TemporaryDirectory() as folder:
        reporter.run(subjects, Path(folder))
    assert saved and not saved[0].complete  # on the way already
    reporter.finish()
    return from_json(to_json(saved[-1]), 'what was saved last')
