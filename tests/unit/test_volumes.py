"""Every format gives the same voxels, window by window, as the array that was written."""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import volume_files
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_files import WRITERS, opened

from tests.data_sources import LIGHTSHEET_SOURCE, MRI_SOURCE, SHARED
from voxmill.volumes import LABEL_DTYPES, VolumeHeader, open_volume, read_header, unpack

SHAPE = (5, 37, 43)
LIGHTSHEET, MRI = SHARED / "lightsheet", SHARED / "mri" / "ixi002_t1.nii.gz"


def example(dtype="uint16", shape=SHAPE, seed=0):
    bits = np.random.default_rng(seed).integers(0, 256, (*shape, np.dtype(dtype).itemsize))
    array = bits.astype(np.uint8).view(dtype)[..., 0]
    if array.dtype.kind == "f":
        array = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return array


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """An opened volume of every format, all with the voxels of `example()`."""
    with opened(tmp_path_factory.mktemp("volumes"), WRITERS, example()) as volumes:
        yield volumes


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("name", WRITERS)
def test_whole_volume_is_what_was_written(tmp_path, name, dtype):
    if name == "imagej" and dtype == "int16":
        pytest.skip("ImageJ has no signed 16-bit images")
    array = example(dtype)
    header = read_header(WRITERS[name](tmp_path / "volume", array))
    assert (header.shape, header.dtype, header.channel) == (SHAPE, dtype, None)
    assert header.windows == (name != "nifti.gz")
    with open_volume(header) as volume:
        found = volume.read_window((0, 0, 0), SHAPE)
    assert found.dtype == np.dtype(dtype) and found.dtype.isnative
    assert found.flags.c_contiguous and found.flags.writeable
    np.testing.assert_array_equal(found, array)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", WRITERS)
def test_windows_equal_slices(volumes, name, data):
    corners = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in SHAPE]
    start, stop = zip(*corners, strict=True)
    expected = example()[tuple(slice(*corner) for corner in corners)]
    np.testing.assert_array_equal(volumes[name].read_window(start, stop), expected)


def test_planes_stream_in_order(volumes):
    for name in ("tiff zlib", "nifti.gz", "folder"):
        found = list(volumes[name].planes(step=2))
        assert [z for z, _ in found] == [0, 2, 4]
        np.testing.assert_array_equal([plane for _, plane in found], example()[::2])


def test_window_outside_is_refused(volumes):
    with pytest.raises(ValueError, match=r"window inside .*\(5, 37, 43\), found \(0, 0, 0\)"):
        volumes["tiff"].read_window((0, 0, 0), (6, 1, 1))
    with pytest.raises(ValueError, match="window inside"):
        volumes["tiff"].read_window((3, 0, 0), (2, 1, 1))


@pytest.mark.parametrize(
    "write",
    [
        lambda p, a: volume_files.tiff(p, np.moveaxis(a, 0, -1)),
        lambda p, a: volume_files.tiff(p, a),
        lambda p, a: volume_files.tiff(p, a, compression="zlib"),
        lambda p, a: volume_files.tiff(
            p, np.moveaxis(a, 0, -1), planarconfig="contig", compression="zlib"
        ),
        lambda p, a: volume_files.tiff(
            p, np.moveaxis(a, 0, 1), planarconfig="separate", compression="zlib"
        ),
        lambda p, a: volume_files.tiff(
            p, np.moveaxis(a, 0, 1), planarconfig="separate", tile=(16, 16)
        ),
        lambda p, a: volume_files.ome(p, a, axes="CZYX"),
        lambda p, a: volume_files.ome(p, np.moveaxis(a, 0, 1), axes="ZCYX", compression="zlib"),
        lambda p, a: volume_files.imagej(p, np.moveaxis(a, 0, 1), axes="ZCYX"),
        lambda p, a: volume_files.nifti(p, a),
        lambda p, a: volume_files.nifti(p, a, suffix=".nii.gz"),
    ],
)
def test_chosen_channel(tmp_path, write):
    array = example(shape=(2, *SHAPE))
    path = write(tmp_path / "volume", array)
    for channel in (0, 1):
        header = read_header(path, channel=channel)
        assert (header.shape, header.channel) == (SHAPE, channel)
        with open_volume(header) as volume:
            np.testing.assert_array_equal(volume.read_window((0, 0, 0), SHAPE), array[channel])
            window = volume.read_window((1, 2, 3), (4, 30, 40))
            np.testing.assert_array_equal(window, array[channel, 1:4, 2:30, 3:40])
    with pytest.raises(ValueError, match="expected one channel, found 2: choose one"):
        read_header(path)
    with pytest.raises(ValueError, match="channel 2 doesn't exist: expected 0 to 1"):
        read_header(path, channel=2)


def test_stack_whose_planes_are_time_points(tmp_path):
    header = read_header(volume_files.ome(tmp_path / "volume", example(), axes="TYX"))
    assert header.shape == SHAPE


@pytest.mark.parametrize("options", [{"tile": (16, 16)}, {"rowsperstrip": 8}])
@pytest.mark.parametrize("compression", ["jpeg", "zstd", "packbits", "lzma"])
def test_other_compressions(tmp_path, compression, options):
    path = volume_files.tiff(tmp_path / "v", example("uint8"), compression=compression, **options)
    with open_volume(read_header(path)) as volume:
        window = volume.read_window((1, 3, 5), (5, 33, 41))
    np.testing.assert_array_equal(window, tifffile.imread(path)[1:, 3:33, 5:41])


def test_imagej_stack_with_one_page_header(tmp_path):
    """Above 4 GiB ImageJ writes one page header, and the planes in a run behind it."""
    array = example().astype(">u2")
    path = tmp_path / "volume.tif"
    text = f"ImageJ=1.54f\nimages={len(array)}\nslices={len(array)}\n"
    tifffile.imwrite(path, array[0], byteorder=">", metadata=None, description=text)
    with open(path, "ab") as file:
        file.write(array[1:].tobytes())
    header = read_header(path)
    assert (header.shape, header.format) == (SHAPE, "ImageJ TIFF")
    with open_volume(header) as volume:
        np.testing.assert_array_equal(volume.read_window((0, 0, 0), SHAPE), array)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated"):
        read_header(path)


def test_pyramid_gives_its_full_resolution(tmp_path):
    path = tmp_path / "volume.ome.tif"
    array = example()
    options = {"compression": "zlib", "tile": (16, 16), "photometric": "minisblack"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(array, subifds=1, metadata={"axes": "ZYX"}, **options)
        writer.write(array[:, ::2, ::2], subfiletype=1, **options)
    with open_volume(read_header(path)) as volume:
        np.testing.assert_array_equal(volume.read_window((0, 0, 0), SHAPE), array)


def test_palette_and_segments_never_written(tmp_path):
    """A colour map doesn't change grey values; a sparse TIFF's missing strips are zeros."""
    array = example("uint8")
    path = tmp_path / "palette.tif"
    tifffile.imwrite(path, array, colormap=np.zeros((3, 256), np.uint16), compression="zlib")
    with open_volume(read_header(path)) as volume:
        np.testing.assert_array_equal(volume.read_window((0, 0, 0), SHAPE), array)
    sparse = tmp_path / "sparse.tif"
    array[:, :16, :16] = 0
    with tifffile.TiffWriter(sparse) as writer:
        for plane in array:
            padded = np.pad(plane, ((0, 11), (0, 5)))
            tiles = (padded[y : y + 16, x : x + 16] for y in (0, 16, 32) for x in (0, 16, 32))
            encoded = (t.tobytes() if t.any() else b"" for t in tiles)
            writer.write(encoded, shape=SHAPE[1:], dtype="uint8", tile=(16, 16), metadata=None)
    with open_volume(read_header(sparse)) as volume:
        np.testing.assert_array_equal(volume.read_window((0, 0, 0), SHAPE), array)


def test_natural_order_of_planes(tmp_path):
    array = example(shape=(12, 4, 5))
    path = volume_files.folder(tmp_path / "planes", array)
    (path / ".hidden.tif").write_text("no plane")
    (path / "notes.txt").write_text("no plane")
    with open_volume(read_header(path)) as volume:
        np.testing.assert_array_equal(volume.read_window((0, 0, 0), array.shape), array)


def write_multifile_ome(folder, array):
    """Two OME-TIFFs that share one volume, as several microscopes write it."""
    half = len(array) // 2
    names = ["first.ome.tif", "second.ome.tif"]
    data = "".join(
        f'<TiffData FirstZ="{z}" FirstC="0" FirstT="0" IFD="{z % half}" PlaneCount="1">'
        f'<UUID FileName="{names[z // half]}">urn:uuid:{z // half}</UUID></TiffData>'
        for z in range(len(array))
    )
    for index, name in enumerate(names):
        xml = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{index}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            f'DimensionOrder="XYZCT" Type="uint16" SizeX="{array.shape[2]}" '
            f'SizeY="{array.shape[1]}" SizeZ="{len(array)}" SizeC="1" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
        with tifffile.TiffWriter(folder / name) as writer:
            for z in range(index * half, (index + 1) * half):
                text = xml if z == index * half else None
                writer.write(array[z], metadata=None, description=text, contiguous=False)
    return folder / names[0]


def test_ome_tiff_of_several_files(tmp_path):
    array = example(shape=(6, 20, 30))
    path = write_multifile_ome(tmp_path, array)
    with open_volume(read_header(path)) as volume:
        np.testing.assert_array_equal(volume.read_window((1, 2, 3), (6, 20, 30)), array[1:, 2:, 3:])
    (tmp_path / "second.ome.tif").unlink()
    with pytest.raises(ValueError, match=r"first.ome.tif: expected 6 planes .* missing"):
        read_header(path)


@pytest.mark.parametrize(
    ("name", "expected", "source"),
    [
        ("ome", (2.0, 0.75, 0.5), "OME-XML"),
        ("imagej", (2.0, 0.75, 0.5), "ImageJ"),
        ("nifti", (2.0, 0.75, 0.5), "NIfTI"),
        ("nifti.gz", (2.0, 0.75, 0.5), "NIfTI"),
        ("tiff", None, "no length along z"),
        ("folder", None, "no distance between planes"),
    ],
)
def test_voxel_size_from_header(tmp_path, name, expected, source):
    path = WRITERS[name](tmp_path / "volume", example())
    header = read_header(path)
    assert header.voxel_size_um == (expected and pytest.approx(expected))
    assert source in header.voxel_size_source
    assert read_header(path, voxel_size_um=[3, 2, 1]).voxel_size_um == (3.0, 2.0, 1.0)


@pytest.mark.parametrize("size", [(1, 1), (1, 0, 1), (1, float("nan"), 1), "abc", 3])
def test_given_voxel_size_is_checked(tmp_path, size):
    path = volume_files.tiff(tmp_path / "volume", example())
    with pytest.raises(ValueError, match="voxel_size_um: expected a voxel size of three positive"):
        read_header(path, voxel_size_um=size)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("micron", (2, 0.75, 0.5)),
        ("\\u00B5m", (2, 0.75, 0.5)),
        ("nm", (2e-3, 0.75e-3, 0.5e-3)),
        ("pixel", None),
    ],
)
def test_imagej_units(tmp_path, unit, expected):
    header = read_header(volume_files.imagej(tmp_path / "volume", example(), unit=unit))
    assert header.voxel_size_um == (expected and pytest.approx(expected))


def test_resolution_tags_with_spacing(tmp_path):
    """y and x from the tags (pixels a centimetre), z from tifffile's JSON description."""
    metadata = {"axes": "ZYX", "spacing": 0.003, "unit": "mm"}
    options = {"resolution": (10000, 5000), "resolutionunit": "CENTIMETER", "metadata": metadata}
    header = read_header(volume_files.tiff(tmp_path / "volume", example(), **options))
    assert header.voxel_size_um == pytest.approx((3, 2, 1))


@pytest.mark.parametrize("units", ["meter", "mm", "micron", "unknown"])
def test_nifti_units(tmp_path, units):
    header = read_header(volume_files.nifti(tmp_path / "volume", example(), units=units))
    scale = {"meter": 1e6, "mm": 1e3, "micron": 1.0}.get(units)
    expected = scale and pytest.approx((0.002 * scale, 0.00075 * scale, 0.0005 * scale))
    assert header.voxel_size_um == expected


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_scaling_is_honoured(tmp_path, suffix):
    array = example("int16")
    path = volume_files.nifti(tmp_path / "volume", array, suffix=suffix, slope=(0.37, -12.5))
    header = read_header(path)
    assert header.dtype == "float32"
    with open_volume(header) as volume:
        found = volume.read_window((0, 0, 0), SHAPE)
    np.testing.assert_array_equal(found, nibabel.load(path).get_fdata().T.astype(np.float32))


def test_nifti_without_offset(tmp_path):
    path = volume_files.nifti(tmp_path / "volume", example())
    data = bytearray(path.read_bytes())
    data[108:112] = bytes(4)  # vox_offset = 0
    path.write_bytes(data)
    with open_volume(read_header(path)) as volume:
        np.testing.assert_array_equal(volume.read_window((0, 0, 0), SHAPE), example())


def test_unpack(tmp_path):
    path = volume_files.nifti(tmp_path / "volume", example(), suffix=".nii.gz")
    unpack(read_header(path), tmp_path / "out" / "plain.nii")
    header = read_header(tmp_path / "out" / "plain.nii")
    assert header.windows and header.voxel_size_um == pytest.approx((2, 0.75, 0.5))
    with open_volume(header) as volume:
        np.testing.assert_array_equal(volume.read_window((0, 0, 0), SHAPE), example())
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["plain.nii"]
    with pytest.raises(ValueError, match="expected a gzipped NIfTI to unpack, found NIfTI"):
        unpack(header, tmp_path / "again.nii")


def test_windows_of_a_gzip_are_decoded_once(tmp_path, monkeypatch):
    """Rising planes need no copy; going back makes one, which then serves every window."""
    path = volume_files.nifti(tmp_path / "volume", example(), suffix=".nii.gz")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with open_volume(read_header(path)) as volume:
        volume.read_window((1, 0, 0), (4, *SHAPE[1:]))
        path.unlink()
        volume.read_window((4, 0, 0), SHAPE)
        path = volume_files.nifti(tmp_path / "volume", example(), suffix=".nii.gz")
        volume.read_window((0, 1, 0), (2, *SHAPE[1:]))
        path.unlink()
        window = volume.read_window((0, 1, 2), (5, 30, 40))
        np.testing.assert_array_equal(window, example()[:, 1:30, 2:40])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["bool", "int32", "uint32", "int64"])
def test_labels_are_read_where_asked_for(tmp_path, dtype):
    array = example("uint8") % 2 == 1 if dtype == "bool" else example(dtype)
    path = volume_files.tiff(tmp_path / "labels", array)
    header = read_header(path, dtypes=LABEL_DTYPES)
    with open_volume(header) as volume:
        np.testing.assert_array_equal(volume.read_window((0, 0, 0), SHAPE), array)
    with pytest.raises(ValueError, match=f"expected voxels of type uint8.*found {dtype}"):
        read_header(path)


def test_header_survives_json(tmp_path):
    header = read_header(volume_files.folder(tmp_path / "volume", example()))
    again = VolumeHeader(**json.loads(json.dumps(asdict(header))))
    assert again == header
    with open_volume(again) as volume:
        np.testing.assert_array_equal(volume.read_window((0, 0, 0), SHAPE), example())


def test_parse_time_imports_are_light():
    heavy = ["torch", "skimage", "pandas", "scipy", "nibabel", "zarr", "matplotlib"]
    code = f"import sys, voxmill.volumes; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=root, check=True)
    assert done.stdout.decode().strip() == "[]"


@pytest.mark.skipif(not LIGHTSHEET.is_dir(), reason=f"not at {LIGHTSHEET}: {LIGHTSHEET_SOURCE}")
# Without the folder one case is left, so that the reason is shown.
@pytest.mark.parametrize(
    "path", sorted(LIGHTSHEET.glob("*.tif")) or [LIGHTSHEET], ids=lambda p: p.stem
)
def test_real_lightsheet(path):
    header = read_header(path)
    assert header.shape == (200, 200, 200)
    with open_volume(header) as volume:
        window = volume.read_window((90, 3, 50), (110, 150, 199))
    np.testing.assert_array_equal(window, tifffile.imread(path)[90:110, 3:150, 50:199])


@pytest.mark.skipif(not MRI.is_file(), reason=f"not at {MRI}: {MRI_SOURCE}")
def test_real_mri(tmp_path):
    header = read_header(MRI)
    assert header.shape == (256, 256, 150)
    assert header.voxel_size_um == pytest.approx((937.5, 937.5, 1199.997))
    unpack(header, tmp_path / "t1.nii")
    with open_volume(read_header(tmp_path / "t1.nii")) as volume:
        window = volume.read_window((100, 20, 7), (130, 200, 149))
    reference = nibabel.load(MRI).get_fdata().T.astype(np.float32)  # stored with a slope
    np.testing.assert_array_equal(window, reference[100:130, 20:200, 7:149])
