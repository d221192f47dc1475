"""Write denoised scans as the derivatives of a BIDS data set."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nibabel
import numpy as np

from voxmill import __version__
from voxmill.denoising.bids import DEFAULT_SUFFIXES, BidsScan, find_scans
from voxmill.runtime.files import read_json, write_json, writing
from voxmill.runtime.jobs import job
from voxmill.runtime.receipts import remove_receipts, write_receipts

BIDS_VERSION = "1.10.0"


@job(outputs=("output_path",))
def write_derivatives(
    *,
    denoised_paths: list[str],
    record_paths: list[str],
    output_path: str,
    source: str,
    suffixes: Sequence[str] = DEFAULT_SUFFIXES,
    counts: Sequence[int] | None = None,
) -> None:
    """Write denoised scans and their sidecars as a BIDS derivative data set.

    Parameters
    ----------
    denoised_paths, record_paths : list of path
        Volume and record of each scan, in the order of `find_scans(source, suffixes)`; of a series
        those of each of its volumes.
    output_path : path
        The data set's `dataset_description.json`, written last; its folder gets the images.
    source : path
        The raw BIDS folder.
    suffixes : sequence of str
        Of the scans.
    counts : sequence of int, optional
        How many volumes each scan has; 1 by default.

    Raises
    ------
    VoxmillError
        If the raw folder breaks BIDS' rules or a record cannot be read.
    """
    root = Path(output_path).parent
    scans = find_scans(source, suffixes)
    starts = np.cumsum([0, *(counts or [1] * len(scans))])
    written: list[Path] = []
    for scan, start, stop in zip(scans, starts[:-1], starts[1:], strict=True):
        image = root / scan.derivative
        stem = str(image).removesuffix(".nii.gz")
        files = [image, *(Path(stem + kind) for kind in (".json", ".bval", ".bvec"))]
        remove_receipts(files)
        with writing(image) as scratch:
            _put(denoised_paths[start:stop], scratch)
        write_json(f"{stem}.json", sidecar(scan, record_paths[start:stop]))
        # The gradients of a diffusion series belong to the image, not to its denoising.
        for kind in (".bval", ".bvec"):
            raw = scan.path.with_name(f"{scan.stem}_{scan.suffix}{kind}")
            if raw.exists():
                shutil.copyfile(raw, stem + kind)
        written += [file for file in files if file.exists()]
    # By these a file that is deleted or damaged is missed, though Snakemake knows of one alone.
    write_receipts(written, "write_derivatives", "")
    write_json(output_path, description(source, root))


def sidecar(scan: BidsScan, record_paths: Sequence[str | Path]) -> dict:
    """Metadata of one derivative image: those of the raw image and of its denoising.

    Of a series, what differs between its volumes is a list.
    """
    records = [read_json(path, "record of a denoised scan") for path in record_paths]
    record = records[0]
    if len(records) > 1:
        record = {key: [one.get(key) for one in records] for key in record}
        record["seed"] = records[0]["seed"]
    raw = scan.path.with_name(f"{scan.stem}_{scan.suffix}.json")
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


def description(source: str | Path, folder: Path) -> dict:
    """`dataset_description.json` of the derivatives of a raw data set, in a folder.

    A raw data set that is given by a relative path is linked by one, so that both can be moved
    together; one that is given by its whole path by that.
    """
    link = Path(source).resolve().as_uri()
    if not os.path.isabs(source):
        link = quote(os.path.relpath(os.path.realpath(source), os.path.realpath(folder)))
    raw = read_json(Path(source) / "dataset_description.json", "BIDS data set description")
    return {
        "Name": f"{raw.get('Name', Path(source).name)}, denoised",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "voxmill", "Version": __version__}],
        "SourceDatasets": [{"URL": link}],
        "DatasetLinks": {"raw": link},
    }


def _put(denoised: Sequence[str], target: Path) -> None:
    """One volume as it is; several as a series with the header of the first."""
    if len(denoised) == 1:
        _link_or_copy(Path(denoised[0]), target)
        return
    images: list[Any] = [nibabel.load(path) for path in denoised]
    first = images[0]
    # As stored: all have the slope of the raw series.
    data = np.stack([image.dataobj.get_unscaled() for image in images], axis=-1)
    series = type(first)(data, first.affine, first.header)
    series.header.set_slope_inter(first.dataobj.slope, first.dataobj.inter)
    nibabel.save(series, target)


def _link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link, so that the volume is not stored twice; copy where there are none."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
