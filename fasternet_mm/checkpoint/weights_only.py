"""Let checkpoints that mmengine wrote pass torch's ``weights_only=True``, the default since torch 2.6.

Besides tensors they pickle the logged scalars: mmengine's HistoryBuffer, numpy arrays, and four of HistoryBuffer's
methods by ``getattr``. These are allowed by name; everything else that is not plain data stays refused.
"""

import pickle

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

_STATISTICS = ('current', 'max', 'mean', 'min')


def _history_buffer_statistic(obj, name):
    """``getattr``, for the statistics of HistoryBuffer alone."""
    if obj is HistoryBuffer and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'Unsupported global: GLOBAL builtins.getattr of {obj}, {name}')


def allow_mmengine_checkpoints() -> None:
    """Extend torch's list of safe globals; before torch 2.6 there is nothing to extend, for torch.load runs pickles."""
    if digit_version(torch.__version__) < digit_version('2.6'):
        return
    core = np.core if np.__version__.startswith('1.') else np._core
    reconstruct = core.multiarray._reconstruct
    scalar = core.multiarray.scalar
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            *{type(np.dtype(code)) for code in '?bhilqBHILQefdSU'},
            # files written by numpy 1 and by numpy 2 name these two differently
            *((func, f'numpy.{module}.multiarray.{func.__name__}')
              for func in (reconstruct, scalar) for module in ('core', '_core')),
            (_history_buffer_statistic, 'builtins.getattr'),
        ]
    )  # fmt: skip
