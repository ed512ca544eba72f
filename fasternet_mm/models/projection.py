"""A FasterNet whose outputs have the channels and strides of another backbone's."""

import math
from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from .arguments import check_int
from .fasternet import FasterNet

_STRIDES = (4, 8, 16, 32)  # of the stages


class ProjectedFasterNet(BaseModule):
    """FasterNet with a 1x1 convolution, BN, and resampling behind each output. It is not of the paper.

    Args:
        fasternet (dict): Arguments of :class:`FasterNet`, without ``out_indices``, which follow from the stages.
        out_channels (Sequence[int]): Channels of each output.
        out_strides (Sequence[int]): Stride of each output in pixels of the image; in any order, also several times.
        stages (Sequence[int], optional): The stage, 0 to 3, that each output comes from. Defaults to those whose
            strides are nearest to the ones that are asked for.
        predicts (int, optional): Index of the output that is given alone in evaluation mode, as a map and no tuple: the
            heads of DDRNet and PIDNet ask for it. Defaults to None, all outputs in both modes.

    Shape:
        Input: (N, in_channels, H, W), sides of at least 32 pixels.
        Output: a tuple of maps (N, out_channels[i], H / out_strides[i], W / out_strides[i]), or one of them.

    Raises:
        ValueError: For any argument of another type or out of range; it is named, with what was expected.
    """

    def __init__(
        self,
        fasternet: dict,
        out_channels: Sequence[int],
        out_strides: Sequence[int],
        stages: Sequence[int] | None = None,
        predicts: int | None = None,
    ) -> None:
        super().__init__()
        _check_ints('out_channels', out_channels, least=1)
        _check_ints('out_strides', out_strides, least=1)
        stages = [_nearest_stage(stride) for stride in out_strides] if stages is None else stages
        _check_ints('stages', stages, least=0, most=3)
        for name, values in (('out_strides', out_strides), ('stages', stages)):
            if len(out_channels) != len(values):
                raise UserError(f'out_channels has {len(out_channels)} entries, but {name} {len(values)}')
        if predicts is not None:
            check_int('predicts', predicts, least=0, most=len(out_channels) - 1)
        self.predicts = predicts
        self.fasternet = FasterNet(**fasternet, out_indices=sorted(set(stages)))
        self.sources = [self.fasternet.out_indices.index(stage) for stage in stages]
        self.scales = [_STRIDES[stage] / stride for stage, stride in zip(stages, out_strides)]
        embed_dims = self.fasternet.patch_embed.proj.out_channels
        self.projections = nn.ModuleList(
            ConvModule(embed_dims * 2**stage, channels, 1, norm_cfg=dict(type='BN'), act_cfg=None)
            for stage, channels in zip(stages, out_channels)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        maps = self.fasternet(x)
        # in the order that all heads take: FasterNet's own is channels-last where a CPU trains
        outs = [project(maps[source]).contiguous() for source, project in zip(self.sources, self.projections)]
        outs = tuple(
            out if scale == 1 else F.interpolate(out, scale_factor=scale, mode='bilinear', align_corners=False)
            for out, scale in zip(outs, self.scales)
        )
        return outs if self.training or self.predicts is None else outs[self.predicts]


def _check_ints(name: str, values: Sequence[int], **limits: int) -> None:
    if not isinstance(values, (list, tuple)) or not values:
        raise UserError(f'{name} must be a list of ints, but is {values!r}')
    for index, value in enumerate(values):
        check_int(f'{name}[{index}]', value, **limits)


def _nearest_stage(stride: int) -> int:
    return min(range(len(_STRIDES)), key=lambda stage: abs(math.log2(_STRIDES[stage] / stride)))
