"""What stock OpenMMLab lacks on today's PyTorch. Knows nothing of FasterNet."""

from .mmcv_ext import provide_mmcv_ext, require_mmcv

__all__ = ['provide_mmcv_ext', 'require_mmcv']
