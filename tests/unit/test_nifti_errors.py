"""NIfTI headers that are damaged or contradict themselves, and files that only look alike."""

import gzip
import struct
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmill.denoising.nifti import read_scan
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import open_volume, read_header

DATA = np.arange(4 * 5 * 6, dtype="int16").reshape(4, 5, 6)


def write(path, affine=None, unit="micron", kind=nibabel.Nifti1Image):
    image = kind(DATA, np.diag([1.6, 1.6, 5, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def changed(path, position, content):
    data = bytearray(write(path).read_bytes())
    data[position : position + len(content)] = content
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("position", "content"),
    [
        *[(108, struct.pack("<f", v)) for v in (np.nan, np.inf, -352, -1, 100, 1e30)],
        *[(40, struct.pack("<h", n)) for n in (0, -1, 8, 300)],
        *[(42, struct.pack("<h", n)) for n in (0, -5)],
        *[(70, struct.pack("<h", n)) for n in (0, -1, 999, 1, 255)],
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_headers(tmp_path, position, content, packed):
    path = changed(tmp_path / "v.nii", position, content)
    if packed:
        path = tmp_path / "v.nii.gz"
        path.write_bytes(gzip.compress((tmp_path / "v.nii").read_bytes()))
    with pytest.raises(VoxmillError, match=r"v\.nii"):
        read_header(path)
    with pytest.raises(VoxmillError, match=r"v\.nii"):
        read_scan(path)


def read_all(path):
    """Read a file in both ways; our own errors are fine, others are not."""
    for read in (lambda: open_volume(read_header(path)), lambda: read_scan(path)):
        try:
            opened = read()
        except VoxmillError:
            continue
        if hasattr(opened, "read_window"):
            with opened as volume:
                try:
                    volume.read_window((0, 0, 0), (1, 1, 1))
                except VoxmillError:
                    continue


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 355), st.binary(min_size=1, max_size=8)), min_size=1, max_size=3
    ),
    length=st.integers(0, 600),
    packed=st.booleans(),
)
def test_any_bytes_in_a_header(tmp_path_factory, changes, length, packed):
    folder = tmp_path_factory.mktemp("fuzz")
    data = bytearray(write(folder / "v.nii").read_bytes())
    for position, content in changes:
        data[position : position + len(content)] = content
    content = bytes(data[:length] if length < 400 else data)
    path = folder / ("v.nii.gz" if packed else "v.nii")
    path.write_bytes(gzip.compress(content) if packed else content)
    read_all(path)


@settings(max_examples=100, deadline=None)
@given(position=st.integers(0, 400), content=st.binary(min_size=1, max_size=8))
def test_any_bytes_in_gzip_data(tmp_path_factory, position, content):
    path = tmp_path_factory.mktemp("fuzz") / "v.nii.gz"
    data = bytearray(write(path).read_bytes())
    data[position : position + len(content)] = content
    path.write_bytes(data)
    read_all(path)


def test_pixdim_and_sform_that_disagree(tmp_path):
    path = changed(tmp_path / "v.nii", 80, struct.pack("<fff", 25, 25, 25))
    header = read_header(path)
    assert header.voxel_size_um is None
    assert "pixdim [25.0, 25.0, 25.0] and the lengths of sform's axes" in header.voxel_size_source
    angle = np.deg2rad(20)
    oblique = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    affine = np.eye(4)
    affine[:2, :3] = oblique
    affine[:3, :3] = affine[:3, :3] @ np.diag([1.6, 1.6, 5])
    assert read_header(write(path, affine)).voxel_size_um == pytest.approx((5, 1.6, 1.6))
    without = changed(path, 280, bytes(48))  # a code of sform, but only zeros in it
    assert read_header(without).voxel_size_um == pytest.approx((5, 1.6, 1.6))


RELATIVES = {
    "pair.hdr": (nibabel.Nifti1Pair, "the header of a NIfTI pair"),
    "pair.img": (nibabel.Nifti1Pair, "a part of a NIfTI pair"),
    "old.hdr": (nibabel.AnalyzeImage, "Analyze"),
    "free.mgz": (nibabel.MGHImage, "FreeSurfer"),
    "free.mgh": (nibabel.MGHImage, "FreeSurfer"),
}


@pytest.mark.parametrize("name", RELATIVES)
def test_relatives_are_named_with_what_to_do(tmp_path, name):
    kind, match = RELATIVES[name]
    path = tmp_path / name
    image = path.with_suffix(".img") if name.endswith("hdr") else path
    nibabel.save(kind(DATA, np.eye(4)), image)
    with pytest.raises(VoxmillError, match=rf"{name}: .*{match}.* Convert it") as caught:
        read_header(path)
    command = str(caught.value).split("`")[1]
    if command.startswith("python"):
        program = command.removeprefix('python -c "').removesuffix('"')
        subprocess.run([sys.executable, "-c", program], check=True)
        assert read_header(path.with_suffix(".nii")).shape == (6, 5, 4)


def test_other_images_are_named(tmp_path):
    for name, content, match in (
        ("v.nrrd", b"NRRD0004\n", "NRRD"),
        ("v.mha", b"ObjectType = Image\n", "MetaImage"),
        ("v.dcm", bytes(128) + b"DICM", "DICOM"),
    ):
        (tmp_path / name).write_bytes(content + bytes(400))
        with pytest.raises(VoxmillError, match=match):
            read_header(tmp_path / name)


def test_an_extension_that_asks_for_all_memory_is_an_error_of_the_file(tmp_path, monkeypatch):
    def load(path):
        raise MemoryError

    monkeypatch.setattr(nibabel, "load", load)
    with pytest.raises(VoxmillError, match=r"expected a NIfTI image.*a size in it is no size"):
        read_scan(write(tmp_path / "v.nii"))
