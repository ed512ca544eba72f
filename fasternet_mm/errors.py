"""Errors that the user can mend; each is also of the type that stock mmengine or torch raises in its place."""

import pickle


class UserError(ValueError):
    """A wrong input that the user can mend; the command-line tools print its text as one line."""


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
