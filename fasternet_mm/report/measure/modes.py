"""The modes that a model can run in: as it was trained, and in faster forms."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch._dynamo
import torch._inductor.config
from mmcv.cnn import fuse_conv_bn
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...deploy import has_deploy_form, switch_to_deploy
from ...errors import UserError
from ..schema import MODES

DTYPES = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16, int8=torch.int8)  # the last in files


class UnsupportedModeError(UserError):
    """Say that a mode is not for this model or machine."""


def in_mode(
    model: nn.Module, mode: str, device: torch.device, channels_last: bool = False
) -> tuple[nn.Module, list[str]]:
    """Return a copy of `model` in the form of a mode on a device, and labels; compiling and exporting are left out."""
    form, labels = MODES[mode].form, []
    if MODES[mode].cuda_graphs and device.type != 'cuda':
        raise UnsupportedModeError(f'mode {mode} is for --device cuda')
    model = copy.deepcopy(model)
    if form == 'fused':
        norms = _count_norms(model)
        model = fused(model)
        if _count_norms(model) == norms:
            labels.append('nothing was fused: no BN follows a convolution')
    elif form == 'deploy':
        backbone = getattr(model, 'backbone', model)
        if has_deploy_form(model):
            try:
                switch_to_deploy(model)
            except UserError:  # it has another norm than BN, with which a runtime runs it all the same
                if not MODES[mode].runtime_dtypes:
                    raise
                model = fused(model)
        elif hasattr(backbone, 'switch_to_deploy'):  # mmpretrain's RepVGG, say
            backbone.switch_to_deploy()
        elif MODES[mode].runtime_dtypes:
            model = fused(model)
        else:
            raise UnsupportedModeError(f'mode {mode}: neither a FasterNet nor a backbone with switch_to_deploy()')
    # what has its own order, as the deploy form, keeps it
    return model.to(device, **(dict(memory_format=torch.channels_last) if channels_last else {})), labels


def _count_norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def half(device: torch.device, dtype: str) -> torch.autocast:
    """Return autocast to a dtype, which has no effect for fp32."""
    return torch.autocast(device.type, DTYPES[dtype], enabled=dtype != 'fp32')


@contextmanager
def compiling(modes: Sequence[str]) -> Iterator[None]:
    """Let the modes that compile do so at their best, and restore the compiler's settings afterwards."""
    if not any(MODES[mode].compiler for mode in modes):
        yield
        return
    torch._dynamo.reset()  # it gives up on a function after a few compilations, silently; all modules share the limit
    # with weights frozen, inductor folds BN and orders weights once; tracing reads it, too, so compile() cannot take it
    with torch._inductor.config.patch(freezing=True), torch._dynamo.config.patch(cache_size_limit=64):
        yield


def _merge_branches(model: nn.Module) -> None:
    """Let the networks of timm inside a model take their form for inference, in place."""
    of_timm = [module for module in model.modules() if type(module).__module__.startswith('timm.')]
    nested = {id(part) for module in of_timm for part in module.modules() if part is not module}
    for module in of_timm:
        if id(module) not in nested:
            from timm.utils import reparameterize_model

            reparameterize_model(module, inplace=True)


def fused(model: nn.Module) -> nn.Module:
    """Fold BN into the convolutions before it, in place, as mmcv does by the order of registration; return the model.

    timm's networks merge their parallel branches first. timm's norms include an activation, which stays.
    """
    _merge_branches(model)
    kept = {
        name: nn.Sequential(module.drop, module.act)
        for name, module in model.named_modules()
        if type(module).__name__ == 'BatchNormAct2d'
    }
    model = fuse_conv_bn(model)
    for name, activation in kept.items():
        if isinstance(model.get_submodule(name), nn.Identity):
            model.set_submodule(name, activation)
    return model
