"""The parts of ``MMSyncBN`` between which ``mmcv.ops`` reduces over processes; `input` is (N, C, spatial)."""

from torch import Tensor


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Write the mean of each channel into `mean` (C,)."""
    mean.copy_(input.float().mean(dim=(0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Write the variance of each channel around `mean` into `var` (C,)."""
    var.copy_((input.float() - mean[:, None]).square().mean(dim=(0, 2)))


def sync_bn_forward_output(
    input: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor,
    norm: Tensor, std: Tensor, output: Tensor, eps: float, momentum: Tensor, group_size: int
) -> None:  # fmt: skip
    """Write the normalized input into `norm` and `output`, its divisor into `std`; update running statistics."""
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.size(0) * input.size(2) * group_size
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(var * (count / (count - 1)) if count > 1 else var, momentum)


def sync_bn_backward_param(grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> None:
    """Write the gradients with respect to weight and bias (C,)."""
    grad_weight.copy_((grad_output * norm).sum(dim=(0, 2)))
    grad_bias.copy_(grad_output.float().sum(dim=(0, 2)))


def sync_bn_backward_data(
    grad_output: Tensor, weight: Tensor, grad_weight: Tensor, grad_bias: Tensor, norm: Tensor, std: Tensor,
    grad_input: Tensor
) -> None:  # fmt: skip
    """Write the gradient with respect to the input into `grad_input`."""
    count = grad_output.size(0) * grad_output.size(2)
    common = (norm * grad_weight[:, None] + grad_bias[:, None]) / count
    grad_input.copy_((grad_output - common) * (weight / std)[:, None])
