"""The operator, the network, and the classification head."""

from .cls_head import FasterNetClsHead
from .fasternet import FasterNet, FasterNetBlock
from .pconv import PartialConv2d
from .projection import ProjectedFasterNet

__all__ = ['FasterNet', 'FasterNetBlock', 'FasterNetClsHead', 'PartialConv2d', 'ProjectedFasterNet']
