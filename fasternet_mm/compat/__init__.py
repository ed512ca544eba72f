"""What stock OpenMMLab lacks on today's PyTorch. Knows nothing of FasterNet."""

from .mmcv_ext import EXT_NAME, TorchvisionExtFinder, require_mmcv
from .multimodal import MultimodalFinder


def provide_mmcv_ext() -> None:
    """Call :func:`fasternet_mm.patches.install`, a row of which this name of 0.1.0 was; for one release."""
    from ..patches import install

    install()


__all__ = ['EXT_NAME', 'MultimodalFinder', 'TorchvisionExtFinder', 'provide_mmcv_ext', 'require_mmcv']
