"""Checkpoint files: which may be loaded, from where, how their tensors are named, and whether they fit.

Imports no model.
"""

from .conversion import convert_checkpoint
from .layouts import LAYOUTS, Layout, convert_state_dict
from .loading import register_loaders
from .matching import check_before_loading, require_loadable, require_matching
from .official import checkpoint_sha256, official_url, require_source
from .weights_only import allow_mmengine_checkpoints

__all__ = [
    'LAYOUTS',
    'Layout',
    'allow_mmengine_checkpoints',
    'check_before_loading',
    'checkpoint_sha256',
    'convert_checkpoint',
    'convert_state_dict',
    'official_url',
    'register_loaders',
    'require_loadable',
    'require_matching',
    'require_source',
]
