"""Operators for inference that know nn.Conv2d and BN alone: a fused convolution, and BN fused into a convolution."""

from .bn_fusing import bn_scale_shift, fuse_conv_bn, require_fusible
from .fused_conv import FusedConv2d, autocast_dtype, onednn_dtype

__all__ = ['FusedConv2d', 'autocast_dtype', 'bn_scale_shift', 'fuse_conv_bn', 'onednn_dtype', 'require_fusible']
