"""The functions of mmcv's compiled ``mmcv._ext``, answered by torchvision; executed under that name.

Signatures are mmcv 2.1's: results are written into the output arguments that ``mmcv.ops`` allocates. Half precision
is computed in float32 and rounded once, on every device. An operator that is not here raises when it is called.
"""

import torch
import torchvision
from torch import Tensor

_vision = torch.ops.torchvision


def _widen(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Bring `tensors` to the first one's dtype, or to float32 where that is half precision."""
    dtype = torch.float32 if tensors[0].dtype in (torch.float16, torch.bfloat16) else tensors[0].dtype
    return tuple(tensor.to(dtype).contiguous() for tensor in tensors)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices that greedy NMS keeps of (N, 4) boxes, by falling score."""
    boxes, scores = _widen(boxes, scores)
    if offset:  # legacy boxes whose right and bottom pixels belong to them
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores, iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Fill the first k rows of `dets` (N, 5) with boxes and their decayed scores, and return the k indices.

    Soft-NMS (Bodla et al., 2017): `method` 0 drops, 1 decays linearly, 2 by a Gaussian of the overlap.
    """
    boxes, scores = _widen(boxes, scores)
    corners = boxes + boxes.new_tensor([0, 0, offset, offset])
    left, scores, kept = torch.arange(len(boxes)), scores.clone(), []
    while len(left):
        best = left[scores[left].argmax()]
        dets[len(kept), :4] = boxes[best]
        dets[len(kept), 4] = scores[best]
        kept.append(int(best))
        left = left[left != best]
        overlap = torchvision.ops.box_iou(corners[best, None], corners[left])[0].nan_to_num()
        if method == 2:
            decay = torch.exp(-(overlap**2) / sigma)
        else:
            decay = torch.where(overlap >= iou_threshold, 1 - overlap if method == 1 else 0.0, 1.0)
        scores[left] *= decay
        left = left[scores[left] >= min_score]
    return torch.tensor(kept, dtype=torch.long)


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(
            "RoIAlign with pool_mode='max' exists in a compiled mmcv only; use pool_mode='avg' or install one: "
            '`mim install "mmcv>=2.0.0,<2.2.0"`.'
        )


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool (N, C, H, W) features at (K, 5) rois by RoIAlign into `output` (K, C, aligned_height, aligned_width)."""
    _require_average(pool_mode)
    features, rois = _widen(input, rois)
    output.copy_(
        _vision.roi_align(features, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned)
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of RoIAlign with respect to its features into `grad_input` (N, C, H, W)."""
    _require_average(pool_mode)
    grad, rois = _widen(grad_output, rois)
    shape = grad_input.shape
    grad_input.copy_(
        _vision._roi_align_backward(
            grad, rois, spatial_scale, aligned_height, aligned_width, *shape, sampling_ratio, aligned
        )
    )


def _focal_terms(target: Tensor, weight: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return where (N, C) a logit is of its sample's class, and the class weight of each sample (N, 1) or 1."""
    classes = torch.arange(logits.size(1), device=target.device)
    if not weight.numel():
        return target[:, None] == classes, logits.new_ones(())
    weight = torch.cat([weight.to(logits.dtype), logits.new_ones(1)])  # the background, target == C, weighs 1
    return target[:, None] == classes, weight[target][:, None]


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the focal loss (Lin et al., 2017) of (N, C) logits and (N,) class indices into `output` (N, C)."""
    (logits,) = _widen(input)
    positive, weight = _focal_terms(target, weight, logits)
    loss = torchvision.ops.sigmoid_focal_loss(logits, positive.to(logits.dtype), alpha=alpha, gamma=gamma)
    output.copy_(loss * weight)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the gradient of each loss by its logit into `grad_input` (N, C); it is finite at saturated logits."""
    (logits,) = _widen(input)
    positive, weight = _focal_terms(target, weight, logits)
    p, q = logits.sigmoid(), (-logits).sigmoid()
    log_p, log_q = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    of_positive = alpha * q**gamma * (gamma * p * log_p - q)
    of_negative = (1 - alpha) * p**gamma * (p - gamma * q * log_q)
    grad_input.copy_(torch.where(positive, of_positive, of_negative) * weight)


_V1_GEOMETRY = ('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group')
_V2_GEOMETRY = ('stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w', 'group', 'deformable_group')


def _deform_conv(input, weight, offset, mask, bias, geometry) -> Tensor:
    """Return a deformable convolution; `mask` (v2) and `bias` may be None."""
    tensors, use_mask = _fill_in(input, weight, offset, mask, bias)
    return _vision.deform_conv2d(*tensors, *geometry, use_mask)


def _deform_conv_backward(grad_output, input, weight, offset, mask, bias, geometry) -> tuple[Tensor, ...]:
    """Return the gradients with respect to (input, weight, offset, mask, bias)."""
    tensors, use_mask = _fill_in(input, weight, offset, mask, bias)
    (grad_output,) = _widen(grad_output)
    return _vision._deform_conv2d_backward(grad_output, *tensors, *geometry, use_mask)


def _fill_in(input, weight, offset, mask, bias):
    use_mask = mask is not None
    mask = mask if use_mask else input.new_zeros(len(input), 1)
    bias = bias if bias is not None else input.new_zeros(len(weight))
    return _widen(input, weight, offset, mask, bias), use_mask


def deform_conv_forward(input, weight, offset, output, columns, ones, **options) -> None:
    """Write a deformable convolution v1 (Dai et al., 2017) into `output`."""
    output.copy_(_deform_conv(input, weight, offset, None, None, [options[name] for name in _V1_GEOMETRY]))


def deform_conv_backward_input(input, offset, grad_output, grad_input, grad_offset, weight, columns, **options) -> None:
    """Write the gradients of deformable convolution v1 into `grad_input` and `grad_offset`."""
    geometry = [options[name] for name in _V1_GEOMETRY]
    grads = _deform_conv_backward(grad_output, input, weight, offset, None, None, geometry)
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


def deform_conv_backward_parameters(input, offset, grad_output, grad_weight, columns, ones, scale, **options) -> None:
    """Add the gradient of deformable convolution v1, `scale` times, to `grad_weight`."""
    geometry = [options[name] for name in _V1_GEOMETRY]
    # the gradient of a convolution's weight does not depend on the weight: its shape alone is read
    grads = _deform_conv_backward(grad_output, input, grad_weight, offset, None, None, geometry)
    grad_weight.add_(grads[1].to(grad_weight.dtype), alpha=scale)


def modulated_deform_conv_forward(
    input, weight, bias, ones, offset, mask, output, columns, with_bias, **options
) -> None:
    """Write a deformable convolution v2 (Zhu et al., 2019), one modulation a sampling point, into `output`."""
    geometry = [options[name] for name in _V2_GEOMETRY]
    output.copy_(_deform_conv(input, weight, offset, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input, weight, bias, ones, offset, mask, columns,
    grad_input, grad_weight, grad_bias, grad_offset, grad_mask, grad_output, with_bias, **options
) -> None:  # fmt: skip
    """Write the gradients of deformable convolution v2 into the five ``grad_*`` arguments before `grad_output`."""
    geometry = [options[name] for name in _V2_GEOMETRY]
    grads = _deform_conv_backward(grad_output, input, weight, offset, mask, bias if with_bias else None, geometry)
    for out, grad in zip((grad_input, grad_weight, grad_offset, grad_mask), grads):
        out.copy_(grad)
    if with_bias:
        grad_bias.copy_(grads[4])


def get_compiler_version() -> str:
    """Return what ``mmcv.utils.collect_env`` reports as the compiler."""
    return 'none (mmcv-lite, operators from torchvision)'


def get_compiling_cuda_version() -> str:
    """Return what ``mmcv.utils.collect_env`` reports as the version of CUDA."""
    return f'that of torchvision {torchvision.__version__}'


def __getattr__(name: str):
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(
            f'The operator mmcv._ext.{name} needs a compiled mmcv: mmcv-lite with torchvision provides nms, soft-nms, '
            'RoIAlign, sigmoid focal loss and deformable convolution only. Install one with '
            '`mim install "mmcv>=2.0.0,<2.2.0"`, or see https://mmcv.readthedocs.io/en/2.x/get_started/build.html.'
        )

    return missing
