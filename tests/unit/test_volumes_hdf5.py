"""HDF5, BigDataViewer and Imaris: the voxels that h5py wrote, window by window; bad files."""

import os
import subprocess
import sys

import h5py
import hdf5_files
import numpy as np
import pytest
from hdf5_files import PLAIN, big_data_viewer, ilastik, imaris, plain
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_files import opened, whole
from volume_files import small_numbers as example

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import LABEL_DTYPES, fingerprint, open_volume, read_header

SHAPE = (5, 37, 43)


def refused(path, match, **options):
    with pytest.raises(VoxmillError, match=match) as caught:
        read_header(path, **options)
    assert str(path) in str(caught.value)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """An opened file of every kind, all with the voxels of `example()`."""
    writers = PLAIN | {"bdv": lambda p, a: big_data_viewer(p, [lambda t, s: a])}
    with opened(tmp_path_factory.mktemp("files"), writers, example()) as volumes:
        yield volumes


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("name", PLAIN)
def test_whole_array_is_what_was_written(tmp_path, name, dtype):
    voxels = example(dtype)
    header = read_header(PLAIN[name](tmp_path / "v", voxels))
    assert (header.shape, header.dtype, header.channel) == (SHAPE, dtype, None)
    found = whole(header)
    assert found.dtype == np.dtype(dtype) and found.dtype.isnative
    assert found.flags.c_contiguous and found.flags.writeable
    np.testing.assert_array_equal(found, voxels)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", [*PLAIN, "bdv"])
def test_windows_equal_slices(volumes, name, data):
    corners = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in SHAPE]
    start, stop = zip(*corners, strict=True)
    expected = example()[tuple(slice(*corner) for corner in corners)]
    np.testing.assert_array_equal(volumes[name].read_window(start, stop), expected)


@settings(max_examples=25, deadline=None)
@given(axes=st.permutations("tczyx").map("".join), channel=st.integers(0, 2))
def test_axes_in_any_order(tmp_path_factory, axes, channel):
    lengths = {"t": 2, "c": 3, "z": 4, "y": 5, "x": 6}
    voxels = example(shape=tuple(lengths[a] for a in axes))
    path = ilastik(tmp_path_factory.mktemp("axes") / "v", voxels, axes)
    header = read_header(path, channel=channel, time=1)
    assert (header.shape, header.channel, header.time) == ((4, 5, 6), channel, 1)
    expected = voxels[tuple({"t": 1, "c": channel}.get(a, slice(None)) for a in axes)]
    spatial = [a for a in axes if a in "zyx"]
    np.testing.assert_array_equal(
        whole(header), expected.transpose([spatial.index(a) for a in "zyx"])
    )


def test_planes_stream_in_order(volumes):
    for volume in volumes.values():
        found = list(volume.planes(step=2))
        assert [z for z, _ in found] == [0, 2, 4]
        np.testing.assert_array_equal([plane for _, plane in found], example()[::2])


def test_labels_of_dimensions(tmp_path):
    path = plain(tmp_path / "v", example(shape=(3, 4, 5)), labels=["x", "z", "y"])
    header = read_header(path)
    assert (header.file_axes, header.shape) == ("XZY", (4, 5, 3))


def test_voxel_size(tmp_path):
    header = read_header(hdf5_files.fiji(tmp_path / "v", example()))
    assert header.voxel_size_um == (2.0, 1.5, 0.5)
    header = read_header(plain(tmp_path / "none", example()))
    assert header.voxel_size_um is None and "element_size_um" in header.voxel_size_source
    for bad in ([1, 2], [0, 1, 1], "large"):
        path = plain(tmp_path / "bad", example(), attributes={"element_size_um": bad})
        header = read_header(path)
        assert header.voxel_size_um is None
        assert "not three positive numbers" in header.voxel_size_source


def test_choice_of_the_data_set(tmp_path):
    """The only one of three or more axes is taken; of several one is asked for."""
    path = plain(tmp_path / "v", example(), "a/b")
    with h5py.File(path, "a") as file:
        file["a/table"] = np.zeros((3, 3))
        file["a/names"] = np.array([[[b"x"]]])
    assert read_header(path).dataset == "a/b"
    with h5py.File(path, "a") as file:
        file["c"] = example(seed=1)
    refused(path, r"one data set of three .*found 2: /a/b \(5, 37, 43\), /c .*`dataset`")
    np.testing.assert_array_equal(whole(read_header(path, dataset="/c")), example(seed=1))
    refused(path, r"dataset: d: expected a data set, found no such path.*has /a/b", dataset="d")
    refused(path, "dataset: a: expected a data set, found a group", dataset="a")
    refused(path, "level: 1 doesn't exist: the file has no pyramid", level=1, dataset="c")
    refused(path, "found a 2D image", dataset="a/table", dtypes=("float64",))
    refused(path, "found an unknown type", dataset="a/names")
    refused(path / "a", "choose inside of it with `dataset: a`")


def test_no_data_set(tmp_path):
    h5py.File(tmp_path / "v.h5", "w").close()
    refused(tmp_path / "v.h5", "expected one data set of three or more axes, found 0: no data set")


def test_types(tmp_path):
    refused(plain(tmp_path / "v", example("float64")), "found float64")
    labels = example("uint8").astype(bool)
    header = read_header(plain(tmp_path / "l", labels), dtypes=LABEL_DTYPES)
    np.testing.assert_array_equal(whole(header), labels)


def voxels_of(first, second, shape=SHAPE):
    return example(shape=shape, seed=10 * first + second)


def halves(first, second):
    return voxels_of(first, second, (5, 19, 22))


def test_imaris(tmp_path):
    """True size within the padded data; level, channel and time point by their groups."""
    path = imaris(tmp_path / "v", [voxels_of, halves], channels=2, times=2)
    header = read_header(path, channel=1, time=1)
    assert header.format == "Imaris"
    assert (header.shape, header.channel, header.level, header.time) == (SHAPE, 1, 0, 1)
    assert header.voxel_size_um == (2.0, 1.5, 0.5)
    assert header.translation_um == (21.0, 10.75, 0.25)
    np.testing.assert_array_equal(whole(header), voxels_of(1, 1))
    header = read_header(path, channel=0, time=0, level=1)
    np.testing.assert_allclose(header.voxel_size_um, (2.0, 1.5 * 37 / 19, 0.5 * 43 / 22))
    np.testing.assert_array_equal(whole(header), halves(0, 0))
    refused(path, "expected one time, found 2: choose one with `time: 0` to `time: 1`")
    refused(path, "expected one channel, found 2", time=0)
    refused(path, "channel: 2 doesn't exist", time=0, channel=2)
    refused(path, "level: 2 doesn't exist: expected 0 to 1", time=0, channel=0, level=2)
    inside = "DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data"
    assert read_header(path, dataset=inside).shape == (8, 42, 50)


def test_imaris_numbers_in_their_order(tmp_path):
    path = imaris(tmp_path / "v", [lambda t, c: example(shape=(2, 8, 8), seed=c)], channels=11)
    np.testing.assert_array_equal(
        whole(read_header(path, channel=10)), example(shape=(2, 8, 8), seed=10)
    )


@pytest.mark.parametrize(("unit", "factor"), [("nm", 1e-3), ("mm", 1e3), ("m", 1e6)])
def test_imaris_units(tmp_path, unit, factor):
    header = read_header(imaris(tmp_path / "v", [voxels_of], unit=unit))
    np.testing.assert_allclose(header.voxel_size_um, np.array((2.0, 1.5, 0.5)) * factor)


def test_imaris_without_scale(tmp_path):
    header = read_header(imaris(tmp_path / "v", [voxels_of], unit="pixel"))
    assert header.voxel_size_um is None and "unit 'pixel' is no length" in header.voxel_size_source
    assert "no unit" in read_header(imaris(tmp_path / "w", [voxels_of], unit="")).voxel_size_source
    header = read_header(imaris(tmp_path / "x", [voxels_of], size=(0, 1, 1)))
    assert header.voxel_size_um is None and "a voxel of" in header.voxel_size_source
    path = imaris(tmp_path / "y", [voxels_of])
    with h5py.File(path, "a") as file:
        del file["DataSetInfo/Image"].attrs["ExtMin2"]
    assert "no ExtMin" in read_header(path).voxel_size_source


@pytest.mark.parametrize("size", ["0", "9999", "large"])
def test_imaris_with_a_wrong_size(tmp_path, size):
    path = imaris(tmp_path / "v", [voxels_of])
    with h5py.File(path, "a") as file:
        group = file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 0"]
        group.attrs["ImageSizeY"] = hdf5_files.letters(size)
    refused(path, f"ImageSizeY of .*Channel 0: expected 1 to 42, found '{size}'")


def test_imaris_without_data(tmp_path):
    path = imaris(tmp_path / "v", [voxels_of])
    with h5py.File(path, "a") as file:
        del file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data"]
    refused(path, "Channel 0/Data: expected a data set of three axes, found none")
    with h5py.File(path, "a") as file:
        del file["DataSet/ResolutionLevel 0/TimePoint 0"]
    refused(path, "expected a time, found none")
    with h5py.File(path, "a") as file:
        del file["DataSet"]
        file["DataSet"] = np.zeros(3)
    refused(path, "found damaged metadata")


def test_big_data_viewer(tmp_path):
    """uint16 stored as int16; the voxel size of a level from the XML and the factors."""

    def bright(t, s):
        return voxels_of(t, s) + np.uint16(65000)

    path = big_data_viewer(tmp_path / "v", [bright, halves], setups=2, times=2)
    header = read_header(path, channel=1, time=1)
    assert header.format == "BigDataViewer HDF5"
    assert (header.dtype, header.channel, header.level, header.time) == ("uint16", 1, 0, 1)
    assert header.voxel_size_um == (2.0, 1.5, 0.5)
    np.testing.assert_array_equal(whole(header), bright(1, 1))
    header = read_header(path, channel=0, time=0, level=1)
    assert header.voxel_size_um == (2.0, 3.0, 1.0)
    np.testing.assert_array_equal(whole(header), halves(0, 0))
    refused(path, "expected one time, found 2")
    refused(path, "expected one channel, found 2", time=1)
    inside = "t00000/s00/0/cells"
    assert read_header(path, dataset=inside).dtype == "int16"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"xml": False}, "v.xml is not beside the file"),
        ({"unit": "pixel"}, "unit 'pixel' is no length"),
        ({"size": "1 2"}, "no voxel size of three positive numbers"),
        ({"size": "1 2 wide"}, "no voxel size of three positive numbers"),
        ({"size": "1 2 -3"}, "no voxel size of three positive numbers"),
    ],
)
def test_big_data_viewer_without_scale(tmp_path, options, found):
    header = read_header(big_data_viewer(tmp_path / "v", [voxels_of], **options))
    assert header.voxel_size_um is None and found in header.voxel_size_source


def test_big_data_viewer_with_a_bad_xml(tmp_path):
    path = big_data_viewer(tmp_path / "v", [voxels_of])
    path.with_suffix(".xml").write_text("<SpimData")
    with pytest.raises(VoxmillError, match=r"v.xml: expected the XML of BigDataViewer"):
        read_header(path)
    path.with_suffix(".xml").write_text("<SpimData/>")
    assert "has no view setup 0" in read_header(path).voxel_size_source


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("name", PLAIN)
def test_truncated_file(tmp_path, name, kept):
    path = PLAIN[name](tmp_path / "v", example())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    refused(path, "damaged or truncated")


@pytest.mark.parametrize("how", ["zeros", "flipped"])
def test_damaged_chunk_is_named(tmp_path, how):
    path = PLAIN["shuffle, checksum"](tmp_path / "v", example())
    with h5py.File(path) as file:
        info = file["volume"].id.get_chunk_info_by_coord((2, 16, 16))
    data = bytearray(path.read_bytes())
    middle = info.byte_offset + info.size // 2
    if how == "zeros":
        data[info.byte_offset : info.byte_offset + info.size] = bytes(info.size)
    else:
        data[middle] ^= 1
    path.write_bytes(data)
    with open_volume(read_header(path)) as volume:
        volume.read_window((0, 0, 0), (2, 37, 43))
        with pytest.raises(VoxmillError, match=r"/volume: the chunk at \(2, 16, 16\) can't") as e:
            volume.read_window((0, 0, 0), SHAPE)
    assert str(path) in str(e.value)


def test_missing_chunk_is_the_fill_value(tmp_path):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        data = file.create_dataset("a", (4, 8, 8), "uint16", chunks=(2, 4, 4), fillvalue=7)
        data[2:] = 1
    found = whole(read_header(tmp_path / "v.h5"))
    assert (found[:2] == 7).all() and (found[2:] == 1).all()


def writer(path, swmr):
    """A process that has the file open for writing until its standard input closes."""
    code = (
        "import h5py, sys\n"
        f"file = h5py.File({str(path)!r}, 'w', libver='latest')\n"
        "file.create_dataset('a', (4, 8, 8), 'uint16', chunks=(2, 4, 4))\n"
        f"file.swmr_mode = {swmr}\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
        "import os; os._exit(0)\n"
    )
    if not swmr:
        code = code.replace("file.swmr_mode = False\n", "file.flush()\n")
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "open\n"
    return process


@pytest.mark.parametrize("swmr", [False, True])
def test_file_that_is_being_written(tmp_path, swmr):
    path = tmp_path / "v.h5"
    process = writer(path, swmr)
    try:
        refused(path, "another program has this file open for writing|open for writing .SWMR")
    finally:
        process.communicate()
    if swmr:  # the writer ended without closing: the mark stays
        refused(path, "or its writer crashed.*`h5clear -s ")


def test_file_that_changes_while_it_is_read(tmp_path):
    path = PLAIN["contiguous"](tmp_path / "v", example())
    with open_volume(read_header(path)) as volume:
        volume.read_window((0, 0, 0), SHAPE)
        with open(path, "r+b") as file:
            file.seek(path.stat().st_size - 1)
            file.write(b"\0")
        os.utime(path, (0, 0))
        with pytest.raises(VoxmillError, match="has changed while it was read"):
            volume.read_window((0, 0, 0), SHAPE)
        path.unlink()
        with pytest.raises(VoxmillError, match="has changed while it was read"):
            volume.read_window((0, 0, 0), SHAPE)


def test_file_that_changes_before_it_is_opened(tmp_path):
    header = read_header(plain(tmp_path / "v", example()))
    plain(tmp_path / "v", example(shape=(4, 5, 6)))
    with pytest.raises(VoxmillError, match="changed since its header was read"):
        open_volume(header)
    plain(tmp_path / "v", example(), "other")
    with pytest.raises(VoxmillError, match=r"expected a data set volume .*found none"):
        open_volume(header)


def test_virtual_data_set_with_files_missing(tmp_path):
    part = plain(tmp_path / "part", example())
    layout = h5py.VirtualLayout(shape=SHAPE, dtype="uint16")
    layout[:] = h5py.VirtualSource("part.h5", "volume", shape=SHAPE)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("all", layout)
    np.testing.assert_array_equal(whole(read_header(tmp_path / "v.h5")), example())
    part.unlink()
    refused(tmp_path / "v.h5", r"/all is virtual, and its file part.h5 is missing")


def test_filter_that_is_not_there(tmp_path):
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple(SHAPE)
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(hdf5_files.CHUNKS)
        properties.set_filter(32767, h5py.h5z.FLAG_OPTIONAL, (0,))
        h5py.h5d.create(file.id, b"a", h5py.h5t.NATIVE_UINT16, space, properties)
    refused(path, "compressed with filter 32767 .*h5repack -f GZIP=1 IN OUT")


def test_fingerprint(tmp_path):
    path = imaris(tmp_path / "v", [voxels_of, halves], channels=2)
    before = fingerprint(read_header(path, channel=0))
    assert fingerprint(read_header(path, channel=1)) != before
    assert fingerprint(read_header(path, channel=0, level=1)) != before
    with h5py.File(path, "a") as file:
        file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data"][0, 0, 0] += 1
    assert fingerprint(read_header(path, channel=0)) != before
