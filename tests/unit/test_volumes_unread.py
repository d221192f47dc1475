"""Formats and places that are not read are refused in plain words, with the way out."""

import pytest

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import read_header


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("v.czi", b"ZISRAWFILE" + bytes(300), r"Zeiss CZI is not.*`bioformats2raw .*v.czi v.zarr`"),
        ("renamed", b"ZISRAWFILE" + bytes(300), "Zeiss CZI is not read"),
        ("v.nd2", b"\xda\xce\xbe\x0a" + bytes(300), "Nikon ND2 is not read.*bioformats2raw"),
        ("old.ND2", b"\0\0\0\x0cjP  " + bytes(300), "Nikon ND2 is not read"),
        ("v.lif", b"p\0\0\0" + bytes(300), "Leica LIF is not read.*bioformats2raw"),
        ("v.oir", b"OLYMPUSRAWFORMAT" + bytes(300), "Olympus OIR is not read.*bioformats2raw"),
        ("v.oib", b"\xd0\xcf\x11\xe0", "Olympus OIB is not read"),
        ("v.vsi", b"II*\0", "Olympus VSI is not read"),
        ("v.dcm", b"", "DICOM is not read.*`dcm2niix -o . "),
        ("IM0001", bytes(128) + b"DICM" + bytes(300), "DICOM is not read.*dcm2niix"),
    ],
)  # fmt: skip
def test_files(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VoxmillError, match=match) as caught:
        read_header(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_folders(tmp_path):
    dicom = tmp_path / "series"
    dicom.mkdir()
    for number in range(3):
        (dicom / f"IM{number}").write_bytes(bytes(128) + b"DICM" + bytes(300))
    with pytest.raises(VoxmillError, match=f"DICOM is not read.*dcm2niix -o . {dicom}"):
        read_header(dicom)
    for name in ("a.n5", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "attributes.json").write_text('{"n5": "2.0.0"}')
        with pytest.raises(VoxmillError, match=r"N5 is not read\. Convert it: Fiji"):
            read_header(tmp_path / name)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("hello")
    with pytest.raises(VoxmillError, match="expected a folder of TIFF planes"):
        read_header(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VoxmillError, match="found an empty folder"):
        read_header(tmp_path / "empty")


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/brain.zarr", "gs://bucket/brain.zarr", "https://host/brain.zarr",
        "http://host/brain.zarr", "s3:/bucket/brain.zarr",
    ],
)  # fmt: skip
def test_addresses(address):
    scheme = address.split("/")[0]
    match = f"{address}: expected a path on a disk of this machine, found an address .{scheme}//"
    with pytest.raises(VoxmillError, match=match):
        read_header(address)
