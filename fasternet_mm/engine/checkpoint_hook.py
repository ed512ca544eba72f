"""A CheckpointHook that a kill at any moment cannot rob of its last whole checkpoint."""

from collections import deque
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook

from ..files import AtomicLocalBackend, remove_leftovers


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


class _RunnerElsewhere:
    """A runner with another work dir, into which mmengine's hook writes ``last_checkpoint`` in place."""

    def __init__(self, runner, work_dir: str) -> None:
        self._runner = runner
        self.work_dir = work_dir

    def __getattr__(self, name):
        return getattr(self._runner, name)


class AtomicCheckpointHook(CheckpointHook):
    """Save checkpoints as mmengine's CheckpointHook does, with the same arguments, in an order that no kill can harm.

    A new checkpoint is written under a temporary name, renamed when it is whole, noted in ``last_checkpoint``, and
    only then are the ones beyond `max_keep_ckpts` (and the previous best one) deleted. mmengine deletes first, writes
    in place, and truncates ``last_checkpoint`` before it fills it.
    """

    def before_train(self, runner) -> None:
        if self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend='atomic')
        super().before_train(runner)  # which also deletes what a kill before its deletion left behind
        if is_main_process() and isinstance(self.file_backend, AtomicLocalBackend):
            remove_leftovers(self.out_dir)  # of a kill during a save
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        keep = self.max_keep_ckpts
        with self._deletions_last(), TemporaryDirectory() as elsewhere:
            # room for one more, so that the new checkpoint knows what is still to be deleted
            self.max_keep_ckpts = keep + 1 if keep > 0 else keep
            try:
                super()._save_checkpoint_with_step(_RunnerElsewhere(runner, elsewhere), step, meta)
            finally:
                self.max_keep_ckpts = keep
            if is_main_process():
                AtomicLocalBackend().put_text(self.last_ckpt, Path(runner.work_dir, 'last_checkpoint'))
            while 0 < keep < len(self.keep_ckpt_ids):
                self._delete(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))

    def _save_best_checkpoint(self, runner, metrics) -> None:
        with self._deletions_last():
            super()._save_best_checkpoint(runner, metrics)

    def _delete(self, filename: str) -> None:
        path = self.file_backend.join_path(self.out_dir, filename)
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif is_main_process() and self.file_backend.isdir(path):  # as DeepSpeed saves
            self.file_backend.rmtree(path)

    @contextmanager
    def _deletions_last(self):
        """Delete after the block what is deleted inside it, and nothing if it fails."""
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
