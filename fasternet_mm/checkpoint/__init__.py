"""Checkpoint files: which may be loaded, from where, how their tensors are named, and whether they fit.

Imports no model at module level.
"""

from .conversion import convert_checkpoint
from .layouts import LAYOUTS, Layout, convert_state_dict, rename_to_mm
from .matching import load_strict, require_filling
from .official import checkpoint_sha256, official_url, require_source
from .rules import require_matching

# names of 0.1.0, for one release; what the last three did is done by importing fasternet_mm
require_loadable = load_strict


def register_loaders() -> None:
    """Call :func:`fasternet_mm.patches.install`, which does more than this name of 0.1.0 says."""
    from ..patches import install

    install()


allow_mmengine_checkpoints = check_before_loading = register_loaders

__all__ = [
    'LAYOUTS',
    'Layout',
    'allow_mmengine_checkpoints',
    'check_before_loading',
    'checkpoint_sha256',
    'convert_checkpoint',
    'convert_state_dict',
    'load_strict',
    'official_url',
    'register_loaders',
    'rename_to_mm',
    'require_filling',
    'require_loadable',
    'require_matching',
    'require_source',
]
