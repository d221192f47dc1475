"""The job that unpacks a volume from which no windows can be read."""

from voxmill.runtime.jobs import job
from voxmill.volumes import read_header, unpack


@job
def unpack_volume(*, volume: dict, output_path: str) -> None:
    """Unpack a volume to a file from which windows can be read.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    output_path : path
    """
    unpack(read_header(**volume), output_path)
