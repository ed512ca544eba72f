"""A training's work dir: one training at a time, the checkpoint that it goes on from, and what a fault leaves there."""

import errno
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import CheckpointError, UserError
from .runner import LAUNCHERS

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = 'train.lock'


@contextmanager
def training_in(cfg: Config) -> Iterator[None]:
    """Hold the config's work dir for one training, and say what it can go on from if it ends early.

    The first process writes who it is into ``train.lock``, and holds the operating system's lock on that file, which
    ends with the process, however it ends.

    Raises:
        UserError: If another training holds the work dir, or one on another host did not end in order.
    """
    if not _is_first(cfg):
        yield
        return
    with _locked(Path(cfg.work_dir)):
        try:
            yield
        except BaseException as error:
            kept = _kept(cfg)
            # a mistake found before the first save says enough itself, and one in a checkpoint is about another file
            if not isinstance(error, CheckpointError) and (kept or not isinstance(error, UserError)):
                error.add_note(kept or 'no checkpoint was written yet')
            raise


def _is_first(cfg: Config) -> bool:
    """Return whether this is the first of the run's processes, which are not joined yet."""
    _, variables = LAUNCHERS[cfg.launcher]
    return not variables or os.environ.get(variables[0], '0') == '0'


@contextmanager
def _locked(work_dir: Path) -> Iterator[None]:
    if fcntl is None:
        print_log(f'this system has no file locks of Unix: mind that nothing else trains in {work_dir}')
        yield
        return
    path = work_dir / LOCK
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(path, 'a+', errors='replace') as file:
        _lock(file, path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(file: IO[str], path: Path) -> None:
    file.seek(0)
    holder = file.read(1000).strip()
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise UserError(
            f'{path.parent} is in use by another training ({holder}); wait for it, end it, or name another --work-dir'
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise  # some network file systems have no locks: the file alone must do
    if not os.path.exists(path) or not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
        raise UserError(f'{path.parent} was in use by a training that ended this moment ({holder}); try again')
    here = f'host {platform.node()}, '
    # locks of another host are not seen on every network file system
    if holder and not holder.startswith(here):
        raise UserError(
            f'{path.parent} is in use by a training on another host ({holder}); if it is no longer alive: rm {path}'
        )
    file.truncate(0)
    file.write(f'{here}process {os.getpid()}, since {time.strftime("%Y-%m-%d %H:%M:%S")}\n')
    file.flush()


def last_checkpoint(cfg: Config) -> str | None:
    """Return the checkpoint that the note ``last_checkpoint`` in the config's work dir names, or None without a note.

    mmengine notes an absolute path. Where the work dir was copied or moved since, the file of that name in this one is
    taken, and a line says so.

    Raises:
        UserError: If there is no such file; it names those that are there.
    """
    note = Path(cfg.work_dir, 'last_checkpoint')
    if not note.is_file():
        return None
    noted = note.read_text(errors='replace').strip()
    if '://' in noted:  # a remote out_dir of the checkpoint hook
        return noted
    folder = _checkpoint_folder(cfg)
    own = folder / Path(noted).name
    if own not in folder.glob('*'):  # nor is the folder itself, or its parent
        raise UserError(
            f'{note} names {noted!r}, which is not in {folder} (there: {_checkpoints(folder) or "no .pth file"}); name '
            'the checkpoint to go on from: --resume FILE'
        )
    if _is_first(cfg) and not (os.path.exists(noted) and os.path.samefile(own, noted)):
        print_log(f'{note} names {noted}, in another folder; going on from {own}')
    return str(own)


def _checkpoint_folder(cfg: Config) -> Path:
    """Return where the config's checkpoint hook puts its files, as mmengine's has it."""
    out_dir = cfg.get('default_hooks', {}).get('checkpoint', {}).get('out_dir')
    return Path(out_dir, Path(cfg.work_dir).resolve().name) if out_dir else Path(cfg.work_dir)


def _checkpoints(folder: Path) -> str:
    return ', '.join(sorted(path.name for path in folder.glob('*.pth')))


def _kept(cfg: Config) -> str | None:
    """Return a line on what a training that ended early left to go on from, or None where there is nothing."""
    try:
        checkpoint = last_checkpoint(cfg)
    except (UserError, OSError) as error:
        return str(error)
    if checkpoint is not None:
        return f'the last whole checkpoint is {checkpoint}; --resume goes on from it'
    there = _checkpoints(_checkpoint_folder(cfg))
    return f'{there} was written; --resume FILE goes on from it' if there else None
