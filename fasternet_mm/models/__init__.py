"""The operator, the network, and their place in the registries."""

import mmdet.registry
import mmengine.registry
import mmpretrain.registry

from .cls_head import FasterNetClsHead
from .fasternet import FasterNet, FasterNetBlock
from .pconv import PartialConv2d

# A scope finds an unprefixed name in itself or in mmengine's root, and a prefixed one in that scope alone:
# only a class that stands in all three answers to every spelling from everywhere.
for registry in (mmengine.registry, mmdet.registry, mmpretrain.registry):
    registry.MODELS.register_module(module=FasterNet, force=True)
mmpretrain.registry.MODELS.register_module(module=FasterNetClsHead, force=True)

__all__ = ['FasterNet', 'FasterNetBlock', 'FasterNetClsHead', 'PartialConv2d']
