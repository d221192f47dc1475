"""BIDS folders: find the T1-weighted scans and name their derivatives.

The Brain Imaging Data Structure, https://bids-specification.readthedocs.io (1.10).
"""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.fetched import why_not_here
from voxmill.runtime.files import read_json
from voxmill.runtime.paths import advice

_ENTITIES = re.compile(r"^(sub-[A-Za-z0-9]+)(_[a-z]+-[A-Za-z0-9]+)*_T1w\.nii(\.gz)?$")


@dataclass(frozen=True)
class BidsScan:
    """One T1-weighted scan of a BIDS folder.

    Attributes
    ----------
    path : Path
        The image.
    folder : str
        Its folder inside the data set, such as "sub-01/ses-2/anat".
    stem : str
        Its file name without suffix and extension, such as "sub-01_ses-2_run-1".
    """

    path: Path
    folder: str
    stem: str

    @property
    def derivative(self) -> str:
        """Path of its denoised image in a derivative data set."""
        return f"{self.folder}/{self.stem}_desc-denoised_T1w.nii.gz"


def find_scans(folder: str | Path) -> list[BidsScan]:
    """Find all `sub-*/[ses-*/]anat/*_T1w.nii[.gz]` of a BIDS folder, sorted by name.

    Raises
    ------
    VoxmillError
        If the folder or its `dataset_description.json` is missing, a scan's name breaks BIDS'
        rules, a scan exists twice or is not fetched, or there is no scan.
    """
    root = Path(folder)
    if not root.is_dir():
        raise VoxmillError(f"{root}: this BIDS folder does not exist. {advice(root)}")
    read_json(root / "dataset_description.json", "BIDS data set description")
    scans = [
        _scan(root, path)
        for pattern in ("sub-*/anat", "sub-*/ses-*/anat")
        for path in root.glob(f"{pattern}/*_T1w.nii*")
        if not path.name.startswith(".")  # macOS leaves ._ files beside copied ones
    ]
    if not scans:
        raise VoxmillError(
            f"{root}: no scan matches sub-*/anat/*_T1w.nii.gz or sub-*/ses-*/anat/*_T1w.nii.gz."
        )
    _check_fetched(root, [scan.path for scan in scans])
    scans.sort(key=lambda scan: (scan.stem, scan.path.name))
    for first, second in itertools.pairwise(scans):
        if first.stem == second.stem:
            raise VoxmillError(
                f"{root}: {first.path.name} and {second.path.name} are the same scan twice; keep "
                "one of them."
            )
    return scans


def _check_fetched(root: Path, paths: list[Path]) -> None:
    """Refuse links of git-annex whose content is not here, all in one message."""
    reasons = {path: reason for path in sorted(paths) if (reason := why_not_here(path))}
    if reasons:
        (path, reason), count = next(iter(reasons.items())), len(reasons)
        raise VoxmillError(
            f"{root}: {count} of {len(paths)} scans can't be read, the first is {path}: {reason}."
        )


def _scan(root: Path, path: Path) -> BidsScan:
    if not _ENTITIES.match(path.name):
        raise VoxmillError(
            f"{path}: expected a BIDS name such as sub-01_ses-1_T1w.nii.gz (key-value pairs of "
            "letters and digits)."
        )
    folder = path.parent.relative_to(root).as_posix()
    parts = folder.split("/")[:-1]
    stem = path.name.split("_T1w.nii")[0]
    if stem.split("_")[: len(parts)] != parts:
        raise VoxmillError(f"{path}: its name does not begin with its folders, {'_'.join(parts)}.")
    return BidsScan(path, folder, stem)
