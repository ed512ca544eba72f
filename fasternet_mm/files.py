"""Files that appear under their name only when they are whole."""

import os
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
        partial = path.with_name(path.name + PARTIAL)
        try:
            with open(partial, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def put_text(self, obj: str, filepath, encoding: str = 'utf-8') -> None:
        """Write the text `obj` to `filepath`, as :meth:`put` does."""
        self.put(obj.encode(encoding), filepath)


def require_writable(folder: Path, option: str) -> None:
    """Make `folder`, which `option` of a command line names; raise UserError where nothing can be written there."""
    probe = folder / '.writable'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f'{option} is not writable ({error}); name another folder') from error
