"""BN in evaluation, as part of the convolution before it."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..errors import UserError


def fuse_conv_bn(conv: nn.Conv2d, bn: nn.Module) -> nn.Conv2d:
    """Put the BN after a convolution into its weight and bias, in place, computed in double precision; return it."""
    tensors = (conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.weight, bn.bias)
    weight, bias, mean, var, scale, shift = (None if t is None else t.detach().double() for t in tensors)
    weight, bias = fuse_conv_bn_weights(weight, bias, mean, var, bn.eps, scale, shift)
    conv.weight.data = weight.data.to(conv.weight.dtype)
    conv.bias = nn.Parameter(bias.data.to(conv.weight.dtype))
    return conv


def bn_scale_shift(bn: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what a BN in evaluation multiplies by and adds, one of each a channel, in double precision."""
    scale = (bn.running_var.double() + bn.eps).rsqrt()
    scale = scale if bn.weight is None else scale * bn.weight.data.double()
    shift = -bn.running_mean.double() * scale
    return scale, shift if bn.bias is None else shift + bn.bias.data.double()


def require_fusible(name: str, norm: nn.Module) -> None:
    """Raise UserError unless `norm`, which is called `name`, is a BN with statistics."""
    what = f'{name} is {type(norm).__name__}'
    if isinstance(norm, nn.SyncBatchNorm):
        raise UserError(f'{what}: convert it first, by mmengine.model.revert_sync_batchnorm(model)')
    if not isinstance(norm, _BatchNorm):
        raise UserError(f'{what}, which cannot be folded into a convolution: only BN can; evaluate the trained form')
    if norm.running_mean is None:
        raise UserError(f'{what} without running statistics, which cannot be folded into a convolution')
