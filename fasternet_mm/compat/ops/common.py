"""What the operators share: the precision in which they compute, and gradients by autograd."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def widen(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Bring `tensors` to the first one's dtype, or to float32 where that is half precision."""
    dtype = torch.float32 if tensors[0].dtype in (torch.float16, torch.bfloat16) else tensors[0].dtype
    return tuple(tensor.to(dtype).contiguous() for tensor in tensors)


def write_gradients(grads: Sequence[Tensor], function: Callable, inputs: Sequence[Tensor], grad_output: Tensor) -> None:
    """Write the gradients of ``(function(*inputs) * grad_output).sum()`` into `grads`, which start as zeros.

    The function is computed once more: what mmcv keeps for a backward pass is its inputs.
    """
    (grad_output,) = widen(grad_output)
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        output = function(*inputs)
    if output.requires_grad:  # not where it sampled nothing at all
        values = torch.autograd.grad(output, inputs, grad_output, allow_unused=True)
        for grad, value in zip(grads, values):
            if value is not None:
                grad.copy_(value)
