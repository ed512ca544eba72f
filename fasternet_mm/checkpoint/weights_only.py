"""What checkpoints that mmengine wrote hold besides tensors, for torch's ``weights_only=True``, the default.

They pickle the logged scalars (mmengine's HistoryBuffer, numpy arrays) and, by ``getattr``, a few functions of
mmengine's own classes. These are named here; everything else that is not plain data stays refused.
"""

import pickle
from argparse import Namespace
from collections.abc import Callable

import numpy as np
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler

_FUNCTIONS = {
    HistoryBuffer: ('current', 'max', 'mean', 'min'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def _function_of_mmengine(obj, name):
    """Serve as ``getattr`` for the functions above alone."""
    if isinstance(obj, type) and name in _FUNCTIONS.get(obj, ()):
        return getattr(obj, name)
    raise pickle.UnpicklingError(f'Unsupported global: GLOBAL builtins.getattr of {obj}, {name}')


def safe_globals() -> list[type | tuple[Callable, str]]:
    """Return what to add to torch's list of safe globals."""
    core = np.core if np.__version__.startswith('1.') else np._core
    functions = (core.multiarray._reconstruct, core.multiarray.scalar)
    return [
        *_FUNCTIONS,
        (_function_of_mmengine, 'builtins.getattr'),
        # the arguments of timm's training script, and of many others; by name, so that it outlasts timm's own
        # torch.serialization.safe_globals([Namespace])
        (Namespace, 'argparse.Namespace'),
        np.ndarray,
        np.dtype,
        *{type(np.dtype(code)) for code in '?bhilqBHILQefdFDSU'},
        # files written by numpy 1 and by numpy 2 name these two differently
        *((f, f'numpy.{module}.multiarray.{f.__name__}') for f in functions for module in ('core', '_core')),
    ]
