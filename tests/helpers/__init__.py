"""What tests share: paths, models that are built the same way everywhere, and how results are compared."""

import importlib.util
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

REPO = Path(__file__).parents[2]
SHARED = REPO.parent / 'shared'
CLASSES = ('blue', 'green', 'red')  # of the fixture `image_folder`

HAS_MMSEG = importlib.util.find_spec('mmseg') is not None
needs_mmseg = pytest.mark.skipif(not HAS_MMSEG, reason='mmsegmentation, which is optional, is not installed')


def classifier_config(arch: str) -> Config:
    return Config.fromfile(REPO / 'configs' / f'fasternet_{arch}_in1k.py')


def build_classifier(arch: str, **head) -> torch.nn.Module:
    """The shipped ImageNet classifier of a variant."""
    cfg = classifier_config(arch)
    cfg.model.head.update(head)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    return MODELS.build(cfg.model)


def one_line(done: subprocess.CompletedProcess) -> str:
    """The error that a tool ended with, which is one line."""
    assert done.returncode != 0
    assert 'Traceback' not in done.stderr, done.stderr[-2000:]
    line = done.stderr.strip().splitlines()[-1]
    assert ': error: ' in line, done.stderr[-2000:]
    return line


def relative_error(got, want) -> float:
    """Norm of the difference over the norm of what is wanted, in float64; of several, the largest, and NaN if any is.

    Takes a tensor or an array, or a list or tuple of them.
    """
    if isinstance(want, (list, tuple)):
        errors = [relative_error(a, b) for a, b in zip(got, want, strict=True)]
        return float(torch.tensor(errors, dtype=torch.float64).max())  # Python's max may pass over NaN
    got, want = (torch.as_tensor(value, dtype=torch.float64) for value in (got, want))
    return float((got - want).norm() / want.norm())
