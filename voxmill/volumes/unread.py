"""Formats and places that are not read, each refused with what to do."""

import os
from dataclasses import dataclass
from pathlib import Path

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.paths import advice

_SCHEMES = ("s3:", "gs:", "gcs:", "http:", "https:", "ftp:", "az:", "abfs:")
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


@dataclass(frozen=True)
class Unread:
    """A known format that is not read: its suffixes, its first bytes, the way out."""

    name: str
    suffixes: tuple[str, ...]
    magic: bytes
    remedy: str


_BIOFORMATS = "`bioformats2raw {path} {stem}.zarr`, then give {stem}.zarr"
_FIJI = (
    "Fiji: File > Import > HDF5/N5/Zarr/OME-NGFF, then File > Save As > Export "
    "HDF5/N5/Zarr/OME-NGFF as OME-Zarr"
)
UNREAD = (
    Unread("Zeiss CZI", (".czi",), b"ZISRAWFILE", _BIOFORMATS),
    Unread("Nikon ND2", (".nd2",), b"\xda\xce\xbe\x0a", _BIOFORMATS),
    Unread("Leica LIF", (".lif",), b"", _BIOFORMATS),
    Unread("Olympus OIR", (".oir",), b"OLYMPUSRAWFORMAT", _BIOFORMATS),
    Unread("Olympus OIB", (".oib",), b"", _BIOFORMATS),
    Unread("Olympus VSI", (".vsi",), b"", _BIOFORMATS),
    Unread("N5", (".n5",), b"", _FIJI),
    Unread(
        "DICOM", (".dcm", ".dicom"), b"",
        "`dcm2niix -o . {folder}`, then give the .nii file that it writes",
    ),
)  # fmt: skip
_N5, _DICOM = UNREAD[-2:]


def check_local(path: object) -> None:
    """Refuse addresses (s3://, http://, ...): volumes are read from file systems alone."""
    text = str(path)
    scheme = text.split("/", 1)[0].lower()
    if scheme == "file:":
        raise VoxmillError(f"{text}: {advice(text)}")
    if "://" in text or scheme in _SCHEMES:
        raise VoxmillError(
            f"{text}: expected a path on a disk of this machine, found an address ({scheme}//). "
            "Volumes are not read over the network: copy it first, for example with `aws s3 sync`, "
            "`gsutil -m cp -r` or `wget`, or mount the bucket, and give the copy's path."
        )


def refuse_unread(path: Path, head: bytes) -> None:
    """Refuse a file or folder of a format that is known but not read.

    Parameters
    ----------
    path : path
    head : bytes
        Its first bytes; empty for a folder.

    Raises
    ------
    VoxmillError
        Naming the format and the command that converts it.
    """
    known = _unread_folder(path) if path.is_dir() else _unread_file(path, head)
    if known is not None:
        folder = path if path.is_dir() else path.parent
        remedy = known.remedy.format(path=path, stem=path.stem, folder=folder)
        raise VoxmillError(f"{path}: {known.name} is not read. Convert it: {remedy}.")


def _unread_file(path: Path, head: bytes) -> Unread | None:
    if head[128:132] == b"DICM":
        return _DICOM
    for known in UNREAD:
        if path.suffix.lower() in known.suffixes:
            return known
        if known.magic and head.startswith(known.magic):
            return known
    return None


def _unread_folder(path: Path) -> Unread | None:
    if path.suffix.lower() == ".n5":
        return _N5
    if any((path / mark).is_file() for mark in _ZARR_MARKS):
        return None
    names = sorted(os.listdir(path))
    if any(name.lower().endswith((".tif", ".tiff")) for name in names):
        return None
    if "attributes.json" in names:
        return _N5
    files = [name for name in names if not name.startswith(".") and (path / name).is_file()]
    for name in files[:1]:
        with open(path / name, "rb") as file:
            head = file.read(132)
        return _DICOM if _unread_file(path / name, head) is _DICOM else None
    return None


def explain_missing(path: Path) -> str:
    """What to do about a path that leads into a container without being there; "" if nothing."""
    for parent in path.parents:
        if parent.is_file():
            rest = path.relative_to(parent).as_posix()
            return f"{parent} is a file: choose inside of it with `dataset: {rest}`."
        if parent.is_dir():
            if not any((parent / mark).is_file() for mark in _ZARR_MARKS):
                return ""
            names = sorted(p.name for p in parent.iterdir() if p.is_dir())
            return f"The Zarr {parent} has {', '.join(names[:10]) or 'nothing in it'}."
    return ""
