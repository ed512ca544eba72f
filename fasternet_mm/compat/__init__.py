"""What stock OpenMMLab lacks on today's PyTorch. Knows nothing of FasterNet."""

from .mmcv_ext import EXT_NAME, TorchvisionExtFinder, require_mmcv

__all__ = ['EXT_NAME', 'TorchvisionExtFinder', 'require_mmcv']
