"""A training that has diverged ends, and says so."""

import math

from mmengine.hooks import Hook

from ..errors import UserError

ADVICE = (
    'Try a lower learning rate, a longer warm-up, or clipped gradients (optim_wrapper.clip_grad=dict(max_norm=10)); '
    'where it comes at once, look at the images and annotations'
)


class FiniteLossHook(Hook):
    """End a training whose loss is NaN or infinite in several iterations in a row.

    One alone may pass: mixed precision skips the step of an iteration that overflows. The GPU is not waited for: the
    numbers are those that mmengine's RuntimeInfoHook, which runs before, has read for the log.

    Args:
        patience (int): How many iterations in a row.
    """

    priority = 'NORMAL'  # after RuntimeInfoHook, and before the learning rate changes

    def __init__(self, patience: int = 5) -> None:
        if patience < 1:
            raise ValueError(f'patience must be at least 1 iteration, but is {patience!r}')
        self.patience = patience
        self._count = 0

    def before_train(self, runner) -> None:
        self._count = 0

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Raise UserError at the end of patience; it names the losses, the iteration and the learning rate."""
        names = [name for name in outputs or () if 'loss' in name]
        losses = {name: runner.message_hub.get_scalar(f'train/{name}').current() for name in names}
        bad = [f'{name} {value}' for name, value in losses.items() if not math.isfinite(value)]
        self._count = self._count + 1 if bad else 0
        if self._count < self.patience:
            return
        rates = ', '.join(f'{max(values):g}' for values in runner.optim_wrapper.get_lr().values())
        raise UserError(
            f'the training has diverged: {self.patience} iterations in a row, up to iteration {runner.iter + 1} (epoch '
            f'{runner.epoch + 1}), the loss was not finite ({", ".join(bad)}; learning rate {rates}). {ADVICE}'
        )
