"""The modes that a model can run in: as it was trained, and in faster forms."""

import copy

import torch
import torch._dynamo
import torch._inductor.config
from mmcv.cnn import fuse_conv_bn
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...deploy import switch_to_deploy
from ...errors import UserError
from ...models import FasterNet

COMPILERS = {
    'compile': 'default',
    'compile-max-autotune': 'max-autotune',
    'compile-reduce-overhead': 'reduce-overhead',
}
RUNTIMES = ('onnxruntime', 'openvino')
# those that replay what a GPU was told once
GRAPHS = ('graphs', 'compile-reduce-overhead')
MODES = ('eager', 'fused', 'deploy', 'graphs', *COMPILERS, *RUNTIMES)
# those of which accuracy is measured, too, and a detector's time can be split
PLAIN_MODES = ('eager', 'fused', 'deploy')
DTYPES = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)


def in_mode(
    model: nn.Module, mode: str, device: torch.device, channels_last: bool = False
) -> tuple[nn.Module, list[str]]:
    """A copy of `model`, changed as a mode says, on a device; what is to be said of it. Compiling is left out."""
    if mode in GRAPHS and device.type != 'cuda':
        raise UserError(f'mode {mode} is for --device cuda')
    model, labels = copy.deepcopy(model), []
    if mode == 'fused':
        norms = _count_norms(model)
        model = fused(model)
        if _count_norms(model) == norms:
            labels.append('nothing was fused: no BN follows a convolution')
    elif mode in ('deploy', 'graphs', *RUNTIMES):
        backbone = getattr(model, 'backbone', model)
        if any(isinstance(module, FasterNet) for module in model.modules()):
            switch_to_deploy(model)
        elif hasattr(backbone, 'switch_to_deploy'):  # mmpretrain's RepVGG, say
            backbone.switch_to_deploy()
        elif mode in ('deploy', 'graphs'):
            raise UserError(f'mode {mode}: neither a FasterNet nor a backbone with switch_to_deploy()')
        else:
            model = fused(model)
    # what has its own order, as the deploy form, keeps it
    return model.to(device, **(dict(memory_format=torch.channels_last) if channels_last else {})), labels


def _count_norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def half(device: torch.device, dtype: str) -> torch.autocast:
    """Autocast to a dtype; of no effect for fp32."""
    return torch.autocast(device.type, DTYPES[dtype], enabled=dtype != 'fp32')


def compiled(module: nn.Module, mode: str) -> None:
    """Compile a module where it is, at its best: with weights frozen, inductor folds BN and orders weights once."""
    torch._inductor.config.freezing = True  # also read while tracing, which is why it is no option of compile()
    limit = 'recompile_limit' if hasattr(torch._dynamo.config, 'recompile_limit') else 'cache_size_limit'
    setattr(torch._dynamo.config, limit, 64)  # all modules share one; beyond it eager runs, silently
    module.compile(mode=COMPILERS[mode])


def fused(model: nn.Module) -> nn.Module:
    """`model`, changed in place: BN folded into the convolutions before it, as mmcv does by the order of registration.

    timm's norms include an activation, which stays.
    """
    kept = {
        name: nn.Sequential(module.drop, module.act)
        for name, module in model.named_modules()
        if type(module).__name__ == 'BatchNormAct2d'
    }
    model = fuse_conv_bn(model)
    for name, activation in kept.items():
        parent, _, child = name.rpartition('.')
        if isinstance(model.get_submodule(name), nn.Identity):
            setattr(model.get_submodule(parent), child, activation)
    return model
