"""Let mmcv-lite answer ``import mmcv._ext`` from torchvision's operators."""

import importlib.util
import sys
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
    """Finds ``mmcv._ext`` in this package, for an mmcv that has no compiled one."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != EXT_NAME:
            return None
        return importlib.util.spec_from_file_location(EXT_NAME, Path(__file__).with_name('torchvision_ops.py'))


def provide_mmcv_ext() -> None:
    """Make ``mmcv.ops`` importable on mmcv-lite; a compiled ``mmcv._ext`` always wins. Safe to call again.

    The finder goes to the END of ``sys.meta_path``, after the one that finds compiled modules. It must be there
    before ``mmcv.ops`` is first imported, which all of ``mmdet.models`` does.
    """
    if not any(isinstance(finder, TorchvisionExtFinder) for finder in sys.meta_path):
        sys.meta_path.append(TorchvisionExtFinder())
