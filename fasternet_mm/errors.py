class UserError(ValueError):
    """A wrong input that the user can mend; the command-line tools print its text as one line."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint file that cannot be had, is not safe to load, or does not fit the model."""
