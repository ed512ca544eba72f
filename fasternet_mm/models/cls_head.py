"""The classification head of the paper's table 8."""

import torch
from mmcv.cnn import build_activation_layer
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from .arguments import check_bool, check_cfg, check_int, check_layer


class FasterNetClsHead(ClsHead):
    """Global average pooling, a 1x1 convolution without bias, an activation, and a linear layer (table 8).

    Args:
        num_classes (int): Number of classes.
        in_channels (int): Channels of the backbone's last map, eight times its ``embed_dims``.
        hidden_channels (int): Width between the convolution and the linear layer. Defaults to 1280.
        act_cfg (dict): Activation, the backbone's own: GELU for T0 and T1, ReLU for the others (the default).
        ignore_mismatched_sizes (bool): Allow a checkpoint of another number of classes: its linear layer is then left
            out, which the log says. Otherwise it is an error. Defaults to False.
        loss (dict): Defaults to ``dict(type='CrossEntropyLoss', loss_weight=1.0)``.
        topk (int | tuple[int]): Of the training accuracy. Defaults to (1,).
        cal_acc (bool): Whether to log the training accuracy, which Mixup and CutMix rule out. Defaults to False.
        init_cfg (dict | list[dict], optional): Defaults to a truncated normal of std 0.02, biases 0.

    Shape:
        Input: the backbone's outputs, of which the last is used: (N, in_channels, H, W).
        Output: logits (N, num_classes).

    Raises:
        ValueError: For any argument of another type or out of range; it is named, with what was expected.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        hidden_channels: int = 1280,
        act_cfg: dict = dict(type='ReLU'),
        ignore_mismatched_sizes: bool = False,
        loss: dict = dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk: int | tuple[int, ...] = (1,),
        cal_acc: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        for name, value in (
            ('num_classes', num_classes),
            ('in_channels', in_channels),
            ('hidden_channels', hidden_channels),
        ):
            check_int(name, value, least=1)
        check_layer('act_cfg', act_cfg)
        if not isinstance(loss, nn.Module):
            check_cfg('loss', loss)
        for name, value in (('ignore_mismatched_sizes', ignore_mismatched_sizes), ('cal_acc', cal_acc)):
            check_bool(name, value)
        for value in topk if isinstance(topk, (list, tuple)) else (topk,):
            check_int('topk', value, least=1, most=num_classes if cal_acc else None)
        default_init = dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0)
        super().__init__(loss, topk, cal_acc, init_cfg or default_init)
        self.num_classes = num_classes
        self.ignore_mismatched_sizes = ignore_mismatched_sizes
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv2d(in_channels, hidden_channels, 1, bias=False)
        self.act = build_activation_layer(act_cfg)
        self.fc = nn.Linear(hidden_channels, num_classes)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Return the features before the linear layer, (N, hidden_channels)."""
        return torch.flatten(self.act(self.conv(self.pool(feats[-1]))), 1)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        return self.fc(self.pre_logits(feats))
