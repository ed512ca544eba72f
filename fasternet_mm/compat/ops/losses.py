"""Sigmoid focal loss."""

import torch
import torchvision
from torch import Tensor

from .common import widen


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
    (logits,) = widen(input)
    positive, weight = _focal_terms(target, weight, logits)
    loss = torchvision.ops.sigmoid_focal_loss(logits, positive.to(logits.dtype), alpha=alpha, gamma=gamma)
    output.copy_(loss * weight)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the gradient of each loss by its logit into `grad_input` (N, C); it is finite at saturated logits."""
    (logits,) = widen(input)
    positive, weight = _focal_terms(target, weight, logits)
    p, q = logits.sigmoid(), (-logits).sigmoid()
    log_p, log_q = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    of_positive = alpha * q**gamma * (gamma * p * log_p - q)
    of_negative = (1 - alpha) * p**gamma * (p - gamma * q * log_q)
    grad_input.copy_(torch.where(positive, of_positive, of_negative) * weight)
