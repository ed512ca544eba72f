"""Networks as training leaves them, and half precision to try them in."""

import pytest
import torch
from mmengine.utils import digit_version
from torch import nn

from fasternet_mm import PConvBlock

# before torch 2.4, fp16 on a CPU lacks autocast and most kernels
OLD = digit_version(torch.__version__) < digit_version('2.4')
HALF = [pytest.param(torch.float16, marks=pytest.mark.skipif(OLD, reason='no fp16 on this CPU torch')), torch.bfloat16]


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """`model` in evaluation mode with weights and statistics as training leaves them: none of them 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, module.weight[0].numel() ** -0.5, generator=generator)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 1.5, generator=generator)
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor, 0, 0.1, generator=generator)
    return model.eval()


def t_shaped_filter(block: PConvBlock) -> torch.Tensor:
    """The k x k convolution that a block is: PConv's filters mixed, and the centre alone of the other channels."""
    pointwise, first = block.pwconv.weight[..., 0, 0], block.pconv.conv_channels
    weight = torch.zeros(block.out_channels, block.in_channels, *block.kernel_size)
    weight[:, :first] = torch.einsum('om,mihw->oihw', pointwise[:, :first], block.pconv.partial_conv3.weight)
    middle = block.kernel_size[0] // 2
    weight[:, first:, middle, middle] = pointwise[:, first:]
    return weight
