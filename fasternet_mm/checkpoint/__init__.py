"""Checkpoint files: which may be loaded, from where, how their tensors are named, and whether they fit.

Imports no model at module level.
"""

from .conversion import convert_checkpoint
from .layouts import LAYOUTS, Layout, convert_state_dict, rename_to_mm
from .matching import load_strict, require_filling
from .official import checkpoint_sha256, official_url, require_source
from .rules import require_matching

require_loadable = load_strict  # its name in 0.1.0, for one release

__all__ = [
    'LAYOUTS',
    'Layout',
    'checkpoint_sha256',
    'convert_checkpoint',
    'convert_state_dict',
    'load_strict',
    'official_url',
    'rename_to_mm',
    'require_filling',
    'require_loadable',
    'require_matching',
    'require_source',
]
