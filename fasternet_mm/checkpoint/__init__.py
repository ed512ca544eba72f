"""Checkpoint files: which may be loaded, from where, and whether they fit. Imports no model."""

from .loading import register_loaders, require_file
from .matching import check_before_loading, require_loadable, require_matching
from .weights_only import allow_mmengine_checkpoints

__all__ = [
    'allow_mmengine_checkpoints',
    'check_before_loading',
    'register_loaders',
    'require_file',
    'require_loadable',
    'require_matching',
]
