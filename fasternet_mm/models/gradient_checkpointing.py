"""Gradient checkpointing of blocks that have BN."""

from collections.abc import Callable
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return ``forward(x)`` and recompute it in the backward pass, instead of keeping the activations of `block`."""
    if is_compiling():  # Dynamo traces no custom context
        return checkpoint(forward, x, use_reentrant=False)
    return checkpoint(forward, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(block)))


@contextmanager
def _statistics_kept(block: nn.Module):
    """Keep the running statistics, which the batch of a recomputed block must not enter a second time."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
