"""Which content a volume has: known from sizes, dates and inodes once it was read as a whole.

A fingerprint names a content. The first one of its kind is a digest of the header, of the files'
sizes and of pieces of their bytes: copies have the same one, whatever their dates. Dates and inodes
decide alone whether a volume has to be looked at again. What reads a volume as a whole
(`measure_volume`) keeps a digest of every voxel, in `results/.sources`. A volume with the same
pieces but another date is read once more: with the same digest it keeps the fingerprint, with
another one that digest becomes part of its fingerprint.
"""

import dataclasses
import hashlib
import html
import json
import logging
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from voxmill.runtime.checked import read_checked_json, write_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.fetched import is_no_file
from voxmill.runtime.files import sha256, update_with_pieces, visible
from voxmill.volumes import folder
from voxmill.volumes.arrays import file_stamp
from voxmill.volumes.header import LABEL_DTYPES, VolumeHeader

logger = logging.getLogger("voxmill")

KNOWN = Path("results/.sources")
"""What was read as a whole; relative, as all results are."""

_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16
_LARGE_BYTES = 1 << 31
_NAMED_FILE = re.compile(r"FileName\s*=\s*[\"']([^\"']+)")


class Content:
    """A digest of all voxels, fed plane by plane: shape, type and a checksum of each plane."""

    def __init__(self, header: VolumeHeader):
        self._digest = hashlib.sha256(json.dumps([header.shape, header.dtype]).encode())

    def add(self, plane: np.ndarray) -> None:
        """Add the next plane, (y, x) in native byte order."""
        self._digest.update(zlib.crc32(np.ascontiguousarray(plane).data).to_bytes(4, "little"))

    def hexdigest(self) -> str:
        """The digest of the planes so far."""
        return self._digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Stamp:
    """What tells without reading a volume whether it is the one that was read.

    Parameters
    ----------
    facts : str
        Digest of what the header says.
    pieces : str
        Digest of the header, of the files' sizes and of pieces of their bytes.
    mark : str
        Digest of both, and of the files' dates and inodes.
    """

    facts: str
    pieces: str
    mark: str


def fingerprint(
    header: VolumeHeader, samples: int = _SAMPLES, sample_bytes: int = _SAMPLE_BYTES
) -> str:
    """Hex digest that stands for a volume's content, and holds no date.

    Where a volume with the same pieces but another date was seen before, and was read as a whole
    (`remember`), the volume is read, and keeps its fingerprint if every voxel is the same. Where
    that one was not read, this counts as another volume, and then the date is in the digest.
    Another given voxel size changes nothing.

    Parameters
    ----------
    header : VolumeHeader
    samples, sample_bytes : int
        Pieces that are read of a file, or files of a folder that pieces are read of.
    """
    header = header.in_own_voxels
    stamp = stamp_of(header, samples, sample_bytes)
    if known := _read(_entry(stamp)):
        return str(known["fingerprint"])
    alike = _alike(stamp, list(header.shape))
    # Another job may have kept it meanwhile; then it is among those that are alike.
    if known := _read(_entry(stamp)):
        return str(known["fingerprint"])
    read = [entry for entry in alike if entry["content"]]
    if not read:
        changed = bool(alike) or _changed_here(header, stamp)
        found = _variant(stamp, stamp.mark) if changed else stamp.pieces
        _keep(stamp, found, None)
        return found
    logger.warning(
        "%s: a volume like this one was read before, but its date or place is another: reading "
        "it (%.3g GB) to see whether its content is.",
        header.path, header.nbytes / 1e9,
    )  # fmt: skip
    content = _content(header)
    same = [entry["fingerprint"] for entry in read if entry["content"] == content]
    found = str(same[0]) if same else _variant(stamp, content)
    if stamp_of(header, samples, sample_bytes) == stamp:
        _keep(stamp, found, content)
    return found


def remember(header: VolumeHeader, content: str) -> None:
    """Keep the digest of all voxels of a volume that was just read as a whole.

    That of a volume that was read at another voxel size tells nothing about its file.
    """
    if header.resampling is not None:
        return
    stamp, found = stamp_of(header), fingerprint(header)
    known = _read(_entry(stamp))
    if known is None or known["content"] is None:
        _keep(stamp, found, content)


def stamp_of(
    header: VolumeHeader, samples: int = _SAMPLES, sample_bytes: int = _SAMPLE_BYTES
) -> Stamp:
    """The stamp of a volume, from its header and from what the file system says."""
    from voxmill.volumes import format_of

    header = header.in_own_voxels
    known = dataclasses.asdict(header)
    # The pattern chooses names, which the digest holds.
    for key in ("path", "voxel_size_um", "voxel_size_source", "translation_um", "pattern"):
        known.pop(key)
    facts = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    pieces = hashlib.sha256(facts.encode())
    path = Path(header.path)
    if (update := format_of(path).update_fingerprint) is not None and path.is_dir():
        dates = update(pieces, header, samples, sample_bytes)
    else:
        files = _files(header)
        # A single file may have any name.
        names = [file.name for file in files] if len(files) > 1 else [""]
        sizes = [os.path.getsize(file) for file in files]
        pieces.update(json.dumps(list(zip(names, sizes, strict=True))).encode())
        chosen = np.unique(np.linspace(0, len(files) - 1, samples).astype(int))
        count = samples if len(files) == 1 else 2
        for index in chosen:
            update_with_pieces(pieces, files[index], count, sample_bytes)
        dates = [file_stamp(file) for file in files]
    mark = hashlib.sha256(f"{pieces.hexdigest()} {json.dumps(dates)}".encode())
    return Stamp(facts, pieces.hexdigest(), mark.hexdigest())


def file_fingerprint(path: str | Path) -> str:
    """SHA-256 of a file; it is not read again while its size, date and inode are the same.

    Raises
    ------
    VoxmillError
        If it is a pipe, a socket or a device, which would be waited for.
    """
    if is_no_file(Path(path)):
        raise VoxmillError(f"{path}: expected a file, found a pipe, a socket or a device.")
    pieces = hashlib.sha256(json.dumps(file_stamp(Path(path))).encode())
    update_with_pieces(pieces, path, 2, 1 << 12)
    stamp = Stamp("files", "", pieces.hexdigest())
    if known := _read(_entry(stamp)):
        return str(known["content"])
    if (size := os.path.getsize(path)) > _LARGE_BYTES:
        logger.warning("%s: reading it (%.3g GB) for a digest, once", path, size / 1e9)
    content = sha256(path)
    _keep(stamp, content, content)
    return content


def path_fingerprint(path: str | Path) -> str:
    """Fingerprint of a file of any kind, or of a folder that holds a volume."""
    from voxmill.volumes import read_header

    if Path(path).is_dir():
        return fingerprint(read_header(path, dtypes=LABEL_DTYPES))
    return file_fingerprint(path)


_seen_here: dict[tuple[str, str], str] = {}
"""The first mark of a path and its pieces, where no notes can be kept."""


def _changed_here(header: VolumeHeader, stamp: Stamp) -> bool:
    """Whether this process has seen a path with the same pieces, but of another date."""
    if KNOWN.parent.is_dir():
        return False
    place = os.path.abspath(header.path), stamp.pieces
    return _seen_here.setdefault(place, stamp.mark) != stamp.mark


def _files(header: VolumeHeader) -> list[Path]:
    """All files that the voxels of a volume are in, its first file first."""
    path = Path(header.path)
    if path.is_dir():
        return [path / name for name in folder.plane_names(header)]
    if header.format != "OME-TIFF":
        return [path]
    with tifffile.TiffFile(path) as tif:
        text = tif.ome_metadata or ""
    names = {html.unescape(name) for name in _NAMED_FILE.findall(text)}
    beside = {path.with_name(Path(name).name) for name in names}
    return [path, *sorted(file for file in beside if file != path and os.path.isfile(file))]


def _content(header: VolumeHeader) -> str:
    from voxmill.volumes import open_volume

    content = Content(header)
    with open_volume(header) as volume:
        for _, plane in volume.planes():
            content.add(plane)
    return content.hexdigest()


def _entry(stamp: Stamp) -> Path:
    return KNOWN / stamp.facts[:16] / f"{stamp.mark[:32]}.json"


def _variant(stamp: Stamp, by: str) -> str:
    """The name of a volume whose pieces are those of another one."""
    return stamp.pieces[:32] + by[:32]


def _alike(stamp: Stamp, shape: list[int]) -> list[dict[str, Any]]:
    """What is known of volumes with the same pieces, also from the statistics of a run."""
    # Another job's note that is being written is none yet: it may be of this very volume.
    paths = visible(KNOWN / stamp.facts[:16], "*.json")
    # Notes may be gone, where results were copied without hidden folders.
    paths += visible(KNOWN.parent, "*/statistics.json")
    entries = [entry for path in paths if (entry := _read(path))]
    return [
        entry
        for entry in entries
        if str(entry["fingerprint"])[:32] == stamp.pieces[:32]
        # The content of a volume that was resampled on reading is not that of its file.
        and entry.get("shape", shape) == shape
    ]


def _read(path: Path) -> dict[str, Any] | None:
    """What is known about a volume; None where nothing is, or where the file is damaged."""
    if not path.is_file():
        return None
    try:
        entry = read_checked_json(path)
    except VoxmillError:
        return None
    return entry if {"fingerprint", "content"} <= set(entry) else None


def _keep(stamp: Stamp, name: str, content: str | None) -> None:
    # Elsewhere than in a folder of results nothing is left behind.
    if not KNOWN.parent.is_dir():
        return
    entry = {"fingerprint": name, "content": content}
    try:
        write_checked_json(_entry(stamp), entry)
    except VoxmillError as error:
        # A full or read-only disk, or another job that keeps the same: it is read again next time.
        logger.info("%s", error)
