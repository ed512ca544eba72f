"""Networks as training leaves them, and half precision to try them in."""

import pytest
import torch
from mmengine.utils import digit_version
from torch import nn

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
