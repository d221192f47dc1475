"""The job that unpacks a volume from which no windows can be read."""

from voxmill.runtime.jobs import job
from voxmill.volumes import check_source, read_header, unpack


@job(outputs=("output_path",))
def unpack_volume(*, volume: dict, output_path: str, fingerprint: str | None = None) -> None:
    """Unpack a volume to a file from which windows can be read.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    output_path : path
    fingerprint : str, optional
        Of the volume as the run was planned.

    Raises
    ------
    VoxmillError
        If the volume is not the planned one, or can't be read.
    """
    header = read_header(**volume)
    check_source(header, fingerprint)
    unpack(header, output_path)
    check_source(header, fingerprint)
