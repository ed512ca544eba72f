"""Files that appear under their name only when they are whole, and places that are tried before long work."""

import glob
import json
import os
import platform
import shutil
from pathlib import Path

from mmengine.fileio import LocalBackend

from .errors import UserError

PARTIAL = '.partial'


class AtomicLocalBackend(LocalBackend):
    """Write files as mmengine's LocalBackend does, except that one appears under its name only when it is whole."""

    def put(self, obj: bytes, filepath) -> None:
        """Write `obj` to `filepath`, whose folder is made if need be."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_path(path)
        try:
            with open(partial, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError):  # a full disk's names no file
                error.filename, error.filename2 = str(path), None
            raise

    def put_text(self, obj: str, filepath, encoding: str = 'utf-8') -> None:
        """Write the text `obj` to `filepath`, as :meth:`put` does."""
        self.put(obj.encode(encoding), filepath)


def partial_path(path: Path) -> Path:
    """Return where this process writes `path` until it is whole: beside it, under a name that no other process uses."""
    return path.with_name(f'{path.name}.{platform.node()}.{os.getpid()}{PARTIAL}')


def remove_leftovers(folder: str | Path) -> None:
    """Remove what processes of this host that live no more left half written in `folder`, files and folders."""
    for partial in Path(folder).glob(f'*.{glob.escape(platform.node())}.*{PARTIAL}'):
        process = partial.name.removesuffix(PARTIAL).rpartition('.')[2]
        # this process's own number is an earlier one's: what it writes itself is gone before it comes here
        if process.isdecimal() and (int(process) == os.getpid() or not _is_alive(int(process))):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if os.name == 'nt':  # where kill() asks nothing: it sends Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process, or no number of one
        pass
    return True


def put_files(folder: str | Path, files: dict[str, str | bytes], what: str) -> None:
    """Write files by name into a folder, which is made if need be, each whole or not at all.

    Raises:
        UserError: If the folder cannot be written; `what`, such as 'the report', says of what.
    """
    try:
        for name, content in files.items():
            AtomicLocalBackend().put(content.encode() if isinstance(content, str) else content, Path(folder, name))
    except OSError as error:
        raise UserError(f'{what} cannot be written to {folder}: {error}; choose another folder') from error


def read_json(path: str | Path, what: str) -> tuple[object, str]:
    """Return what is in a JSON file, and its path.

    Args:
        path (str | Path): The file, or the folder that ``{what}.json`` is in.
        what (str): 'report' or 'study', which is also the name of the tool that writes it.

    Raises:
        UserError: If there is none, or it is not JSON.
    """
    path = Path(path)
    if path.is_dir():
        path /= f'{what}.json'
    try:
        return json.loads(path.read_text('utf-8')), str(path)
    except OSError as error:
        raise UserError(f'{what} not found: {path} ({error.strerror}); give a {what}.json or its folder') from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f'{path} is not JSON: {error}; give a {what}.json of tools/{what}.py') from error


def require_writable(folder: Path, option: str) -> None:
    """Make `folder`, which `option` of a command line names; raise UserError where nothing can be written there."""
    _require_place(folder / 'writable', option, 'name another folder')


def require_output(file: str | Path, option: str) -> None:
    """Make the folder of `file`, which `option` of a command line names, so that it can be written after long work.

    Raises:
        UserError: If it is a folder, or cannot be written.
    """
    path = Path(file)
    if path.is_dir():
        raise UserError(f'{option} {path} is a folder; name a file')
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f'{option} {path} is not writable; name another file')
    _require_place(path, f'{option} {path}', 'name another place')


def _require_place(path: Path, what: str, advice: str) -> None:
    probe = partial_path(path)
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = 'Not a directory' if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f'{what} is not writable ({reason}: {error.filename}); {advice}') from error
