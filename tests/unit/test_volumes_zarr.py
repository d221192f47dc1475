"""OME-Zarr and Zarr arrays: the voxels that zarr-python wrote, window by window."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
import zarr_files
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_files import opened, whole
from volume_files import small_numbers as example
from zarr_files import ARRAYS, edit, image, metadata_file, multiscale

from voxmill.volumes import LABEL_DTYPES, fingerprint, open_volume, read_header

SHAPE = (5, 37, 43)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """An opened array of every kind, all with the voxels of `example()`."""
    with opened(tmp_path_factory.mktemp("arrays"), ARRAYS, example()) as volumes:
        yield volumes


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("name", ARRAYS)
def test_whole_array_is_what_was_written(tmp_path, name, dtype):
    voxels = example(dtype)
    header = read_header(ARRAYS[name](tmp_path / "array", voxels))
    assert (header.shape, header.dtype, header.channel) == (SHAPE, dtype, None)
    assert header.format == f"Zarr {name[:2]}" and header.windows
    found = whole(header)
    assert found.dtype == np.dtype(dtype) and found.dtype.isnative
    assert found.flags.c_contiguous and found.flags.writeable
    np.testing.assert_array_equal(found, voxels)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", ARRAYS)
def test_windows_equal_slices(volumes, name, data):
    corners = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in SHAPE]
    start, stop = zip(*corners, strict=True)
    expected = example()[tuple(slice(*corner) for corner in corners)]
    np.testing.assert_array_equal(volumes[name].read_window(start, stop), expected)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_axes_in_any_order(tmp_path_factory, data):
    """Any order of t, c, z, y, x: the chosen channel and time point, any window of it."""
    lengths = {"t": 2, "c": 3, "z": 4, "y": 5, "x": 6}
    axes = data.draw(st.permutations("tczyx").map("".join))
    axes = "".join(a for a in axes if a in "zyx" or data.draw(st.booleans()))
    voxels = example(shape=tuple(lengths[a] for a in axes))
    chunks = tuple(data.draw(st.integers(1, 4)) for _ in axes)
    path = tmp_path_factory.mktemp("axes") / "v.zarr"
    metadata = multiscale(axes, scales=[[lengths[a] / 2 for a in axes]])
    image(path, [voxels], metadata, data.draw(st.sampled_from([2, 3])), chunks=chunks)
    time = data.draw(st.integers(0, 1)) if "t" in axes else None
    channel = data.draw(st.integers(0, 2)) if "c" in axes else None
    header = read_header(path, channel=channel, time=time)
    assert (header.channel, header.time, header.shape) == (channel, time, (4, 5, 6))
    assert header.voxel_size_um == (2.0, 2.5, 3.0)
    expected = voxels[tuple({"t": time, "c": channel}.get(a, slice(None)) for a in axes)]
    expected = expected.transpose([[a for a in axes if a in "zyx"].index(a) for a in "zyx"])
    corners = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in header.shape]
    start, stop = zip(*corners, strict=True)
    with open_volume(header) as volume:
        window = volume.read_window(start, stop)
    np.testing.assert_array_equal(window, expected[tuple(slice(*c) for c in corners)])


def test_planes_stream_in_order(volumes):
    for name in ("v2 blosc", "v3 sharded", "v3 zip"):
        for step in (1, 2, 3):
            found = list(volumes[name].planes(step=step))
            assert [z for z, _ in found] == list(range(0, 5, step))
            np.testing.assert_array_equal([plane for _, plane in found], example()[::step])


def test_planes_of_one_chunk_are_read_together(tmp_path, monkeypatch):
    """A chunk is decoded once, not once a plane."""
    header = read_header(zarr_files.array(tmp_path / "a", example(), chunks=(4, 8, 8)))
    with open_volume(header) as volume:
        reads = []
        read = volume._read
        monkeypatch.setattr(volume, "_read", lambda index: reads.append(index[0]) or read(index))
        assert len(list(volume.planes())) == 5
    assert reads == [slice(0, 4), slice(4, 5)]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("fill", "expected"), [(7, 7), (None, 0), (0, 0)])
def test_missing_chunks_are_the_fill_value(tmp_path, version, fill, expected):
    voxels = np.full((4, 8, 8), 9, "uint16")
    if version == 3 and fill is None:
        pytest.skip("Zarr v3 demands a fill value")
    path = zarr_files.array(tmp_path / "a", voxels, version, chunks=(2, 4, 4), fill_value=fill)
    (path / ("0.1.1" if version == 2 else "c/0/1/1")).unlink()
    voxels[:2, 4:, 4:] = expected
    np.testing.assert_array_equal(whole(read_header(path)), voxels)


def test_missing_shard_is_the_fill_value(tmp_path):
    voxels = np.full((4, 8, 8), 9, "uint16")
    path = zarr_files.array(
        tmp_path / "a", voxels, chunks=(2, 4, 4), shards=(4, 8, 4), fill_value=3
    )
    (path / "c/0/0/0").unlink()
    voxels[:, :, :4] = 3
    np.testing.assert_array_equal(whole(read_header(path)), voxels)


@pytest.mark.parametrize("version", [2, 3])
def test_levels_of_a_pyramid(tmp_path, version):
    levels = [example(shape=(8, 12, 16)), example(shape=(4, 6, 8), seed=1)]
    metadata = multiscale(scales=[(2.0, 0.5, 0.5), (4.0, 1.0, 1.0)])
    path = image(tmp_path / "v.ome.zarr", levels, metadata, version)
    for level, voxels in enumerate(levels):
        header = read_header(path, level=level)
        assert header.format == f"OME-Zarr 0.{version + 2}"
        assert (header.level, header.dataset) == (level, str(level))
        assert header.voxel_size_um == ((2.0, 0.5, 0.5), (4.0, 1.0, 1.0))[level]
        np.testing.assert_array_equal(whole(header), voxels)
        # The path may lead straight to the level: size and axes are those of the image.
        straight = read_header(path / str(level))
        assert straight.voxel_size_um == header.voxel_size_um and straight.level == level
        np.testing.assert_array_equal(whole(straight), voxels)
    assert read_header(path).level == 0


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("micrometer", 1), ("nanometer", 1e-3), ("millimeter", 1e3), ("meter", 1e6),
        ("angstrom", 1e-4), ("picometer", 1e-6), ("inch", 25400), ("foot", 304800),
        ("yard", 914400), ("mile", 1609344000), ("decimeter", 1e5), ("hectometer", 1e8),
        ("yottameter", 1e30), ("yoctometer", 1e-18), ("µm", 1), ("centimetre", 1e4),
    ],
)  # fmt: skip
def test_units(tmp_path, unit, factor):
    path = image(tmp_path / "v.zarr", [example()], multiscale(unit=unit))
    size = read_header(path).voxel_size_um
    np.testing.assert_allclose(size, np.array([2.0, 1.5, 0.5]) * factor, rtol=1e-11)


def test_every_unit_of_length_of_the_specification(tmp_path):
    """The list of the specification (UDUNITS-2), no unit more, none less."""
    names = [
        "angstrom", "attometer", "centimeter", "decimeter", "exameter", "femtometer", "foot",
        "gigameter", "hectometer", "inch", "kilometer", "megameter", "meter", "micrometer",
        "mile", "millimeter", "nanometer", "parsec", "petameter", "picometer", "terameter",
        "yard", "yoctometer", "yottameter", "zeptometer", "zettameter",
    ]  # fmt: skip
    path = image(tmp_path / "v.zarr", [example()], multiscale())
    for name in names:
        edit(
            metadata_file(path),
            lambda c, name=name: [
                axis.update(unit=name) for axis in c["attributes"]["ome"]["multiscales"][0]["axes"]
            ],
        )
        assert read_header(path).voxel_size_um is not None, name


@pytest.mark.parametrize(
    ("unit", "found"),
    [(None, "axis z has no unit"), ("pixel", "axis z has the unit 'pixel', no length")],
)
def test_unknown_units(tmp_path, unit, found):
    path = image(tmp_path / "v.zarr", [example()], multiscale(unit=unit))
    header = read_header(path)
    assert header.voxel_size_um is None and found in header.voxel_size_source
    assert read_header(path, voxel_size_um=(3, 2, 1)).voxel_size_um == (3.0, 2.0, 1.0)


def test_transforms_of_level_and_image(tmp_path):
    """scale 2, 1, 1 then 3, 5, 7; translation 10 of the level is scaled, that of the image not."""
    metadata = multiscale(scales=[(2.0, 1.0, 1.0)])
    metadata["datasets"][0]["coordinateTransformations"].append(
        {"type": "translation", "translation": [10.0, 0.0, 1.0]}
    )
    metadata["coordinateTransformations"] = [
        {"type": "scale", "scale": [3.0, 5.0, 7.0]},
        {"type": "translation", "translation": [1.0, 2.0, 3.0]},
    ]
    header = read_header(image(tmp_path / "v.zarr", [example()], metadata))
    assert header.voxel_size_um == (6.0, 5.0, 7.0)
    assert header.translation_um == (31.0, 2.0, 10.0)


def test_transform_of_the_image_alone(tmp_path):
    metadata = multiscale() | {
        "coordinateTransformations": [{"type": "scale", "scale": [3.0, 5.0, 7.0]}]
    }
    del metadata["datasets"][0]["coordinateTransformations"]
    header = read_header(image(tmp_path / "v.zarr", [example()], metadata))
    assert header.voxel_size_um == (3.0, 5.0, 7.0)


@pytest.mark.parametrize(
    ("transforms", "found"),
    [
        (None, "no scale"),
        ([{"type": "scale", "path": "scale"}], "a scale in a file of its own"),
        ([{"type": "affine", "affine": []}], "the transform 'affine', not scale"),
        ([{"type": "scale", "scale": [1, 0, 1]}], "a scale of"),
        ([{"type": "scale", "scale": [-1, 1, 1]}], "a scale of"),
    ],
)
def test_transforms_without_a_voxel_size(tmp_path, transforms, found):
    metadata = multiscale()
    metadata["datasets"][0]["coordinateTransformations"] = transforms
    header = read_header(image(tmp_path / "v.zarr", [example()], metadata))
    assert header.voxel_size_um is None and found in header.voxel_size_source


def test_identity_is_a_scale_of_one(tmp_path):
    metadata = multiscale()
    metadata["datasets"][0]["coordinateTransformations"] = [{"type": "identity"}]
    header = read_header(image(tmp_path / "v.zarr", [example()], metadata))
    assert header.voxel_size_um == (1.0, 1.0, 1.0)


def test_axes_of_other_names_and_older_versions(tmp_path):
    metadata = multiscale()
    for axis, name in zip(metadata["axes"], ["AP", "DV", "LR"], strict=True):
        axis["name"] = name
    path = image(tmp_path / "names.zarr", [example()], metadata)
    np.testing.assert_array_equal(whole(read_header(path)), example())
    metadata = {"version": "0.3", "axes": ["z", "y", "x"], "datasets": [{"path": "0"}]}
    path = image(tmp_path / "old.zarr", [example()], metadata, 2)
    assert read_header(path).file_axes == "ZYX"
    metadata = {"version": "0.1", "datasets": [{"path": "0"}]}
    path = image(tmp_path / "older.zarr", [example(shape=(1, 2, *SHAPE))], metadata, 2)
    assert read_header(path, channel=1).file_axes == "TCZYX"


def test_planes_called_time_points(tmp_path):
    """As in other formats: without z, a stack of time points is a volume."""
    voxels = example(shape=(4, 1, 6, 7))
    path = image(tmp_path / "v.zarr", [voxels], multiscale("tzyx", scales=[(1, 2, 2, 2)]))
    np.testing.assert_array_equal(whole(read_header(path)), voxels[:, 0])


def test_names_of_dimensions_of_a_plain_array(tmp_path):
    voxels = example(shape=(3, 4, 2, 5))
    path = zarr_files.array(tmp_path / "a", voxels, dimension_names=["x", "y", "c", "z"])
    header = read_header(path, channel=1)
    assert (header.file_axes, header.shape, header.voxel_size_um) == ("XYCZ", (5, 4, 3), None)
    np.testing.assert_array_equal(whole(header), voxels[:, :, 1].transpose())
    path = zarr_files.array(
        tmp_path / "b", voxels[:, :, 0], 2, attributes={"_ARRAY_DIMENSIONS": ["x", "y", "z"]}
    )
    np.testing.assert_array_equal(whole(read_header(path)), voxels[:, :, 0].transpose())


def test_level_and_image_inside_of_containers(tmp_path):
    """A layout of bioformats2raw with one image is read, with two a choice is asked for."""
    root = zarr.create_group(
        tmp_path / "v.zarr", zarr_format=2, attributes={"bioformats2raw.layout": 3}
    )
    root.create_group("OME", attributes={"series": ["0"]})
    (tmp_path / "v.zarr/OME/METADATA.ome.xml").write_text("<OME/>")
    image(tmp_path / "v.zarr/0", [example()], multiscale(), 2)
    header = read_header(tmp_path / "v.zarr")
    assert header.dataset == "0/0" and header.voxel_size_um == (2.0, 1.5, 0.5)
    np.testing.assert_array_equal(whole(header), example())
    image(tmp_path / "v.zarr/1", [example(seed=1)], multiscale(), 2)
    assert read_header(tmp_path / "v.zarr").dataset == "0/0"  # the series tell
    (tmp_path / "v.zarr/OME/.zattrs").write_text('{"series": ["0", "1"]}')
    with pytest.raises(ValueError, match=r"one image, found .* holds 2: 0, 1.* `dataset: 0`"):
        read_header(tmp_path / "v.zarr")
    for chosen in (
        read_header(tmp_path / "v.zarr", dataset="1"),
        read_header(tmp_path / "v.zarr/1"),
    ):
        np.testing.assert_array_equal(whole(chosen), example(seed=1))


def test_series_are_numbered_where_nothing_lists_them(tmp_path):
    zarr.create_group(tmp_path / "v.zarr", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    for name in ("0", "10", "2"):
        image(tmp_path / "v.zarr" / name, [example()], multiscale(), 2)
    with pytest.raises(ValueError, match="holds 3: 0, 2, 10"):
        read_header(tmp_path / "v.zarr")


@pytest.mark.parametrize("version", [2, 3])
def test_plates(tmp_path, version):
    def attributes(content):
        return {"ome": {"version": "0.5", **content}} if version == 3 else content

    plate = {"plate": {"wells": [{"path": "A/1"}, {"path": "A/2"}]}}
    zarr.create_group(tmp_path / "p.zarr", zarr_format=version, attributes=attributes(plate))
    for well in ("A/1", "A/2"):
        fields = attributes({"well": {"images": [{"path": "0"}]}})
        zarr.create_group(tmp_path / "p.zarr" / well, zarr_format=version, attributes=fields)
        image(tmp_path / "p.zarr" / well / "0", [example()], multiscale(), version)
    with pytest.raises(ValueError, match="holds 2: A/1/0, A/2/0"):
        read_header(tmp_path / "p.zarr")
    np.testing.assert_array_equal(
        whole(read_header(tmp_path / "p.zarr", dataset="A/2/0")), example()
    )
    assert read_header(tmp_path / "p.zarr/A/2").dataset == "0/0"


def test_labels_beside_an_image(tmp_path):
    path = image(tmp_path / "v.zarr", [example()], multiscale())
    zarr.create_group(path / "labels", attributes={"ome": {"version": "0.5", "labels": ["cells"]}})
    image(path / "labels/cells", [example("uint32", seed=1)], multiscale())
    np.testing.assert_array_equal(whole(read_header(path)), example())
    for place in (path / "labels", path / "labels/cells"):
        header = read_header(place, dtypes=LABEL_DTYPES)
        np.testing.assert_array_equal(whole(header), example("uint32", seed=1))


def test_image_in_a_zip_with_a_folder(tmp_path):
    path = tmp_path / "v.ome.zarr.zip"
    with zarr.storage.ZipStore(path, mode="w") as store:
        attributes = {"ome": {"version": "0.5", "multiscales": [multiscale()]}}
        zarr.create_group(store, path="v.zarr", attributes=attributes)
        zarr_files.array(store, example(), name="v.zarr/0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        header = read_header(path)
    assert header.voxel_size_um == (2.0, 1.5, 0.5)
    np.testing.assert_array_equal(whole(header), example())


def test_rare_codec_in_a_zip(tmp_path):
    """Read by zarr, as tensorstore lacks the codec."""
    with zarr.storage.ZipStore(tmp_path / "v.zip", mode="w") as store:
        zarr_files.array(store, example(), 2, name="inside", compressors=zarr_files.numcodecs.LZ4())
    np.testing.assert_array_equal(whole(read_header(tmp_path / "v.zip")), example())


def test_big_endian_and_bool_labels(tmp_path):
    for dtype in ("bool", "int8", "uint32", "int64"):
        voxels = example("uint8").astype(dtype)
        path = zarr_files.array(tmp_path / dtype, voxels, 2)
        np.testing.assert_array_equal(whole(read_header(path, dtypes=LABEL_DTYPES)), voxels)


def test_header_imports_no_library(tmp_path):
    """Planning and dry runs stay fast."""
    path = image(tmp_path / "v.zarr", [example()], multiscale())
    code = (
        "import sys; from voxmill.volumes import fingerprint, read_header\n"
        f"fingerprint(read_header({str(path)!r}))\n"
        "assert not {'zarr', 'tensorstore', 'h5py', 'numcodecs'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_header_survives_json(tmp_path):
    from dataclasses import asdict

    from voxmill.volumes import VolumeHeader

    header = read_header(image(tmp_path / "v.zarr", [example()], multiscale()))
    assert VolumeHeader(**json.loads(json.dumps(asdict(header)))) == header


@pytest.mark.parametrize("name", ["v2 blosc", "v2 folders", "v3 plain", "v3 sharded"])
def test_fingerprint(tmp_path, name, monkeypatch):
    """It changes with any chunk: written anew before anybody read it, changed, added or lost."""
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    path = ARRAYS[name](tmp_path / "a", example())
    before = fingerprint(read_header(path))
    assert fingerprint(read_header(path, voxel_size_um=(1, 2, 3))) == before
    chunks = [p for p in path.rglob("*") if p.is_file() and p.name not in (".zarray", ".zattrs")]
    chunk = sorted(p for p in chunks if p.name != "zarr.json")[1]
    times, data = os.stat(chunk), chunk.read_bytes()
    kept = (times.st_atime_ns, times.st_mtime_ns)
    os.utime(chunk, ns=(kept[0], kept[1] + 1))
    assert fingerprint(read_header(path)) != before
    os.utime(chunk, ns=kept)
    assert fingerprint(read_header(path)) == before
    chunk.write_bytes(data + b"\0")
    os.utime(chunk, ns=kept)
    assert fingerprint(read_header(path)) != before
    chunk.unlink()
    assert fingerprint(read_header(path)) != before


def test_fingerprint_of_the_levels_differs(tmp_path):
    path = image(tmp_path / "v.zarr", [example(), example()], multiscale(scales=[(1, 1, 1)] * 2))
    assert fingerprint(read_header(path)) != fingerprint(read_header(path, level=1))


def test_fingerprint_of_more_files_than_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("voxmill.volumes.zarr_fingerprint.LISTED", 5)
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    path = zarr_files.array(tmp_path / "a", example())
    before = fingerprint(read_header(path))
    assert fingerprint(read_header(path)) == before
    chunk = path / "c/1/1/1"
    data = chunk.read_bytes()
    (path / "c/1/1/scratch").write_bytes(data)
    os.replace(path / "c/1/1/scratch", chunk)  # as writers do: the folder's date tells
    assert fingerprint(read_header(path)) != before


@pytest.fixture(params=["zip", "folder"])
def foreign(request, tmp_path):
    """Path of a store that another writer made, as it is or unpacked."""

    def find(name):
        packed = Path(__file__).parent / "foreign_zarr" / f"{name}.zip"
        if request.param == "zip":
            return packed
        shutil.unpack_archive(packed, tmp_path)
        return tmp_path / f"{name}.zarr"

    return find


@pytest.mark.parametrize("version", ["04", "05"])
def test_store_of_ome_zarr_py(foreign, version):
    path = foreign(f"ome_zarr_py_{version}")
    voxels = np.arange(2 * 4 * 6 * 8, dtype="uint16").reshape(2, 4, 6, 8)
    for channel in (0, 1):
        header = read_header(path, channel=channel)
        assert header.format == f"OME-Zarr 0.{int(version)}"
        assert header.voxel_size_um == (2.0, 0.5, 0.25)
        np.testing.assert_array_equal(whole(header), voxels[channel])
    header = read_header(path, channel=0, level=1)
    assert header.voxel_size_um == (2.0, 1.0, 0.5) and header.shape[1:] == (3, 4)


@pytest.mark.parametrize("version", ["04", "05"])
def test_store_of_ngff_zarr(foreign, version):
    path = foreign(f"ngff_zarr_{version}")
    header = read_header(path)
    assert header.voxel_size_um == (2.0, 0.5, 0.25)
    assert header.translation_um == (0.01, 0.0, 0.005)
    voxels = np.arange(4 * 6 * 8, dtype="uint16").reshape(4, 6, 8)
    np.testing.assert_array_equal(whole(header), voxels)
    assert read_header(path, level=1).voxel_size_um == (4.0, 1.0, 0.5)
    if path.is_dir():  # its levels lie two folders deep
        straight = read_header(path / "scale0" / "image")
        assert straight.voxel_size_um == header.voxel_size_um
        np.testing.assert_array_equal(whole(straight), voxels)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("sharded", [False, True])
def test_memory_of_a_window(tmp_path, sharded):
    """A window of 2 MiB of a volume of 256 MiB: memory grows by far less than the volume."""
    path = tmp_path / "large.zarr"
    shards = (256, 256, 256) if sharded else None
    array = zarr.create_array(
        path, shape=(512, 512, 512), dtype="uint16", chunks=(64, 64, 64), shards=shards
    )
    array[:] = 1
    code = f"""
from voxmill.volumes import open_volume, read_header
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
with open_volume(read_header({str(path)!r})) as volume:
    volume.read_window((0, 0, 0), (8, 8, 8))
    before = peak()
    window = volume.read_window((30, 300, 200), (158, 364, 328))
    assert window.shape == (128, 64, 128) and (window == 1).all()
    assert peak() - before < 40, peak() - before
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
