"""FasterNet for MMDetection 3.x and MMPretrain 1.x.

Importing this package registers the models, makes mmcv-lite serve as mmcv, and lets checkpoints written by mmengine
load on torch >= 2.6. In a config: ``custom_imports = dict(imports=['fasternet_mm'], allow_failed_imports=False)``.
"""

# the order matters: mmcv's operators must be importable before anything imports mmdet.models
from .compat import provide_mmcv_ext, require_mmcv

require_mmcv()
provide_mmcv_ext()

from .checkpoint import allow_mmengine_checkpoints, check_before_loading, register_loaders  # noqa: E402

allow_mmengine_checkpoints()
register_loaders()
check_before_loading()

from .engine import AtomicCheckpointHook, ExactResumeHook  # noqa: E402
from .hub import register_models  # noqa: E402
from .models import FasterNet, FasterNetBlock, FasterNetClsHead, PartialConv2d  # noqa: E402
from .version import __version__  # noqa: E402

register_models()

__all__ = [
    'AtomicCheckpointHook',
    'ExactResumeHook',
    'FasterNet',
    'FasterNetBlock',
    'FasterNetClsHead',
    'PartialConv2d',
    '__version__',
]
