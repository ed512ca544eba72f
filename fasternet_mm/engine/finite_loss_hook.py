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

    One alone may pass: mixed precision skips the step of an iteration that overflows. Reading the loss does not wait
    for the GPU: mmengine's RuntimeInfoHook, which runs before, has read it in the same iteration.

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
        losses = {name: value for name, value in (outputs or {}).items() if 'loss' in name}
        total = {'loss': losses['loss']} if 'loss' in losses else losses
        if all(math.isfinite(value) for value in total.values()):
            self._count = 0
            return
        self._count += 1
        if self._count < self.patience:
            return
        bad = {name: float(value) for name, value in losses.items() if not math.isfinite(value)}
        parts = {name: value for name, value in bad.items() if name != 'loss'} or bad
        what = ', '.join(f'{name} {value}' for name, value in parts.items())
        rates = ', '.join(f'{max(values):g}' for values in runner.optim_wrapper.get_lr().values())
        raise UserError(
            f'the training has diverged: {self.patience} iterations in a row, up to iteration {runner.iter + 1} (epoch '
            f'{runner.epoch + 1}), the loss was not finite ({what}; learning rate '
            f'{rates}). {ADVICE}'
        )
