"""The one error that a user is meant to read."""


class VoxmillError(ValueError):
    """Bad input or settings: names the file or key, what was expected, what was found, what to do.

    Scripts print it without a traceback (see `voxmill.runtime.jobs`); everything else is a bug of
    ours and keeps its traceback.
    """
