"""Bad Zarr stores are refused by name, with what was expected, found, and what to do."""

import contextlib
import json
import os

import numcodecs
import numpy as np
import pytest
import zarr
import zarr_files
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr_files import ARRAYS, edit, image, metadata_file, multiscale

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import VOLUME_DTYPES, open_volume, read_header

SHAPE = (5, 37, 43)


def example(dtype="uint16", shape=SHAPE):
    return np.random.default_rng(0).integers(0, 250, shape).astype(dtype)


def refused(path, match, **options):
    with pytest.raises(VoxmillError, match=match) as caught:
        read_header(path, **options)
    return str(caught.value)


@pytest.fixture
def store(tmp_path):
    """An image of one level."""
    return image(tmp_path / "v.zarr", [example()], multiscale())


def change(path, **values):
    """Set keys of the first multiscale of an image."""
    edit(path / "zarr.json", lambda c: c["attributes"]["ome"]["multiscales"][0].update(values))


def test_group_that_is_no_image(tmp_path):
    zarr.create_group(tmp_path / "v.zarr")
    refused(
        tmp_path / "v.zarr", "v.zarr: expected an image .*`multiscales`.* found a group without"
    )
    zarr_files.array(tmp_path / "v.zarr" / "a", example())
    assert read_header(tmp_path / "v.zarr").dataset == "a"
    zarr_files.array(tmp_path / "v.zarr" / "b", example())
    refused(tmp_path / "v.zarr", "expected one image, found a group .*2: a, b.*`dataset: a`")


def test_folder_without_metadata(tmp_path):
    (tmp_path / "v.zarr" / "0").mkdir(parents=True)
    refused(tmp_path / "v.zarr", r"expected a Zarr group or array .*found none; there are 0")


def test_missing_level(tmp_path):
    metadata = multiscale(scales=[(1, 1, 1)] * 2)
    path = image(tmp_path / "v.zarr", [example()], metadata)
    refused(path, "level 1 is missing: .*announce the array '1', found 0 there", level=1)
    refused(path, "level: 2 doesn't exist: expected 0 to 1", level=2)
    refused(path / "0", "`level: 1` is for an image with levels, found one array", level=1)
    assert read_header(path / "0", level=0).level == 0


def test_missing_path_in_a_store(store):
    refused(store / "7", "7: this volume does not exist. The Zarr .*v.zarr has 0")
    refused(store, "v.zarr/7: expected a Zarr group or array .*there are 0", dataset="7")


def test_choices(tmp_path):
    voxels = example(shape=(2, 3, 4, 5, 6))
    path = image(tmp_path / "v.zarr", [voxels], multiscale("tczyx", scales=[(1, 1, 2, 2, 2)]))
    refused(path, "expected one time point, found 2: choose one with `time: 0` to `time: 1`")
    refused(path, "expected one channel, found 3", time=0)
    refused(path, "time: 2 doesn't exist: expected 0 to 1", time=2, channel=0)
    refused(path, "channel 3 doesn't exist", time=0, channel=3)
    path = zarr_files.array(tmp_path / "plain", voxels)
    refused(path, "at most one channel axis, found shape .* axes QQQQQ")
    path = zarr_files.array(tmp_path / "3d", example())
    refused(path, "time: 1 doesn't exist: expected axes with t and z", time=1)


def test_2d(tmp_path):
    path = image(tmp_path / "v.zarr", [example(shape=(37, 43))], multiscale("yx", scales=[(1, 1)]),
                 chunks=(8, 8))  # fmt: skip
    refused(path, "found a 2D image")
    path = zarr_files.array(tmp_path / "one", example(shape=(1, 37, 43)))
    refused(path, "found a 2D image")


def test_keys_of_other_formats(tmp_path):
    (tmp_path / "v.nii").write_bytes(b"\0" * 344 + b"n+1\0" + bytes(100))
    for key in ({"level": 1}, {"time": 0}, {"dataset": "a"}):
        refused(
            tmp_path / "v.nii", f"key `{next(iter(key))}` is for OME-Zarr and Zarr .*; HDF5", **key
        )


@pytest.mark.parametrize("dtype", ["float64", "complex64", "uint32", "float16"])
@pytest.mark.parametrize("version", [2, 3])
def test_dtype(tmp_path, dtype, version):
    path = zarr_files.array(tmp_path / "a", example(dtype), version)
    refused(path, f"expected voxels of type {', '.join(VOLUME_DTYPES)}, found {dtype}")


def test_types_that_are_no_numbers(tmp_path):
    path = zarr_files.array(tmp_path / "a", example(), 2)
    edit(path / ".zarray", lambda c: c.update(dtype=[["r", "<u2"], ["g", "<u2"]]))
    refused(path, "found an unknown type")
    path = zarr_files.array(tmp_path / "b", example())
    edit(path / "zarr.json", lambda c: c.update(data_type={"name": "numpy.datetime64"}))
    refused(path, "found an unknown type")


@pytest.mark.parametrize("content", ["{", "[]", "\xff", "null", "[" * 100000])
@pytest.mark.parametrize("version", [2, 3])
def test_broken_json(tmp_path, content, version):
    path = image(tmp_path / "v.zarr", [example()], multiscale(), version)
    file = metadata_file(path)
    file.write_bytes(content.encode("latin1"))
    message = refused(path, "expected the metadata of a Zarr in JSON|expected a JSON object")
    assert str(file) in message
    path = zarr_files.array(tmp_path / "a", example(), version)
    file = path / (".zarray" if version == 2 else "zarr.json")
    file.write_bytes(content.encode("latin1"))
    assert str(file) in refused(path, "in JSON|a JSON object")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"axes": []}, "multiscales.axes: expected a list of axes, found"),
        ({"axes": [1, 2, 3]}, "axes: expected axes with a name, found 1"),
        ({"axes": [{"name": "z", "unit": 5}]}, "axes.unit: expected text, found 5"),
        ({"axes": ["z", "y", "q"]}, r"expected axes z, y, x .*found \['z', 'y', 'q'\]"),
        ({"axes": ["z", "z", "x"]}, r"expected axes z, y, x .*found \['z', 'z', 'x'\]"),
        ({"axes": ["y", "x"]}, "multiscales|scale"),
        ({"datasets": []}, "multiscales.datasets: expected a list of levels"),
        ({"datasets": 5}, "multiscales.datasets: expected a list of levels, found 5"),
        ({"datasets": [{}]}, "datasets.path: expected text, found {}"),
        ({"datasets": ["0"]}, "datasets.path: expected text, found '0'"),
        ({"coordinateTransformations": "no"}, "coordinateTransformations: expected a list"),
        (
            {"coordinateTransformations": [{"type": "scale", "scale": [1, 2]}]},
            r"coordinateTransformations.scale: expected 3 numbers, found \[1, 2\]",
        ),
        (
            {"coordinateTransformations": [{"type": "translation", "translation": ["1", 2, 3]}]},
            "coordinateTransformations.translation: expected 3 numbers",
        ),
    ],
)
def test_wrong_types_in_multiscales(store, values, match):
    change(store, **values)
    message = refused(store, match)
    assert (str(store / "zarr.json") in message and "Copy or write" in message) or "axes" in message


def test_multiscales_that_are_no_list(store):
    for found in ("no", [], [3]):
        edit(store / "zarr.json", lambda c, f=found: c["attributes"]["ome"].update(multiscales=f))
        refused(store, "multiscales: expected a list of objects")
    edit(store / "zarr.json", lambda c: c.update(attributes=["a"]))
    refused(store, "attributes: expected an object")
    edit(store / "zarr.json", lambda c: c.update(node_type="volume"))
    refused(store, "node_type: expected .*found 'volume'")


def test_axes_that_do_not_fit_the_array(store):
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    change(store, axes=[{"name": "c", "type": "channel"}, *axes], datasets=[{"path": "0"}])
    refused(store, r"expected 4 axes \(CZYX\) as its multiscales say, found shape \(5, 37, 43\)")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"shape": [-5, 37, 43]}, r"shape: expected whole numbers from 0, found \[-5"),
        ({"shape": "large"}, "shape: expected whole numbers from 0, found 'large'"),
        ({"shape": [5.5, 37, 43]}, "shape: expected whole numbers from 0"),
        ({"shape": [0, 37, 43]}, r"expected voxels, found an empty array of shape \(0, 37, 43\)"),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_shapes(tmp_path, values, match, version):
    path = zarr_files.array(tmp_path / "a", example(), version)
    edit(path / (".zarray" if version == 2 else "zarr.json"), lambda c: c.update(values))
    refused(path, match)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"chunks": [0, 16, 16]}, "chunks: expected 3 whole numbers from 1"),
        ({"chunks": [16, 16]}, "chunks: expected 3 whole numbers from 1"),
        ({"dimension_separator": "-"}, "dimension_separator: expected"),
        ({"filters": {"id": "delta"}}, "filters: expected a list"),
        ({"compressor": {"level": 1}}, "codecs: expected objects with id"),
    ],
)
def test_wrong_types_in_arrays_v2(tmp_path, values, match):
    path = zarr_files.array(tmp_path / "a", example(), 2)
    edit(path / ".zarray", lambda c: c.update(values))
    assert str(path / ".zarray") in refused(path, match)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"chunk_grid": {"name": "rectilinear"}}, "chunk_grid: expected a regular grid"),
        ({"chunk_grid": {"name": "regular"}}, "chunk_shape: expected 3 whole numbers from 1"),
        (
            {"chunk_grid": {"name": "regular", "configuration": []}},
            "chunk_grid.configuration: expected an object",
        ),
        ({"codecs": []}, "codecs: expected a list of codecs"),
        ({"codecs": [{"configuration": {}}]}, "codecs: expected objects with name"),
        (
            {"codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [2]}}]},
            "codecs.chunk_shape: expected 3 whole numbers",
        ),
        ({"chunk_key_encoding": {"name": "hex"}}, 'chunk_key_encoding: expected "default"'),
        (
            {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": 1}}},
            "chunk_key_encoding.separator: expected",
        ),
    ],
)
def test_wrong_types_in_arrays_v3(tmp_path, values, match):
    path = zarr_files.array(tmp_path / "a", example())
    edit(path / "zarr.json", lambda c: c.update(values))
    assert str(path / "zarr.json") in refused(path, match)


def test_chunks_that_fit_no_memory(tmp_path):
    path = zarr_files.array(tmp_path / "a", example(), 2)
    edit(path / ".zarray", lambda c: c.update(chunks=[2048, 1024, 1024]))
    refused(path, r"chunks of 2 GiB at most, found \(2048, 1024, 1024\) uint16, 4294967296 bytes")


def test_codec_that_no_library_knows(tmp_path):
    path = zarr_files.array(tmp_path / "a", example(), 2)
    edit(path / ".zarray", lambda c: c.update(compressor={"id": "secret"}))
    with pytest.raises(VoxmillError, match=r".zarray: this array can't be opened .*secret"):
        open_volume(read_header(path))


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "overwritten"])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("v2 zstd", "1.1.1"), ("v2 gzip", "1.1.1"), ("v2 lzma", "1.1.1"),
        ("v2 folders", "1/1/1"), ("v3 zstd", "c/1/1/1"), ("v3 checksum", "c/1/1/1"),
        ("v3 sharded", "c/0/0/1"),
    ],
)  # fmt: skip
def test_damaged_chunk_is_named(tmp_path, name, key, how):
    path = ARRAYS[name](tmp_path / "a", example())
    damage(path / key, how)
    with open_volume(read_header(path)) as volume:
        volume.read_window((0, 0, 0), (2, 16, 16))
        with pytest.raises(
            VoxmillError, match=r"can't be decoded .*damaged or truncated: copy"
        ) as e:
            volume.read_window((0, 0, 0), SHAPE)
    assert f"{path / key}: the chunk at (" in str(e.value)
    assert ("in this shard" in str(e.value)) == (name == "v3 sharded")


@pytest.mark.parametrize("name", ["v2 plain", "v2 blosc"])
def test_truncated_chunk_without_checksum(tmp_path, name):
    """Blosc and plain chunks carry no checksum: what is noticed is a wrong length."""
    path = ARRAYS[name](tmp_path / "a", example())
    damage(path / "0.0.1", "truncated")
    with (
        open_volume(read_header(path)) as volume,
        pytest.raises(VoxmillError, match=r"0\.0\.1: the chunk at \(0, 0, 16\) can't be decoded"),
    ):
        volume.read_window((0, 0, 0), SHAPE)


def test_error_that_passes(tmp_path, monkeypatch):
    """A window that fails once, while its chunks do not, is no damage."""
    with open_volume(read_header(ARRAYS["v3 zstd"](tmp_path / "a", example()))) as volume:
        read = volume._read

        def fail_on_whole(index):
            if index == tuple(slice(0, n) for n in SHAPE):
                raise ValueError("a hiccup")
            return read(index)

        monkeypatch.setattr(volume, "_read", fail_on_whole)
        with pytest.raises(VoxmillError, match=r"a window can't be read .a hiccup.*Run again"):
            volume.read_window((0, 0, 0), SHAPE)


def test_memory_errors_pass(tmp_path, monkeypatch):
    def fail(index):
        raise MemoryError

    with open_volume(read_header(ARRAYS["v3 zstd"](tmp_path / "a", example()))) as volume:
        monkeypatch.setattr(volume, "_read", fail)
        with pytest.raises(MemoryError):
            volume.read_window((0, 0, 0), SHAPE)


def test_store_that_changes_before_it_is_opened(tmp_path):
    header = read_header(ARRAYS["v3 zstd"](tmp_path / "a", example()))
    ARRAYS["v2 zstd"](tmp_path / "b", example("uint8", (4, 20, 20)))
    os.rename(tmp_path / "a", tmp_path / "old")
    with pytest.raises(VoxmillError, match=r"expected a Zarr group or array|does not exist"):
        open_volume(header)
    os.rename(tmp_path / "b", tmp_path / "a")
    with pytest.raises(VoxmillError, match="the store has changed since its header was read"):
        open_volume(header)


@pytest.mark.parametrize("name", ["v2 zstd", "v3 zstd"])
def test_metadata_that_change_while_they_are_read(tmp_path, name):
    path = ARRAYS[name](tmp_path / "a", example())
    file = path / (".zarray" if name.startswith("v2") else "zarr.json")
    with open_volume(read_header(path)) as volume:
        volume.read_window((0, 0, 0), SHAPE)
        os.utime(file, (0, 0))  # touched, not changed
        volume.read_window((0, 0, 0), SHAPE)
        edit(file, lambda c: c.update(fill_value=5))
        with pytest.raises(VoxmillError, match=r"has changed while it was read. Wait until"):
            volume.read_window((0, 0, 0), SHAPE)
        file.unlink()
        with pytest.raises(VoxmillError, match="has changed while it was read"):
            volume.read_window((0, 0, 0), SHAPE)


def test_bad_zips(tmp_path):
    path = zarr_files.zipped(tmp_path / "a", example())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(path, "expected a whole zip, found a damaged or truncated one")
    start = data.index(b"zarr.json") + 20
    path.write_bytes(data[:start] + bytes(40) + data[start + 40 :])
    refused(path, "damaged in the zip")


def test_window_outside(store):
    with (
        open_volume(read_header(store)) as volume,
        pytest.raises(VoxmillError, match="expected a window inside the volume"),
    ):
        volume.read_window((0, 0, 0), (6, 1, 1))


def test_damaged_with_filters(tmp_path):
    """Read by zarr, which names no chunk: each one is tried."""
    path = zarr_files.array(
        tmp_path / "a", example(), 2, filters=[numcodecs.Delta("uint16")],
        compressors=numcodecs.Zlib(),
    )  # fmt: skip
    damage(path / "1.2.0", "truncated")
    with (
        open_volume(read_header(path)) as volume,
        pytest.raises(VoxmillError, match=r"1\.2\.0: the chunk at \(2, 32, 0\) can't be decoded"),
    ):
        volume.read_window((0, 0, 0), SHAPE)


def test_consolidated_metadata_are_not_needed(store):
    content = json.loads((store / "zarr.json").read_text())
    content["consolidated_metadata"] = {"kind": "inline", "metadata": {}}
    (store / "zarr.json").write_text(json.dumps(content))
    assert read_header(store).shape == SHAPE


def places(content, path=()):
    """Where values stand in JSON."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["0", "..", "z", "scale", "bytes", "uint8"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), version=st.sampled_from([2, 3]), of_array=st.booleans())
def test_any_damage_to_metadata_is_an_error_of_ours(tmp_path_factory, data, version, of_array):
    """One value replaced by any other, or lost: the store is read, or refused in our words."""
    path = tmp_path_factory.mktemp("damage") / "v.zarr"
    image(path, [example(shape=(3, 4, 5))], multiscale(), version)
    file = path / "0" / (".zarray" if version == 2 else "zarr.json")
    file = file if of_array else metadata_file(path)
    content = json.loads(file.read_text())
    *above, last = data.draw(st.sampled_from(list(places(content))))
    parent = content
    for key in above:
        parent = parent[key]
    if data.draw(st.booleans()):
        del parent[last]
    else:
        parent[last] = data.draw(JSON)
    file.write_text(json.dumps(content))
    with contextlib.suppress(VoxmillError), open_volume(read_header(path)) as volume:
        volume.read_window((0, 0, 0), tuple(min(n, 4) for n in volume.shape))
