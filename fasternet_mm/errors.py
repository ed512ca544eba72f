"""Errors that the user can mend; each is also of the type that stock mmengine or torch raises in its place."""

import difflib
import pickle
from collections.abc import Iterable


class UserError(ValueError):
    """A wrong input that the user can mend; the command-line tools print its text as one line."""


class DataError(UserError):
    """An image, its annotations or its classes that cannot be used.

    A data loader's worker hands an error on by its class and the text of its traceback, which becomes a note here.
    """

    def __init__(self, text: str) -> None:
        traceback, _, own = text.rpartition(f'{__name__}.{type(self).__name__}: ')
        super().__init__(own.partition('\n')[0])
        if traceback:
            self.add_note(text)


class CheckpointError(UserError, RuntimeError):
    """A checkpoint file that cannot be had, is not safe to load, or does not fit the model."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """A local file that does not exist."""


class DownloadError(CheckpointError, OSError):
    """A URL that cannot be downloaded, or not whole."""


class RefusedCheckpointError(CheckpointError, pickle.UnpicklingError):
    """A file that could run code when it is loaded."""


class DamagedCheckpointError(CheckpointError):
    """A file that is no checkpoint, or no longer one."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean ...?`` with those of `known` that are most like `name`, or an empty string."""
    close = difflib.get_close_matches(name, sorted(known), n=2)
    return f'; did you mean {" or ".join(map(repr, close))}?' if close else ''
