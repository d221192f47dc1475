"""Write denoised scans as the derivatives of a BIDS data set."""

import os
import shutil
from pathlib import Path

from voxmill import __version__
from voxmill.denoising.bids import BidsScan, find_scans
from voxmill.runtime.files import read_json, write_json, writing
from voxmill.runtime.jobs import job

BIDS_VERSION = "1.10.0"


@job(outputs=("output_path",))
def write_derivatives(
    *,
    denoised_paths: list[str],
    record_paths: list[str],
    output_path: str,
    source: str,
) -> None:
    """Write denoised scans and their sidecars as a BIDS derivative data set.

    Parameters
    ----------
    denoised_paths, record_paths : list of path
        Volume and record of each scan, in the order of `find_scans(source)`.
    output_path : path
        The data set's `dataset_description.json`, written last; its folder gets the images.
    source : path
        The raw BIDS folder.

    Raises
    ------
    VoxmillError
        If the raw folder breaks BIDS' rules or a record cannot be read.
    """
    root = Path(output_path).parent
    scans = find_scans(source)
    for scan, denoised, record in zip(scans, denoised_paths, record_paths, strict=True):
        image = root / scan.derivative
        with writing(image) as scratch:
            _link_or_copy(Path(denoised), scratch)
        write_json(Path(str(image).removesuffix(".nii.gz") + ".json"), sidecar(scan, record))
    write_json(output_path, description(source))


def sidecar(scan: BidsScan, record_path: str | Path) -> dict:
    """Metadata of one derivative image: those of the raw image and of its denoising."""
    record = read_json(record_path, "record of a denoised scan")
    raw = scan.path.with_name(f"{scan.stem}_T1w.json")
    content = read_json(raw, "BIDS sidecar") if raw.exists() else {}
    return content | {
        "Description": "Denoised with a Deep Image Prior (voxmill)",
        "Sources": [f"bids:raw:{scan.folder}/{scan.path.name}"],
        "SkullStripped": content.get("SkullStripped", False),
        "NoiseSigma": record["noise_sigma"],
        "Iterations": record["result_of_iterations"],
        "StopReason": record["stop_reason"],
        "Seed": record["seed"],
    }


def description(source: str | Path) -> dict:
    """`dataset_description.json` of the derivatives of a raw data set."""
    raw = read_json(Path(source) / "dataset_description.json", "BIDS data set description")
    return {
        "Name": f"{raw.get('Name', Path(source).name)}, denoised",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "voxmill", "Version": __version__}],
        "SourceDatasets": [{"URL": Path(source).resolve().as_uri()}],
        "DatasetLinks": {"raw": Path(source).resolve().as_uri()},
    }


def _link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link, so that the volume is not stored twice; copy where there are none."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
