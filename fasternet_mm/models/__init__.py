"""The operator, the network, and the classification head."""

from .cls_head import FasterNetClsHead
from .conv_layer import build_pconv_layer
from .fasternet import FasterNet, FasterNetBlock
from .pconv import PartialConv1d, PartialConv2d, PConvBlock, why_not_pconv
from .projection import ProjectedFasterNet

__all__ = [
    'FasterNet',
    'FasterNetBlock',
    'FasterNetClsHead',
    'PConvBlock',
    'PartialConv1d',
    'PartialConv2d',
    'ProjectedFasterNet',
    'build_pconv_layer',
    'why_not_pconv',
]
