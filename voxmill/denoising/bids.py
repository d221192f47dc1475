"""BIDS folders: find scans by their suffixes and name their derivatives.

The Brain Imaging Data Structure, https://bids-specification.readthedocs.io (1.10).
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.fetched import why_no_file
from voxmill.runtime.files import read_json, visible
from voxmill.runtime.paths import advice

_ENTITIES = re.compile(r"^(sub-[A-Za-z0-9]+)(_[a-z]+-[A-Za-z0-9]+)*_[A-Za-z0-9]+\.nii(\.gz)?$")
DEFAULT_SUFFIXES = ("T1w",)
SERIES = ("dwi", "bold")
"""Suffixes of images with several volumes."""


@dataclass(frozen=True)
class BidsScan:
    """One scan of a BIDS folder.

    Attributes
    ----------
    path : Path
        The image.
    folder : str
        Its folder inside the data set, such as "sub-01/ses-2/anat".
    stem : str
        Its file name without suffix and extension, such as "sub-01_ses-2_run-1".
    suffix : str
        What it is: "T1w", "dwi" and so on.
    """

    path: Path
    folder: str
    stem: str
    suffix: str = "T1w"

    @property
    def name(self) -> str:
        """Its stem, with the suffix where it is no T1w."""
        return self.stem if self.suffix == "T1w" else f"{self.stem}_{self.suffix}"

    @property
    def derivative(self) -> str:
        """Path of its denoised image in a derivative data set."""
        return f"{self.folder}/{self.stem}_desc-denoised_{self.suffix}.nii.gz"


def find_scans(folder: str | Path, suffixes: Sequence[str] = DEFAULT_SUFFIXES) -> list[BidsScan]:
    """Find all `sub-*/[ses-*/]*/*_SUFFIX.nii[.gz]` of a BIDS folder, sorted by name.

    Raises
    ------
    VoxmillError
        If the folder or its `dataset_description.json` is missing, a scan's name breaks BIDS'
        rules, a scan exists twice or is not fetched, or a suffix has no scan.
    """
    root = Path(folder)
    if root.is_file():
        raise VoxmillError(f"{root}: expected a BIDS folder, found a file. Give the folder.")
    if not root.is_dir():
        raise VoxmillError(f"{root}: this BIDS folder does not exist. {advice(root)}")
    read_json(root / "dataset_description.json", "BIDS data set description")
    scans = [scan for suffix in suffixes for scan in _of_suffix(root, suffix)]
    _check_fetched(root, [scan.path for scan in scans])
    scans.sort(key=lambda scan: (scan.stem, scan.suffix, scan.path.name))
    for first, second in itertools.pairwise(scans):
        if first.name == second.name:
            raise VoxmillError(
                f"{root}: {first.path.name} and {second.path.name} are the same scan twice; keep "
                "one of them."
            )
    return scans


def volumes_of(scan: BidsScan) -> list[int] | list[None]:
    """Numbers of the volumes of a series, from 0; [None] for a scan that is one volume.

    Raises
    ------
    VoxmillError
        If the header of a series can't be read.
    """
    if scan.suffix not in SERIES:
        return [None]
    # nibabel is loaded where there is a series alone: every job parses the configuration.
    from voxmill.denoising.nifti import read_shape

    shape = read_shape(scan.path)
    return list(range(shape[3])) if len(shape) == 4 else [None]


def _of_suffix(root: Path, suffix: str) -> list[BidsScan]:
    found = [
        _scan(root, path, suffix)
        for pattern in ("sub-*/*", "sub-*/ses-*/*")
        for path in visible(root, f"{pattern}/*_{suffix}.nii*")
    ]
    if not found:
        raise VoxmillError(
            f"{root}: no scan matches sub-*/*/*_{suffix}.nii.gz or sub-*/ses-*/*/*_{suffix}.nii.gz."
        )
    return found


def _check_fetched(root: Path, paths: list[Path]) -> None:
    """Refuse links of git-annex whose content is not here, all in one message."""
    reasons = {path: reason for path in sorted(paths) if (reason := why_no_file(path))}
    if reasons:
        (path, reason), count = next(iter(reasons.items())), len(reasons)
        raise VoxmillError(
            f"{root}: {count} of {len(paths)} scans can't be read, the first is {path}: {reason}."
        )


def _scan(root: Path, path: Path, suffix: str) -> BidsScan:
    if not _ENTITIES.match(path.name):
        raise VoxmillError(
            f"{path}: expected a BIDS name such as sub-01_ses-1_{suffix}.nii.gz (key-value pairs "
            "of letters and digits)."
        )
    folder = path.parent.relative_to(root).as_posix()
    parts = folder.split("/")[:-1]
    stem = path.name.split(f"_{suffix}.nii")[0]
    if stem.split("_")[: len(parts)] != parts:
        raise VoxmillError(f"{path}: its name does not begin with its folders, {'_'.join(parts)}.")
    return BidsScan(path, folder, stem, suffix)
