"""From any mm config to the same with a FasterNet: what depended on the old backbone follows, and nothing else."""

from .leaf import find_config, leaf_text, read_config
from .swap import Adaptation, adapt, with_fasternet
from .trial import Trial, try_out

__all__ = ['Adaptation', 'Trial', 'adapt', 'find_config', 'leaf_text', 'read_config', 'try_out', 'with_fasternet']
