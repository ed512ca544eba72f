"""The functions of mmcv's compiled ``mmcv._ext``; executed under that name, hence the absolute imports.

An operator that is not here raises when it is called: ``mmcv.ops`` asks for all of them when it is imported.
"""

# ruff: noqa: F403  the functions are attributes of this module, as tracers of PyTorch want them

import torchvision

from fasternet_mm.compat.ops.attention import *
from fasternet_mm.compat.ops.boxes import *
from fasternet_mm.compat.ops.carafe import *
from fasternet_mm.compat.ops.deform_conv import *
from fasternet_mm.compat.ops.losses import *
from fasternet_mm.compat.ops.masked_conv import *
from fasternet_mm.compat.ops.norm import *
from fasternet_mm.compat.ops.roi import *


def get_compiler_version() -> str:
    """Return what ``mmcv.utils.collect_env`` reports as the compiler."""
    return 'none (mmcv-lite, operators from torchvision)'


def get_compiling_cuda_version() -> str:
    """Return what ``mmcv.utils.collect_env`` reports as the version of CUDA."""
    return f'that of torchvision {torchvision.__version__}'


def __getattr__(name: str):
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(
            f'The operator mmcv._ext.{name} needs a compiled mmcv: without one, fasternet_mm answers those that mmdet, '
            'mmpretrain and mmsegmentation call, listed in docs/operators.md. Install one with '
            '`mim install "mmcv>=2.0.0,<2.2.0"`, or see https://mmcv.readthedocs.io/en/2.x/get_started/build.html.'
        )

    return missing
