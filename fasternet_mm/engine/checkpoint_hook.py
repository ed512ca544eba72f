"""A CheckpointHook that a kill at any moment cannot rob of its last whole checkpoint."""

from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook

from ..files import PARTIAL, AtomicLocalBackend


class _DeletionsHeld:
    """A file backend that only notes what it is asked to delete."""

    def __init__(self, backend) -> None:
        self._backend = backend
        self.held = []

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def remove(self, path) -> None:
        self.held.append((self._backend.remove, path))

    def rmtree(self, path) -> None:
        self.held.append((self._backend.rmtree, path))


class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook with the order of its steps made safe; takes the same arguments.

    A new checkpoint is written under a temporary name, renamed when it is whole, noted in ``last_checkpoint``, and
    only then are the ones beyond `max_keep_ckpts` (and the previous best one) deleted. mmengine deletes first, writes
    in place, and truncates ``last_checkpoint`` before it fills it.
    """

    def before_train(self, runner) -> None:
        if self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend='atomic')
        super().before_train(runner)
        if is_main_process() and isinstance(self.file_backend, AtomicLocalBackend):
            for partial in Path(self.out_dir).glob(f'*{PARTIAL}'):  # what a kill during a save left behind
                partial.unlink()
        retired = runner.message_hub.runtime_info.get('retired_ckpt')  # and a kill before its deletion
        if retired is not None:
            self._remove(retired)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        with self._deletions_last():
            if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
                if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                    retired = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
                    runner.message_hub.update_info('retired_ckpt', retired)
                    self._remove(retired)
                self.keep_ckpt_ids.append(step)
                runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

            filename = self.filename_tmpl.format(step)
            self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
            runner.message_hub.update_info('last_ckpt', self.last_ckpt)
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

    def _save_best_checkpoint(self, runner, metrics) -> None:
        with self._deletions_last():
            super()._save_best_checkpoint(runner, metrics)

    def _remove(self, filename: str) -> None:
        path = self.file_backend.join_path(self.out_dir, filename)
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)

    @contextmanager
    def _deletions_last(self):
        """Deletions inside the block happen after it, and not at all if it fails."""
        backend = self.file_backend
        self.file_backend = deletions = _DeletionsHeld(backend)
        try:
            yield
        finally:
            self.file_backend = backend
        best = getattr(self, 'best_ckpt_path_dict', None) or {None: getattr(self, 'best_ckpt_path', None)}
        for delete, path in deletions.held:
            if path not in (self.last_ckpt, *best.values()):  # written again under the same name
                delete(path)
