"""The deploy form of whole models: a backbone, a classifier, a detector."""

from collections import Counter

import mmcv.cnn
import torch
from mmcv.cnn import ConvModule
from mmdet.models.necks import FPN, PAFPN
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UserError
from ..models import FasterNet, PConvBlock
from ..ops import FusedConv2d, bn_scale_shift, fuse_conv_bn
from .backbone import deploy_backbone, require_deployable

_CONVOLUTIONS = (nn.Conv2d, mmcv.cnn.Conv2d)  # mmcv's differs for empty inputs alone


class DeployedPConvBlock(nn.Module):
    """A PConvBlock in evaluation, whose PConv is computed only at the pixels that the pointwise convolution reads.

    Args:
        block (PConvBlock): Its weights are taken over; it is of no use afterwards.

    Shape:
        As of `block`.
    """

    def __init__(self, block: PConvBlock) -> None:
        super().__init__()
        self.stride, self.pconv = block.stride, block.pconv
        self.pconv.partial_conv3.stride, block.pwconv.stride = block.stride, (1, 1)
        self.pconv.partial_conv3, self.pwconv = FusedConv2d(self.pconv.partial_conv3), FusedConv2d(block.pwconv)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = torch.split(x, (self.pconv.conv_channels, self.pconv.pass_channels), dim=1)
        rest = rest[..., :: self.stride[0], :: self.stride[1]]
        return self.pwconv(torch.cat((self.pconv.partial_conv3(first), rest), dim=1))


def has_deploy_form(model: nn.Module) -> bool:
    """Return whether :func:`switch_to_deploy` serves a model: it has a FasterNet, or PConvBlocks."""
    return any(isinstance(module, (FasterNet, PConvBlock, DeployedPConvBlock)) for module in model.modules())


def switch_to_deploy(model: nn.Module) -> nn.Module:
    """Change a trained model in place to its fastest equal form, for evaluation alone.

    BN is folded into the convolutions before it, of a PConvBlock into its pointwise one, output norms into an FPN's
    lateral convolutions, layer scale into the convolution before it; bias, activation and residual are computed inside
    the convolutions, and maps are in channels-last order where the device's libraries want it. Trained weights load
    before the switch; the deploy form's own state dict loads after it. Blocks write over their input: a hook on one
    has to copy what it keeps. A second call changes nothing.

    Args:
        model (nn.Module): A FasterNet, a classifier or detector with one, or any network with PConvBlocks, in
            evaluation mode.

    Returns:
        nn.Module: `model`.

    Raises:
        UserError: In training mode, without a FasterNet or a PConvBlock, or with a norm in a FasterNet that is not BN;
            nothing is changed then.
    """
    backbones = [module for module in model.modules() if isinstance(module, FasterNet)]
    if not has_deploy_form(model):
        name = type(model).__name__
        raise UserError(f'{name} has no FasterNet and no PConvBlock, which alone have a deploy form here')
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
    _fold_traced_norms(model, Counter(id(child) for module in model.modules() for child in module._modules.values()))
    forms = {}  # what is shared between layers stays so
    for module in list(model.modules()):
        for name, child in module._modules.items():  # named_children() names a child once
            form = DeployedPConvBlock if _is_block(child) else FusedConv2d if _is_plain(child) else None
            if form and child not in forms:
                forms[child] = form(child)
            if child in forms:
                setattr(module, name, forms[child])
    return model.requires_grad_(False)


def _is_plain(conv: nn.Module | None) -> bool:
    """Return whether its weights are what it convolves with: not so in ConvWS, nor with spectral norm."""
    return type(conv) in _CONVOLUTIONS and not conv._forward_hooks and not conv._forward_pre_hooks


def _is_block(module: nn.Module | None) -> bool:
    """Return whether `module` is a PConvBlock that nobody looks into."""
    if type(module) is not PConvBlock or module.pconv._forward_hooks or module.pconv._forward_pre_hooks:
        return False
    own = not module._forward_hooks and not module._forward_pre_hooks
    return own and _is_plain(module.pconv.partial_conv3) and _is_plain(module.pwconv)


def _last_of(module: nn.Module) -> nn.Conv2d | None:
    """Return the convolution that gives a module's output, its own or a PConvBlock's, if its weights can be changed."""
    return module.pwconv if _is_block(module) else module if _is_plain(module) else None


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
        conv = _last_of(module.conv)
        if foldable and module.order[:2] == ('conv', 'norm') and conv is not None:
            if uses[id(module.conv)] == 1:
                fuse_conv_bn(conv, module.norm)
                setattr(module, module.norm_name, nn.Identity())
                module.turn_on_efficient_conv_bn_eval(False)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, (PConvBlock, _BatchNorm)) or super().is_leaf_module(module, name)


def _fold_traced_norms(model: nn.Module, places: Counter) -> None:
    """Fold norms in networks with PConvBlocks that are not of mmcv's modules, where a trace shows what a norm follows.

    Of what cannot be traced, the parts are; a norm that is not found stays, and is computed.

    Args:
        model (nn.Module): The network, or a part of it.
        places (Counter): By id of a module, in how many places of the whole network it stands.
    """
    if not any(isinstance(module, PConvBlock) for module in model.modules()):
        return
    try:
        nodes = [node for node in _Tracer().trace(model).nodes if node.op == 'call_module']
    except Exception:  # whatever the network's code does with what is no tensor
        for child in model.children():
            _fold_traced_norms(child, places)
        return
    calls = Counter(node.target for node in nodes)
    for node in nodes:
        norm, before = model.get_submodule(node.target), node.args[0] if node.args else None
        rest = _without_norm(norm)
        if rest is None or norm.running_mean is None or norm._forward_hooks or norm._forward_pre_hooks:
            continue
        if not isinstance(before, fx.Node) or before.op != 'call_module' or len(before.users) > 1:
            continue
        whole = model.get_submodule(before.target)
        conv, names = _last_of(whole), (node.target, before.target)
        if conv is not None and all(calls[name] == 1 for name in names) and places[id(norm)] == places[id(whole)] == 1:
            fuse_conv_bn(conv, norm)
            model.set_submodule(node.target, rest)


def _without_norm(module: nn.Module) -> nn.Module | None:
    """Return what remains of a norm once it is folded, or None where it is no plain BN."""
    if type(module) is nn.BatchNorm2d:
        return nn.Identity()
    return nn.Sequential(module.drop, module.act) if type(module).__name__ == 'BatchNormAct2d' else None  # timm's
