"""FasterNet (paper, section 3.3 and figure 4), for classification and as a detector's backbone."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UserError
from .arguments import check_bool, check_int, check_layer, check_number, resolve_arch, resolve_out_indices
from .gradient_checkpointing import checkpointed
from .pconv import PartialConv2d

_HAS_ONEDNN = torch.backends.mkldnn.is_available()  # Dynamo does not trace the call


class FasterNetBlock(nn.Module):
    """PConv, then two pointwise convolutions with BN and activation between them, and a residual (figure 4).

    Args:
        channels (int): Number of input and output channels.
        n_div (int): See :class:`PartialConv2d`.
        mlp_ratio (float): Width of the block's middle over `channels`.
        drop_path_rate (float): Stochastic depth of this block.
        layer_scale_init_value (float): Start of a learned scale of the branch, one a channel; 0 for none.
        norm_cfg (dict): Norm after the first pointwise convolution.
        act_cfg (dict): Activation after the norm.
        with_cp (bool): Recompute the block in the backward pass instead of storing its activations.

    Shape:
        Input and output: (N, channels, H, W).
    """

    def __init__(
        self,
        channels: int,
        n_div: int,
        mlp_ratio: float,
        drop_path_rate: float,
        layer_scale_init_value: float,
        norm_cfg: dict,
        act_cfg: dict,
        with_cp: bool,
    ) -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.with_cp = with_cp
        self.spatial_mixing = PartialConv2d(channels, n_div)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            build_norm_layer(norm_cfg, hidden)[1],
            build_activation_layer(act_cfg),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )
        self.layer_scale = (
            nn.Parameter(torch.full((channels,), float(layer_scale_init_value))) if layer_scale_init_value else None
        )
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpointed(self, self._forward, x)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        branch = self.spatial_mixing(x)
        branch = self.mlp(branch)
        if self.layer_scale is not None:
            branch = branch * self.layer_scale.view(-1, 1, 1)
        return x + self.drop_path(branch)


class Stage(nn.Module):
    """`depth` blocks of one width; exists for the official key layout, ``stages.<i>.blocks.<j>``."""

    def __init__(self, drop_path_rates: list[float], **block) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(FasterNetBlock(drop_path_rate=rate, **block) for rate in drop_path_rates))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class PatchEmbed(nn.Module):
    """The stem: a convolution of stride 4, (N, in_channels, H, W) to (N, out_channels, H / 4, W / 4), and its norm."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, 4, stride=4, bias=False)
        self.norm = build_norm_layer(norm_cfg, out_channels)[1]

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        if torch.is_grad_enabled() and x.device.type == 'cpu' and _HAS_ONEDNN:
            # in this order oneDNN copies no maps in training; a copy of the images would be kept for the backward pass
            x = x.contiguous(memory_format=torch.channels_last)
        return self.norm(x)


class PatchMerging(nn.Module):
    """Between two stages: (N, channels, H, W) to (N, 2 * channels, H / 2, W / 2), and its norm."""

    def __init__(self, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(channels, 2 * channels, 2, stride=2, bias=False)
        self.norm = build_norm_layer(norm_cfg, 2 * channels)[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x))


# their names in 0.1.0, for one release: whole models were pickled by them
Embedding, Merging = PatchEmbed, PatchMerging


class FasterNet(BaseModule):
    """FasterNet backbone: a stem, and four stages with mergings between them.

    `Run, Don't Walk: Chasing Higher FLOPS for Faster Neural Networks <https://arxiv.org/abs/2303.03667>`_,
    variants as in table 8. The parameters' names are the official code's, so official files load as they are.

    Args:
        arch (str | dict): 't0', 't1', 't2', 's', 'm' or 'l', or a dict of ``embed_dims`` (int, the first stage's
            channels, doubled at each merging), ``depths`` (four ints: blocks a stage) and ``act_cfg`` (dict,
            ReLU if absent).
        in_channels (int): Channels of the image. Defaults to 3.
        n_div (int): PConv convolves ``channels // n_div`` channels. Defaults to 4.
        mlp_ratio (float): Width of a block's middle over its channels. Defaults to 2.
        out_indices (int | Sequence[int]): Stages to return, 0 to 3; negative ones count from the end. Stages
            after the last one returned are not built. Defaults to (0, 1, 2, 3).
        out_norm (bool): A norm on each output, as the official detection model has. Defaults to False.
        drop_path_rate (float): Stochastic depth of the last block, linear from 0 over depth. Defaults to 0.
        layer_scale_init_value (float): Start of each block's learned scale; 0 for none. Defaults to 0.
        norm_cfg (dict): Defaults to ``dict(type='BN')``.
        act_cfg (dict, optional): Overrides the arch's activation. Defaults to None.
        frozen_stages (int): -1 freezes nothing, 0 the stem, k the stem and the first k stages with their mergings.
            Output norms are never frozen. Defaults to -1.
        norm_eval (bool): Keep BN in evaluation mode (its statistics, not its weights, fixed). Defaults to False.
        with_cp (bool): Gradient checkpointing of every block. Defaults to False.
        init_cfg (dict | list[dict], optional): Defaults to a truncated normal of std 0.02 for convolutions.

    Shape:
        Input: (N, in_channels, H, W), sides of at least 32 pixels.
        Output: a tuple of maps (N, embed_dims * 2**i, H_i, W_i) at strides 4, 8, 16, 32, with sides rounded down
        at the stem and at each merging. On a CPU they are in channels-last order where gradients are wanted.

    Raises:
        ValueError: For any argument of another type or out of range; it is named, with what was expected.
    """

    arch_settings = {
        't0': dict(embed_dims=40, depths=(1, 2, 8, 2), act_cfg=dict(type='GELU')),
        't1': dict(embed_dims=64, depths=(1, 2, 8, 2), act_cfg=dict(type='GELU')),
        't2': dict(embed_dims=96, depths=(1, 2, 8, 2), act_cfg=dict(type='ReLU')),
        's': dict(embed_dims=128, depths=(1, 2, 13, 2), act_cfg=dict(type='ReLU')),
        'm': dict(embed_dims=144, depths=(3, 4, 18, 3), act_cfg=dict(type='ReLU')),
        'l': dict(embed_dims=192, depths=(3, 4, 18, 3), act_cfg=dict(type='ReLU')),
    }
    num_stages = 4
    deployed = False

    def __init__(
        self,
        arch: str | dict = 't0',
        in_channels: int = 3,
        n_div: int = 4,
        mlp_ratio: float = 2.0,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        out_norm: bool = False,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 0.0,
        norm_cfg: dict = dict(type='BN'),
        act_cfg: dict | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='TruncNormal', layer='Conv2d', std=0.02))
        settings = resolve_arch(arch, self.arch_settings, self.num_stages)
        channels, depths = settings['embed_dims'], settings['depths']
        act_cfg = settings['act_cfg'] if act_cfg is None else act_cfg
        check_int('in_channels', in_channels, least=1)
        check_int('n_div', n_div, least=1, most=channels)
        check_number('mlp_ratio', mlp_ratio, least=1 / channels)
        check_number('drop_path_rate', drop_path_rate, least=0, below=1)
        check_number('layer_scale_init_value', layer_scale_init_value, least=0)
        check_int('frozen_stages', frozen_stages, least=-1, most=self.num_stages)
        check_layer('norm_cfg', norm_cfg)
        check_layer('act_cfg', act_cfg)
        for name, value in (('out_norm', out_norm), ('norm_eval', norm_eval), ('with_cp', with_cp)):
            check_bool(name, value)
        self.out_indices = resolve_out_indices(out_indices, self.num_stages)
        self.out_norm = out_norm
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        block = dict(
            n_div=n_div, mlp_ratio=mlp_ratio, layer_scale_init_value=layer_scale_init_value,
            norm_cfg=norm_cfg, act_cfg=act_cfg, with_cp=with_cp,
        )  # fmt: skip
        rates = iter(np.linspace(0, drop_path_rate, sum(depths)).tolist())
        self.patch_embed = PatchEmbed(in_channels, channels, norm_cfg)
        # stages and mergings in turn: stages.0, .2, .4, .6 are stages, .1, .3, .5 the mergings before them
        self.stages = nn.ModuleList()
        for index in range(max(self.out_indices) + 1):
            if index > 0:
                self.stages.append(PatchMerging(channels, norm_cfg))
                channels *= 2
            drop_path_rates = list(islice(rates, depths[index]))
            self.stages.append(Stage(drop_path_rates, channels=channels, **block))
            if out_norm and index in self.out_indices:
                self.add_module(f'norm{2 * index}', build_norm_layer(norm_cfg, channels)[1])
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.patch_embed(x)
        outs = {}
        for position, layer in enumerate(self.stages):
            x = layer(x)
            index, is_merging = divmod(position, 2)
            if not is_merging and index in self.out_indices:
                outs[index] = getattr(self, f'norm{position}')(x) if self.out_norm else x
        return tuple(outs[index] for index in self.out_indices)

    def train(self, mode: bool = True) -> 'FasterNet':
        """Set the mode, keep frozen parts in evaluation (and all BN, with norm_eval), and return self.

        Raises:
            UserError: In the deploy form.
        """
        if mode and self.deployed:
            raise UserError(
                'FasterNet is in its deploy form, which cannot be trained: build it anew and load the trained weights'
            )
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        # the first k stages and the mergings between them stand in stages[:2k - 1]
        for part in (self.patch_embed, *self.stages[: max(2 * self.frozen_stages - 1, 0)]):
            part.eval()
            part.requires_grad_(False)

    def switch_to_deploy(self) -> None:
        """Change the backbone in place to its deploy form: see :func:`fasternet_mm.deploy.switch_to_deploy`."""
        from ..deploy import switch_to_deploy

        switch_to_deploy(self)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter, for mmpretrain's layer-wise learning rate decay.

        Args:
            param_name (str): The parameter's name in the whole model.
            prefix (str): The backbone's name in it, with a trailing dot. Defaults to ''.

        Returns:
            tuple[int, int]: The depth, and the number of depths: 0 for the stem, one more for each block (a merging
            counts with the block after it), and the last for all that is new in a task: output norms, neck, heads.
        """
        num_layers = sum(len(stage.blocks) for stage in self.stages[::2]) + 2
        name = param_name.removeprefix(prefix)
        if not param_name.startswith(prefix) or not name.startswith(('patch_embed.', 'stages.')):
            return num_layers - 1, num_layers
        if name.startswith('patch_embed.'):
            return 0, num_layers
        position, *rest = name.removeprefix('stages.').split('.')
        before = sum(len(stage.blocks) for stage in self.stages[: int(position) : 2])
        return before + (int(rest[1]) if rest[0] == 'blocks' else 0) + 1, num_layers

    def _checkpoint_filter(self, state_dict: dict, prefix: str, *args) -> None:
        """Rename foreign tensors before they load, as mmpretrain asks a backbone, here for torch's load_state_dict."""
        from ..checkpoint import rename_to_mm

        rename_to_mm(state_dict, prefix)
