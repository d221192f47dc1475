"""Bad files are refused by name, with what was expected and what was found."""

import gzip

import nibabel
import numpy as np
import pytest
import tifffile
import volume_files
from volume_files import WRITERS

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import nifti, open_volume, read_header, unpack

SHAPE = (5, 37, 43)


def example(dtype="uint16", shape=SHAPE):
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def refused(path, match, **options):
    with pytest.raises(VoxmillError, match=match) as caught:
        read_header(path, **options)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    refused(tmp_path / "none.tif", "this volume does not exist")


def test_unknown_format(tmp_path):
    path = tmp_path / "volume.tif"
    path.write_bytes(b"not an image")
    refused(path, "expected TIFF, .*NIfTI.*, found a file that begins with b'not an i'")
    path.write_bytes(b"")
    refused(path, "found an empty file")


def test_unreadable_file(tmp_path):
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file" / "volume.tif", "can't be read .Not a directory")


@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"folder", "folder zlib"}))
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9])
def test_truncated_file(tmp_path, name, kept):
    path = WRITERS[name](tmp_path / "volume", example())
    if path.is_dir():
        path = sorted(path.iterdir())[2]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    match = "truncated|damaged|found a file that begins|the data end early"
    refused(path if path.parent == tmp_path else path.parent, match)


@pytest.mark.parametrize("name", ["tiff zlib", "pages zlib", "ome tiles", "folder zlib"])
def test_damaged_page_is_named(tmp_path, name):
    path = WRITERS[name](tmp_path / "volume", example())
    file = sorted(path.iterdir())[3] if path.is_dir() else path
    with tifffile.TiffFile(file) as tif:
        page = tif.pages[0 if path.is_dir() else 3]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray(file.read_bytes())
    data[offset : offset + count] = bytes(count)
    file.write_bytes(data)
    with open_volume(read_header(path)) as volume:
        volume.read_window((0, 0, 0), (2, *SHAPE[1:]))
        with pytest.raises(VoxmillError, match="plane 3 can't be decoded") as caught:
            volume.read_window((2, 0, 0), (4, *SHAPE[1:]))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("name", ["tiff", "pages zlib", "nifti"])
def test_file_that_shrinks_while_open(tmp_path, name):
    path = WRITERS[name](tmp_path / "volume", example())
    with open_volume(read_header(path)) as volume:
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(VoxmillError, match="truncated"):
            volume.read_window((0, 0, 0), SHAPE)


def test_fewer_planes_than_described(tmp_path):
    """The chain of pages ends well, but too early for the description."""
    path = tmp_path / "volume.tif"
    text = '{"shape": [6, 37, 43]}'
    with tifffile.TiffWriter(path) as writer:
        for z, plane in enumerate(example()):
            description = {} if z else {"description": text}
            options = {"metadata": None, "contiguous": False, "compression": "zlib"}
            writer.write(plane, **options, **description)
    refused(path, "truncated: its description announces 6 planes, found 1")


def test_damaged_tag_in_tiff(tmp_path):
    path = WRITERS["pages zlib"](tmp_path / "volume", example())
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[0].tags["ImageWidth"]
        offset = tag.valueoffset
    data = bytearray(path.read_bytes())
    data[offset : offset + 4] = bytes(4)
    path.write_bytes(data)
    refused(path, "pages of one shape and type, found width 0, .* as page 1, width 43")


@pytest.mark.parametrize("name", ["pages zlib", "ome tiles"])
def test_damaged_page_header_is_read_or_refused(tmp_path, name):
    """Whatever a byte of the page header holds, no error but VoxmillError is raised."""
    path = WRITERS[name](tmp_path / "volume", example())
    with tifffile.TiffFile(path) as tif:
        start, tags = tif.pages[0].offset, len(tif.pages[0].tags)
    data, refusals = path.read_bytes(), 0
    for position in range(start, start + 2 + 12 * tags + 4):
        for value in (0, 2, 255):
            path.write_bytes(data[:position] + bytes([value]) + data[position + 1 :])
            try:
                assert min(read_header(path).shape) > 0
            except VoxmillError:
                refusals += 1
    assert refusals > tags


def test_pages_that_run_in_a_circle(tmp_path):
    path = volume_files.pages(tmp_path / "volume", example())
    with tifffile.TiffFile(path) as tif:
        offsets = [page.offset for page in tif.pages]
        tags = len(tif.pages[4].tags)
    data = bytearray(path.read_bytes())
    end = offsets[4] + 2 + 12 * tags
    data[end : end + 4] = offsets[1].to_bytes(4, "little")
    path.write_bytes(data)
    refused(path, "a page header that points back")


@pytest.mark.parametrize("dtype", ["float64", "complex64", "complex128", "uint32", "float16"])
def test_dtype(tmp_path, dtype):
    path = volume_files.tiff(tmp_path / "volume", example(dtype))
    remedy = "magnitude" if dtype.startswith("complex") else "numpy.float32"
    refused(path, f"expected voxels of type uint8, uint16, int16, float32, found {dtype}.*{remedy}")


@pytest.mark.parametrize("dtype", ["float64", "complex64", "int32"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_dtype(tmp_path, dtype, suffix):
    path = volume_files.nifti(tmp_path / "volume", example(dtype), suffix=suffix)
    refused(path, f"expected voxels of type .*, found {dtype}")


def test_colour(tmp_path):
    array = example("uint8", (*SHAPE, 3))
    refused(volume_files.tiff(tmp_path / "rgb", array, photometric="rgb"), "colour image .RGB, 3")
    planes = volume_files.folder(tmp_path / "planes", array, photometric="rgb")
    with pytest.raises(VoxmillError, match=r"plane_0.tif: expected grey planes, found 3 samples"):
        read_header(planes)
    rgb = np.zeros(SHAPE[::-1], [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "rgb.nii")
    refused(tmp_path / "rgb.nii", "colour image")


@pytest.mark.parametrize("name", ["tiff", "tiff zlib", "ome", "imagej", "nifti", "folder"])
def test_one_plane(tmp_path, name):
    refused(WRITERS[name](tmp_path / "volume", example(shape=(1, 37, 43))), "found a 2D image")


@pytest.mark.parametrize("write", [volume_files.tiff, volume_files.nifti])
def test_2d(tmp_path, write):
    refused(write(tmp_path / "volume", example(shape=(37, 43))), "found a 2D image")


@pytest.mark.parametrize("write", [volume_files.tiff, volume_files.nifti])
def test_5d(tmp_path, write):
    array = example(shape=(2, 3, 4, 5, 6))
    refused(write(tmp_path / "volume", array), r"expected a 3D volume .*found shape \([2-6, ]+\)")


def test_time_series_and_channels_together(tmp_path):
    path = volume_files.ome(tmp_path / "volume", example(shape=(3, 4, 5, 6)), axes="TZYX")
    refused(path, "at most one channel axis, found shape .* axes TZCYXS")
    path = volume_files.ome(tmp_path / "colours", example(shape=(3, 5, 6)), axes="CYX")
    refused(path, "found a 2D image")


def test_several_volumes_in_one_file(tmp_path):
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for shape in [SHAPE, (4, 20, 20)]:
            writer.write(example(shape=shape), metadata={"axes": "ZYX"})
    refused(path, r"expected one volume, found 2 \(\(5, 37, 43\), \(4, 20, 20\)\)")


def test_planes_of_two_shapes_in_one_file(tmp_path):
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(example(shape=(8, 9)))
        writer.write(example(shape=(8, 10)))
    refused(path, "pages of one shape and type, found width 9, .* as page 1, width 10")


@pytest.mark.parametrize("planes", [5, 12])
def test_plane_stored_in_another_way(tmp_path, planes):
    """A plane that tifffile would put into a series of its own is not left out silently."""
    path = tmp_path / "mixed.tif"
    with tifffile.TiffWriter(path) as writer:
        for z in range(planes):
            compression = "zlib" if z == 3 else None
            writer.write(example(shape=(8, 9)), metadata=None, compression=compression)
    refused(path, "pages of one shape and type, found .* NONE .* as page 3, .*DEFLATE")


def test_pages_that_are_no_planes(tmp_path):
    path = volume_files.tiff(
        tmp_path / "volume", example(shape=(32, 32, 32)), tile=(16, 16, 16), compression="zlib"
    )
    refused(path, "expected pages that are planes")


def test_channel_of_a_file_without_channels(tmp_path):
    for name in ("tiff", "folder", "nifti"):
        path = WRITERS[name](tmp_path / name, example())
        assert read_header(path, channel=0).channel is None
        refused(path, "channel 1 doesn't exist", channel=1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: tifffile.imwrite(p, example(shape=(37, 44))), "width 44.*All planes"),
        (lambda p: tifffile.imwrite(p, example("uint8", (37, 43))), "found .*bits a sample 8"),
        (lambda p: tifffile.imwrite(p, example("int16", (37, 43))), "sample format 2"),
        (
            lambda p: tifffile.imwrite(p, example(shape=(2, 37, 43))),
            "one plane, found 2 pages",
        ),
        (lambda p: p.write_bytes(b"II*\0"), "damaged or truncated"),
        (lambda p: p.write_bytes(b"text"), "damaged or truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "truncated"),
        (lambda p: p.unlink(), "missing between plane_2.tif and plane_4.tif"),
    ],
)
def test_planes_that_do_not_match(tmp_path, change, match):
    path = volume_files.folder(tmp_path / "planes", example(shape=SHAPE))
    change(path / "plane_3.tif")
    refused(path, match)


def test_plane_names(tmp_path):
    """A gap is refused only where one number counts the planes and steps evenly."""
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "expected a folder of TIFF planes .*found an empty folder")
    (tmp_path / "empty" / "notes.txt").write_text("")
    refused(tmp_path / "empty", "found notes.txt")
    for index, names in enumerate([("a", "b", "c"), ("z2", "z5", "z7"), ("1_2", "2_4", "7_6")]):
        folder = tmp_path / str(index)
        folder.mkdir()
        for name in names:
            tifffile.imwrite(folder / f"{name}.tif", example(shape=(4, 5)))
        assert read_header(folder).shape == (3, 4, 5)


def test_folder_that_changes(tmp_path):
    path = volume_files.folder(tmp_path / "planes", example())
    header = read_header(path)
    tifffile.imwrite(path / "plane_5.tif", example(shape=SHAPE[1:]))
    with pytest.raises(VoxmillError, match="expected 5 planes, found 6"):
        open_volume(header)
    (path / "plane_5.tif").unlink()
    tifffile.imwrite(path / "plane_4.tif", example(shape=(9, 9)))
    with (
        open_volume(header) as volume,
        pytest.raises(VoxmillError, match=r"plane_4.tif: expected a plane of \(37, 43\)"),
    ):
        volume.read_window((4, 0, 0), (5, 1, 1))


def test_gzip_of_something_else(tmp_path):
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(gzip.compress(b"no NIfTI" * 100))
    refused(path, "expected a NIfTI in one file")
    path.write_bytes(gzip.compress(b"no NIfTI" * 100)[:20])
    refused(path, "truncated or damaged gzip data")


def test_nifti_header(tmp_path):
    path = volume_files.nifti(tmp_path / "volume", example("int16"))
    data = bytearray(path.read_bytes())
    data[112:116] = np.float32(np.inf).tobytes()  # scl_slope
    path.write_bytes(data)
    refused(path, "expected finite scl_slope")
    data[70:72] = (999).to_bytes(2, "little")  # an unknown type code
    path.write_bytes(data)
    refused(path, "damaged or truncated NIfTI header")


def test_damaged_gzip(tmp_path):
    """Damage inside is found by reading; nothing half unpacked stays behind."""
    path = volume_files.nifti(tmp_path / "volume", example(), suffix=".nii.gz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    path.write_bytes(data)
    header = read_header(path)
    with (
        open_volume(header) as volume,
        pytest.raises(VoxmillError, match="truncated or damaged gzip data"),
    ):
        volume.read_window((0, 0, 0), SHAPE)
    with pytest.raises(VoxmillError, match="truncated or damaged gzip data"):
        unpack(header, tmp_path / "out" / "plain.nii")
    assert not list((tmp_path / "out").iterdir())


def test_gzip_that_shrinks_after_its_header(tmp_path):
    path = volume_files.nifti(tmp_path / "volume", example(), suffix=".nii.gz")
    header = read_header(path)
    plain = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(plain[:-10]))
    refused(path, "header announces .*modulo 2.32.*gunzip")
    with pytest.raises(VoxmillError, match="truncated: the header announces"):
        unpack(header, tmp_path / "plain.nii")
    with open_volume(header) as volume, pytest.raises(VoxmillError, match="plane 4 ends early"):
        volume.read_window((4, 0, 0), SHAPE)


def test_no_space_to_unpack(tmp_path):
    path = volume_files.nifti(tmp_path / "volume", example(), suffix=".nii.gz")
    end = 352 + 2 * np.prod(SHAPE)
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(VoxmillError, match=rf"can't be unpacked to /dev/full .*{end} bytes"),
    ):
        nifti._copy_unpacked(str(path), end, full)


def test_blocked_gzip(tmp_path):
    """bgzip ends with an empty block, whose size says nothing about the volume's."""
    path = volume_files.nifti(tmp_path / "volume", example(), suffix=".nii.gz")
    end = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
    path.write_bytes(path.read_bytes() + end)
    with open_volume(read_header(path)) as volume:
        np.testing.assert_array_equal(volume.read_window((0, 0, 0), SHAPE), example())
