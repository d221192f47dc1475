"""The error for users."""


class VoxmillError(ValueError):
    """Bad input or bad settings.

    The message names the file or key, what was expected, what was found and what to do. Jobs print
    it without a traceback (see `voxmill.runtime.jobs`); any other exception is a bug of voxmill and
    keeps its traceback.
    """
