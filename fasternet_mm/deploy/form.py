"""The deploy form of whole models: a backbone, a classifier, a detector."""

from collections import Counter

import mmcv.cnn
from mmcv.cnn import ConvModule
from mmdet.models.necks import FPN, PAFPN
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UserError
from ..models import FasterNet
from ..ops import FusedConv2d, bn_scale_shift, fuse_conv_bn
from .backbone import deploy_backbone, require_deployable

_CONVOLUTIONS = (nn.Conv2d, mmcv.cnn.Conv2d)  # mmcv's differs for empty inputs alone


def switch_to_deploy(model: nn.Module) -> nn.Module:
    """Change a trained model in place to its fastest equal form, for evaluation alone.

    BN is folded into the convolutions before it, output norms into an FPN's lateral convolutions, layer scale into the
    convolution before it; bias, activation and residual are computed inside the convolutions, and maps are in
    channels-last order where the device's libraries want it. Trained weights load before the switch; the deploy form's
    own state dict loads after it. Blocks write over their input: a hook on one has to copy what it keeps. A second
    call changes nothing.

    Args:
        model (nn.Module): A FasterNet, or a classifier or detector with one, in evaluation mode.

    Returns:
        nn.Module: `model`.

    Raises:
        UserError: In training mode, without a FasterNet, or with a norm that is not BN; nothing is changed then.
    """
    backbones = [module for module in model.modules() if isinstance(module, FasterNet)]
    if not backbones:
        raise UserError(f'{type(model).__name__} has no FasterNet, which alone has a deploy form here')
    if model.training:
        raise UserError(
            f'{type(model).__name__} is in training mode, but the deploy form is for evaluation: call eval()'
        )
    for backbone in backbones:
        require_deployable(backbone)
    for backbone in backbones:
        deploy_backbone(backbone)
    for module in model.modules():
        backbone, neck = getattr(module, 'backbone', None), getattr(module, 'neck', None)
        if isinstance(backbone, FasterNet) and backbone.out_norm and type(neck) in (FPN, PAFPN):
            _fold_output_norms(backbone, neck)
    _fold_other_norms(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if _is_plain(child):
                setattr(module, name, FusedConv2d(child))
    return model.requires_grad_(False)


def _is_plain(conv: nn.Module) -> bool:
    """Return whether its weights are what it convolves with: not so in ConvWS, nor with spectral norm."""
    return type(conv) in _CONVOLUTIONS and not conv._forward_hooks and not conv._forward_pre_hooks


def _fold_output_norms(backbone: FasterNet, neck: nn.Module) -> None:
    """Fold output norms into the lateral 1x1 convolutions, where nothing else reads their outputs."""
    if neck.add_extra_convs == 'on_input':
        return
    for index, lateral in zip(backbone.out_indices[neck.start_level :], neck.lateral_convs):
        norm, conv = getattr(backbone, f'norm{2 * index}'), lateral.conv
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None or not _is_plain(conv):
            continue
        scale, shift = bn_scale_shift(norm)
        weight = conv.weight.data.double()
        bias = weight.flatten(1) @ shift
        bias = bias if conv.bias is None else bias + conv.bias.data.double()
        conv.weight.data = (weight * scale.view(1, -1, 1, 1)).to(conv.weight.dtype)
        conv.bias = nn.Parameter(bias.to(conv.weight.dtype))
        setattr(backbone, f'norm{2 * index}', nn.Identity())


def _fold_other_norms(model: nn.Module) -> None:
    """Fold norms of necks and heads, where a convolution has one of its own: some heads share one between levels."""
    modules = [module for module in model.modules() if isinstance(module, ConvModule) and module.with_norm]
    uses = Counter(id(module.conv) for module in modules)
    for module in modules:
        foldable = isinstance(module.norm, _BatchNorm) and module.norm.running_mean is not None
        if foldable and module.order[:2] == ('conv', 'norm') and _is_plain(module.conv):
            if uses[id(module.conv)] == 1:
                fuse_conv_bn(module.conv, module.norm)
                setattr(module, module.norm_name, nn.Identity())
                module.turn_on_efficient_conv_bn_eval(False)
