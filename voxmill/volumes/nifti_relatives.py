"""Files of brain imaging that are no NIfTI in one file: what they are, and how to convert them."""

from pathlib import Path

from voxmill.runtime.errors import VoxmillError

_NIBABEL = 'python -c "import nibabel as n; n.save(n.load({source!r}), {target!r})"'
_ITK = 'python -c "import SimpleITK as s; s.WriteImage(s.ReadImage({source!r}), {target!r})"'


def refuse_relative(path: Path, head: bytes) -> None:
    """Refuse a file of a known kind that is not read; others pass.

    Parameters
    ----------
    path : Path
    head : bytes
        The first bytes, unpacked where the file is gzipped; 352 of them where there are as many.

    Raises
    ------
    VoxmillError
        Names what the file is, and the command that makes a NIfTI of it.
    """
    found = _found(path, head)
    if found is not None:
        raise VoxmillError(
            f"{path}: expected a NIfTI in one file (.nii, .nii.gz), found {found[0]}. "
            f"{conversion(path, head)}"
        )


def conversion(path: Path, head: bytes) -> str:
    """How to make a NIfTI of a file: a sentence, empty where it is of no known kind."""
    found = _found(path, head)
    if found is None:
        return ""
    stem = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    target = str(path.with_name(f"{stem}.nii"))
    command = found[1].format(source=str(path), target=target, folder=path.parent)
    return f"Convert it, for example with `{command}`."


def _found(path: Path, head: bytes) -> tuple[str, str] | None:
    """What the file is and the command that converts it; None where it is not known."""
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if head[344:347] == b"n+1" or head[4:7] == b"n+2":
        return None
    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        return "the header of a NIfTI pair (.hdr, .img)", _NIBABEL
    if head[:4] in (b"\x5c\1\0\0", b"\0\0\1\x5c"):  # the size of the header, 348
        return "the header of an Analyze image (.hdr, .img)", _NIBABEL
    if suffix in ("hdr", "img"):
        return "a part of a NIfTI pair or of an Analyze image (.hdr, .img)", _NIBABEL
    if suffix in ("mgz", "mgh") or (head[:4] == b"\0\0\0\1" and len(head) >= 284):
        return "an image of FreeSurfer (.mgh, .mgz)", "mri_convert {source} {target}"
    if head[:4] == b"NRRD":
        return "an NRRD image", _ITK
    if suffix in ("mha", "mhd") or head[:10] == b"ObjectType":
        return "a MetaImage (.mha, .mhd)", _ITK
    if suffix == "mnc":
        return "a MINC image", _NIBABEL
    if head[128:132] == b"DICM" or suffix in ("dcm", "dicom"):
        return "a DICOM file", "dcm2niix -o {folder} {folder}"
    return None
