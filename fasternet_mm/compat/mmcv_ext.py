"""Let mmcv-lite answer ``import mmcv._ext`` from torchvision's operators."""

import importlib.util
from importlib.abc import MetaPathFinder
from pathlib import Path

EXT_NAME = 'mmcv._ext'


def require_mmcv() -> None:
    """Raise ImportError, with what to install, where there is no mmcv at all."""
    if importlib.util.find_spec('mmcv') is None:
        raise ImportError(
            'fasternet_mm needs mmcv, and none is installed. Install one of the two: `pip install mmcv-lite==2.1.0` '
            '(pure Python, its operators come from torchvision), or a compiled mmcv >= 2.0.0, < 2.2.0 '
            '(`mim install "mmcv>=2.0.0,<2.2.0"`).'
        )


class TorchvisionExtFinder(MetaPathFinder):
    """Finds ``mmcv._ext`` in this package, for an mmcv that has no compiled one.

    It belongs at the END of ``sys.meta_path``, so that a compiled ``mmcv._ext`` wins, and must be there before
    ``mmcv.ops`` is first imported, which all of ``mmdet.models`` does.
    """

    file = str(Path(__file__).with_name('torchvision_ops.py'))

    def find_spec(self, fullname, path=None, target=None):
        """Return the module of torchvision's operators as the spec of ``mmcv._ext``, and None for other names."""
        return importlib.util.spec_from_file_location(EXT_NAME, self.file) if fullname == EXT_NAME else None
