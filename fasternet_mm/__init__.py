"""FasterNet for MMDetection 3.x and MMPretrain 1.x.

Importing this package registers the models, makes mmcv-lite serve as mmcv, and lets checkpoints written by mmengine
load on torch >= 2.6; each change to the process is a row of :mod:`fasternet_mm.patches`, and ``python -m fasternet_mm``
lists them. In a config: ``custom_imports = dict(imports=['fasternet_mm'], allow_failed_imports=False)``.
"""

from . import patches

patches.install()  # first: mmcv's operators must be there before anything imports mmdet.models

from .engine import AtomicCheckpointHook, ExactResumeHook, FiniteLossHook  # noqa: E402
from .models import FasterNet, FasterNetBlock, FasterNetClsHead, PartialConv1d, PartialConv2d, PConvBlock  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = [
    'AtomicCheckpointHook',
    'ExactResumeHook',
    'FasterNet',
    'FasterNetBlock',
    'FasterNetClsHead',
    'FiniteLossHook',
    'PConvBlock',
    'PartialConv1d',
    'PartialConv2d',
    '__version__',
]
