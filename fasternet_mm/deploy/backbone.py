"""The parts of a FasterNet in its deploy form: BN folded, bias, activation and residual inside the convolutions."""

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..models.fasternet import FasterNet, FasterNetBlock, PatchEmbed, PatchMerging
from ..ops import FusedConv2d, fuse_conv_bn, onednn_dtype, require_fusible


class DeployedBlock(nn.Module):
    """A FasterNetBlock in evaluation: three convolutions, whose own hooks do not run where oneDNN does.

    The output may be written over the input, so that a hook has to copy what it keeps.

    Args:
        block (FasterNetBlock): Its weights are folded; it is of no use afterwards.

    Shape:
        Input and output: (N, C, H, W).
    """

    def __init__(self, block: FasterNetBlock) -> None:
        super().__init__()
        expand, norm, activation, reduce = block.mlp
        self.spatial_mixing = block.spatial_mixing
        self.spatial_mixing.partial_conv3 = FusedConv2d(block.spatial_mixing.partial_conv3)
        if block.layer_scale is not None:
            reduce.weight.data *= block.layer_scale.data.view(-1, 1, 1, 1)
        # the names of the trained form, so that what reads them reads both
        self.mlp = nn.ModuleDict({'0': FusedConv2d(fuse_conv_bn(expand, norm), activation), '3': FusedConv2d(reduce)})

    def forward(self, x: Tensor) -> Tensor:
        """Write the output over `x` where it can be: within a stage nothing else reads it."""
        expand, reduce, dtype = self.mlp['0'], self.mlp['3'], onednn_dtype(x)
        if dtype is None:
            return reduce(expand(self.spatial_mixing(x)), x)
        mixed = x.to(dtype)
        convolved = mixed[:, : self.spatial_mixing.conv_channels]
        before = convolved.clone()  # for the residual; the other channels are not copied
        convolved.copy_(self.spatial_mixing.partial_conv3.by_onednn(convolved, dtype))
        hidden = expand.by_onednn(mixed, dtype)
        convolved.copy_(before)
        return reduce.by_onednn(hidden, dtype, x)


class DeployedStem(nn.Module):
    """The stem in evaluation: one convolution, in channels-last order where convolutions in one pass want it.

    Args:
        stem (PatchEmbed): Its weights are folded.

    Shape:
        Input: (N, C, H, W). Output: (N, embed_dims, H / 4, W / 4).
    """

    def __init__(self, stem: PatchEmbed) -> None:
        super().__init__()
        self.proj = FusedConv2d(fuse_conv_bn(stem.proj, stem.norm))

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda or onednn_dtype(x) is not None:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.proj(x)


def require_deployable(backbone: FasterNet) -> None:
    """Raise UserError in training mode, or if a norm is not BN."""
    if backbone.training:
        raise UserError('FasterNet is in training mode, but its deploy form is for evaluation: call eval() first')
    for name, part in backbone.named_modules():
        if isinstance(part, FasterNetBlock):
            require_fusible(f'{name}.mlp.1', part.mlp[1])
        elif isinstance(part, (PatchEmbed, PatchMerging)) and not backbone.deployed:
            require_fusible(f'{name}.norm', part.norm)


def deploy_backbone(backbone: FasterNet) -> None:
    """Change a FasterNet in place to its deploy form. Output norms stay: what follows them is not in the backbone."""
    if backbone.deployed:
        return
    backbone.patch_embed = DeployedStem(backbone.patch_embed)
    for part in backbone.stages:
        if isinstance(part, PatchMerging):
            part.reduction, part.norm = FusedConv2d(fuse_conv_bn(part.reduction, part.norm)), nn.Identity()
        else:
            part.blocks = nn.Sequential(*map(DeployedBlock, part.blocks))
    backbone.deployed = True
