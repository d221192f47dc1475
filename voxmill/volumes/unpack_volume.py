"""Unpack a volume whose file allows no windows, once."""

from voxmill.runtime.jobs import job
from voxmill.volumes import read_header, unpack


@job
def unpack_volume(*, volume: dict, output_path: str) -> None:
    """Decompress a volume to a file that windows can be read from.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    output_path : path
    """
    unpack(read_header(**volume), output_path)
