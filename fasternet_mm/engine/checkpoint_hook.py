"""A CheckpointHook that neither a kill, nor a diverged training, nor a forged file can rob of a good checkpoint."""

import copy
import math
import re
from collections import deque
from pathlib import Path
from string import Formatter

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook

from ..checkpoint.rules import listed, non_finite
from ..errors import UserError, did_you_mean
from ..files import AtomicLocalBackend, remove_leftovers, require_writable
from .finite_loss_hook import ADVICE
from .runner import unwrapped


class AtomicCheckpointHook(CheckpointHook):
    """Save checkpoints as mmengine's CheckpointHook does, with the same arguments, in an order that no kill can harm.

    A new checkpoint is written under a temporary name, renamed when it is whole, noted in ``last_checkpoint``, and
    only then are the ones beyond `max_keep_ckpts` (and the previous best one) deleted. mmengine deletes first, writes
    in place, and truncates ``last_checkpoint`` before it fills it.

    Only files that this hook names itself, in its own folder, are ever deleted, whatever a resumed checkpoint says;
    and none for the sake of weights that are not finite: these end the training with a UserError, and are not saved.
    """

    def before_train(self, runner) -> None:
        for name in ('interval', 'max_keep_ckpts'):
            if not isinstance(getattr(self, name), int):
                raise UserError(f'{name} of {type(self).__name__} must be an int, but is {getattr(self, name)!r}')
        if self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend='atomic')
        info = runner.message_hub.runtime_info  # with what a resumed checkpoint says was kept, and was the best
        kept = info.pop('keep_ckpt_ids', None)  # from mmengine's hook, which would delete at once
        for key in [key for key in info if str(key).startswith('best_score') and not _is_score(info[key])]:
            del info[key]
        super().before_train(runner)
        if isinstance(self.file_backend, LocalBackend):
            require_writable(Path(self.out_dir), f'out_dir of {type(self).__name__}, {self.out_dir},')
        if is_main_process() and isinstance(self.file_backend, AtomicLocalBackend):
            remove_leftovers(self.out_dir)  # of a kill during a save
        if self.max_keep_ckpts > 0:
            now = runner.epoch if self.by_epoch else runner.iter
            steps = kept if isinstance(kept, (list, tuple)) else ()
            self.keep_ckpt_ids = deque(sorted({step for step in steps if type(step) is int and 0 <= step <= now}))
        if getattr(self, 'best_ckpt_path', None) is not None:
            self.best_ckpt_path = self._own(self.best_ckpt_path)
        for key, path in getattr(self, 'best_ckpt_path_dict', {}).items():
            self.best_ckpt_path_dict[key] = self._own(path)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Raise UserError, before anything is written or deleted, where a weight or a statistic is not finite."""
        model = unwrapped(runner.model)
        bad = non_finite(model, checkpoint['state_dict']) + non_finite(model, checkpoint.get('ema_state_dict', {}))
        if bad:
            raise UserError(
                f'the training has diverged by iteration {checkpoint["meta"]["iter"]}: {len(bad)} parameters and BN '
                f'statistics are not finite ({listed(bad)}); this checkpoint was not saved, and the others were kept. '
                f'{ADVICE}'
            )

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        if self.max_keep_ckpts > 0:
            if step not in self.keep_ckpt_ids:
                self.keep_ckpt_ids.append(step)
            # the new checkpoint knows what is still to be deleted
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        runner.save_checkpoint(
            self.out_dir,
            filename,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            AtomicLocalBackend().put_text(self.last_ckpt, Path(runner.work_dir, 'last_checkpoint'))
        while 0 < self.max_keep_ckpts < len(self.keep_ckpt_ids):
            self._delete(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))

    def _save_best_checkpoint(self, runner, metrics) -> None:
        for name in getattr(self, 'key_indicators', ()):
            if name != 'auto' and name not in metrics:
                raise UserError(
                    f'{type(self).__name__} has save_best={name!r}, but the evaluator gives {listed(list(metrics))}'
                    f'{did_you_mean(name, metrics)}'
                )
        backend, previous = self.file_backend, []
        self.file_backend = copy.copy(backend)
        self.file_backend.remove = self.file_backend.rmtree = previous.append  # until the new one is there
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        best = getattr(self, 'best_ckpt_path_dict', None) or {None: getattr(self, 'best_ckpt_path', None)}
        for path in previous:
            if path == self._own(path) and path not in best.values():  # of this folder, and not written again
                self._delete(Path(path).name)

    def _delete(self, filename: str) -> None:
        path = self.file_backend.join_path(self.out_dir, filename)
        if not is_main_process() or path == self.last_ckpt:  # which may have been written again under its name
            return
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # as DeepSpeed saves
            self.file_backend.rmtree(path)

    def _own(self, path) -> str | None:
        """Return where a checkpoint of the name of `path` is in our folder, or None where we name none so.

        A work dir may have been copied since `path` was noted, and a forged file may note any path.
        """
        name = re.split(r'[/\\]', path)[-1] if isinstance(path, str) else ''
        parts = Formatter().parse(self.filename_tmpl)
        own = ''.join(re.escape(text) + ('' if field is None else '[0-9]+') for text, field, *_ in parts)
        if not re.fullmatch(f'(best_.+_)?{own}', name):
            return None
        return self.file_backend.join_path(self.out_dir, name)


def _is_score(value) -> bool:
    """Return whether another score can be compared with `value`."""
    try:
        return not math.isnan(value)
    except (TypeError, ValueError, RuntimeError):  # the last one of a tensor with several elements
        return False
