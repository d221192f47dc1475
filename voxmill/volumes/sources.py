"""The files that a run was planned with are those that its jobs read, or the job ends."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.fingerprints import fingerprint, path_fingerprint
from voxmill.volumes.header import VolumeHeader

MADE = ("phantom ", "unpacked ")
"""How the fingerprints of files begin that a rule makes: Snakemake watches those."""


class ChangedSourceError(VoxmillError):
    """A volume that is not the one that a run was planned with."""


def check_source(header: VolumeHeader, planned: str | None) -> None:
    """Refuse a volume that is not the one a run was planned with.

    Parameters
    ----------
    header : VolumeHeader
    planned : str or None
        Its fingerprint when the run was planned; None where none is known. Of a file that a rule
        makes nothing is checked.

    Raises
    ------
    ChangedSourceError
        If the volume's content is another now.
    """
    if planned is None or planned.startswith(MADE):
        return
    if (found := fingerprint(header)) != planned:
        raise ChangedSourceError(
            f"{header.path}: expected the volume that this run was planned with (fingerprint "
            f"{planned[:16]}), found another (fingerprint {found[:16]}): it was changed or "
            "replaced since. Let it rest while a run goes on, then run again: what depends on it "
            "is made anew."
        )


def check_statistics(
    path: str | Path, statistics: Mapping[str, Any], planned: str | None = None
) -> None:
    """Refuse statistics of another volume than the planned one.

    Parameters
    ----------
    path : path
        Of the statistics, for the message.
    statistics : mapping
        What `measure_volume` wrote.
    planned : str, optional
        Fingerprint of the volume that they must be of.

    Raises
    ------
    VoxmillError
        If they are of another one.
    """
    if planned and (found := statistics.get("fingerprint")) not in (None, planned):
        raise VoxmillError(
            f"{path}: expected statistics of the volume that the tiles were planned with "
            f"(fingerprint {planned[:16]}), found those of another (fingerprint {found[:16]}): it "
            "was replaced while the run went on. Run again: what depends on it is made anew."
        )


def check_files(paths: Iterable[str | Path | None], planned: Iterable[str] | None) -> None:
    """Refuse files that are not those that a run was planned with.

    Parameters
    ----------
    paths : iterable of path or None
        None where there is no such file.
    planned : iterable of str, optional
        `path_fingerprint` of each that is there when the run was planned; None checks nothing.

    Raises
    ------
    VoxmillError
        Names the first file whose content is another now.
    """
    if planned is None:
        return
    for path, expected in zip([path for path in paths if path], planned, strict=True):
        if path_fingerprint(path) != expected:
            raise VoxmillError(
                f"{path}: expected the file that this run was planned with, found another content: "
                "it was changed or replaced since. Let it rest while a run goes on, then run "
                "again: what depends on it is made anew."
            )
