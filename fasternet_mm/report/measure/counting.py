"""Parameters and multiply-adds, by a convention that is stated."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..schema import MultiplyAdds

CONVENTION = 'of convolutions, linear layers and matrix products, one image'
TWO_STAGE = f'{CONVENTION}, at 1000 proposals for boxes and 100 for masks, as mmdet counts'


def count_parameters(model: nn.Module) -> int:
    """Return the number of all parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(call: Callable[[], object]) -> int:
    """Return what torch's own counter counts while `call` runs, where a multiply-add is two operations."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2


def memory_access(stack: nn.Module, shape: tuple[int, int]) -> int:
    """Return the elements that a stack's convolutions read and write at one image: the paper's equations 2, 3 and 5.

    For h x w pixels, k x k kernels and c channels these are ``h * w * 2c + k**2 * c**2``; of PConv only the convolved
    channels count, and a depthwise convolution has ``k**2 * c`` weights.
    """
    convs = [module for module in stack.modules() if isinstance(module, nn.Conv2d)]
    return sum(math.prod(shape) * (conv.in_channels + conv.out_channels) + conv.weight.numel() for conv in convs)


def count_classifier(model: nn.Module, shape: tuple[int, int], channels: int = 3) -> MultiplyAdds:
    """Count a classifier's or a stack's multiply-adds on zeros of height and width `shape`, its backbone's apart."""
    image = torch.zeros(1, channels, *shape, device=next(model.parameters()).device)
    total = multiply_adds(lambda: model(image))
    parts = {}
    if hasattr(model, 'backbone'):
        parts['backbone'] = multiply_adds(lambda: model.backbone(image))
        parts['head'] = total - parts['backbone']
    return MultiplyAdds(total, parts, list(shape), CONVENTION)


def count_detector(model: nn.Module, shape: tuple[int, int]) -> MultiplyAdds:
    """Count the multiply-adds of an mmdet detector by part, on an image of zeros of height and width `shape`.

    ``table4`` is without the mask head's upsampling and its last convolution, which the paper's table 4 leaves out.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, *shape, device=device)
    with torch.no_grad():
        features = model.backbone(image)
        maps = model.neck(features) if getattr(model, 'with_neck', False) else features
    parts = dict(backbone=multiply_adds(lambda: model.backbone(image)))
    if maps is not features:
        parts['neck'] = multiply_adds(lambda: model.neck(features))
    table4, convention = None, CONVENTION
    if getattr(model, 'with_rpn', False) and getattr(model, 'with_roi_head', False):
        parts['RPN'] = multiply_adds(lambda: model.rpn_head(maps))
        heads, convention = model.roi_head, TWO_STAGE
        parts['RoI heads'] = multiply_adds(lambda: heads.bbox_head(_rois(heads.bbox_roi_extractor, 1000, device)))
        if getattr(heads, 'with_mask', False):
            rois = _rois(heads.mask_roi_extractor, 100, device)
            mask = multiply_adds(lambda: heads.mask_head(rois))
            table4 = sum(parts.values()) + multiply_adds(lambda: nn.Sequential(*heads.mask_head.convs)(rois))
            parts['RoI heads'] += mask
    elif getattr(model, 'bbox_head', None) is not None:
        parts['head'] = multiply_adds(lambda: model.bbox_head(maps))
    return MultiplyAdds(sum(parts.values()), parts, list(shape), convention, table4)


def _rois(extractor: nn.Module, number: int, device: torch.device) -> torch.Tensor:
    height, width = extractor.roi_layers[0].output_size
    return torch.zeros(number, extractor.out_channels, height, width, device=device)
