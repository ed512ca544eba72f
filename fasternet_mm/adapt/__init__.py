"""From any mm config to the same with a FasterNet, and from any network to the same with PConv in its convolutions."""

from .convs import ConvRow, replace_convs
from .leaf import find_config, leaf_text, read_config
from .swap import Adaptation, adapt, with_fasternet
from .trial import Trial, try_out

__all__ = [
    'Adaptation',
    'ConvRow',
    'Trial',
    'adapt',
    'find_config',
    'leaf_text',
    'read_config',
    'replace_convs',
    'try_out',
    'with_fasternet',
]
