"""Percentiles against NumPy's, streamed; normalisation by hand-checked numbers."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from voxmill.runtime.checked import write_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import read_header
from voxmill.volumes.grey_values import read_grey_values
from voxmill.volumes.measure_volume import PERCENTILES, measure, measure_volume
from voxmill.volumes.normalisation import normalise


def measured(path, array, **options):
    tifffile.imwrite(path, array, photometric="minisblack")
    return measure(read_header(path), **options)


def check(statistics, array):
    expected = np.percentile(array.astype(np.float64), PERCENTILES)
    found = [statistics["percentiles"][f"{p:g}"] for p in PERCENTILES]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)
    wide = array.astype(np.float64)
    assert statistics["minimum"] == wide.min()
    assert statistics["maximum"] == wide.max()
    assert statistics["mean"] == pytest.approx(wide.mean(), rel=1e-9, abs=1e-9)
    assert statistics["std"] == pytest.approx(wide.std(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_equals_numpy(tmp_path_factory, dtype, data):
    shape = data.draw(st.tuples(st.integers(2, 5), *[st.integers(1, 7)] * 2))
    values = st.floats(-1e6, 1e6, width=32) if dtype == "float32" else None
    array = data.draw(arrays(dtype, shape, elements=values))
    path = tmp_path_factory.mktemp("volume") / "volume.tif"
    if array.min() == array.max():
        with pytest.raises(VoxmillError, match=r"volume.tif: expected a volume with contrast"):
            measured(path, array)
    else:
        check(measured(path, array), array)


def test_planes_larger_than_one_piece(tmp_path):
    """More voxels in a plane than are widened at a time, and large means with small spread."""
    random = np.random.default_rng(0)
    array = random.normal(5e4, 3, (3, 1100, 1000)).astype("float32")
    check(measured(tmp_path / "volume.tif", array), array)
    check(measured(tmp_path / "volume.tif", array.astype("uint16")), array.astype("uint16"))


def test_every_step_th_plane(tmp_path):
    array = np.random.default_rng(0).integers(0, 60000, (10, 20, 30)).astype("uint16")
    statistics = measured(tmp_path / "volume.tif", array, max_voxels=2500)
    check(statistics, array[::3])
    assert statistics["method"] == "histogram of every voxel of planes 0, 3, 6, ..."
    assert (statistics["planes_read"], statistics["voxels_read"]) == (4, 2400)


def test_float_sample(tmp_path):
    """Percentiles of a sample are near those of all; sums and extremes are of every voxel."""
    array = np.random.default_rng(0).gamma(2, 100, (30, 100, 100)).astype("float32")
    statistics = measured(tmp_path / "volume.tif", array, max_samples=30000, seed=3)
    assert statistics["samples"] == 30000
    assert "one voxel at random in each run of 10" in statistics["method"]
    assert statistics["maximum"] == array.max()
    assert statistics["mean"] == pytest.approx(array.mean(dtype=float))
    below = [(array < value).mean() * 100 for value in statistics["percentiles"].values()]
    np.testing.assert_allclose(below, PERCENTILES, atol=1)
    assert measured(tmp_path / "volume.tif", array, max_samples=30000, seed=3) == statistics
    other = measured(tmp_path / "volume.tif", array, max_samples=30000, seed=4)
    assert other["percentiles"] != statistics["percentiles"]


def test_nan_is_refused(tmp_path):
    array = np.ones((3, 4, 5), "float32")
    array[2, 1, 0] = np.nan
    with pytest.raises(VoxmillError, match=r"found 1 that are NaN .* \(2, 1, 0\)"):
        measured(tmp_path / "volume.tif", array)


@pytest.mark.parametrize("kept", ["low byte", "scaled"])
def test_the_low_byte_of_a_noisy_volume_is_named(tmp_path, caplog, kept):
    """Noise of 300 grey values in 16 bits: its low byte says nothing, a 16th of it is an image."""
    wide = np.random.default_rng(0).normal(2000, 300, (4, 24, 120))
    wide[:, :12] = 2000  # two of the three rows that count: even light leaves an even low byte
    measured(
        tmp_path / "volume.tif", (wide % 256 if kept == "low byte" else wide / 16).astype("u1")
    )
    warned = "in 33% of the volume neighbouring voxels have nothing to do" in caplog.text
    assert warned == (kept == "low byte")


def test_labels_are_no_image(tmp_path):
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, np.zeros((5, 6, 7), "int32"))
    with pytest.raises(VoxmillError, match="expected voxels of type uint8"):
        measure(read_header(path, dtypes=("int32",)))


def test_job_writes_json(tmp_path):
    array = np.random.default_rng(0).integers(0, 9, (5, 6, 7)).astype("uint8")
    statistics = measured(tmp_path / "volume.tif", array)
    path = tmp_path / "statistics.json"
    blocks = tmp_path / "grey_blocks.npz"
    volume = {"path": str(tmp_path / "volume.tif")}
    measure_volume(volume=volume, output_path=path, blocks_path=blocks)
    values = read_grey_values(path)
    kept = dict(values.statistics)
    assert kept.pop("blocks")["edge_vox"] == [5, 6, 7]
    assert kept == statistics | {"fingerprint": None}
    assert values.tissue.blocks.tolist() == [[[True]]]
    expected = np.percentile(array, (5, 50, 95))
    np.testing.assert_allclose(values.blocks.levels.ravel(), expected, rtol=1e-6)
    blocks.write_bytes(blocks.read_bytes()[:-1])
    with pytest.raises(VoxmillError, match=r"grey_blocks.npz: damaged, or of another measurement"):
        read_grey_values(path)
    blocks.unlink()
    with pytest.raises(VoxmillError, match=r"grey_blocks.npz: .* cannot be read"):
        read_grey_values(path)
    write_checked_json(path, statistics)
    with pytest.raises(VoxmillError, match=r"key 'blocks', found those of an earlier voxmill"):
        read_grey_values(path)


STATISTICS = {"percentiles": {"1": 100.0, "5": 200.0, "50": 200.0, "99": 600.0, "99.9": 1000.0}}


def test_normalise():
    array = np.array([[0, 200, 400], [600, 1000, 5000]], np.uint16)
    found = normalise(array, STATISTICS, {"low": 5, "high": 99.0, "clip": 10})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[-0.5, 0, 0.5], [1, 2, 10]], rtol=1e-6)
    assert array.dtype == np.uint16 and array[0, 0] == 0


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_normalise_does_not_wrap(dtype):
    found = normalise(np.zeros((2, 2), dtype), STATISTICS, {"low": 5.0, "high": 99.9, "clip": 10})
    np.testing.assert_allclose(found, -0.25)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"low": 2.5}, "normalisation, low: expected one of the percentiles 1, 5, .* found 2.5"),
        ({"high": "max"}, "normalisation, high: expected one of the percentiles .* found 'max'"),
        ({"clip": 0}, "normalisation, clip: expected a number above 0, found 0"),
        ({"clip": None}, "clip: expected a number above 0, found None"),
        ({"low": 99, "high": 5}, "expected percentile 5 .* above percentile 99, found 200 and 600"),
        ({"high": 50}, "expected percentile 50 .* above percentile 5, found 200 and 200"),
        ({"gamma": 1}, "expected the keys low, high and clip, found .*gamma"),
    ],
)
def test_bad_normalisation(change, match):
    settings = {"low": 5.0, "high": 99.0, "clip": 10.0} | change
    with pytest.raises(VoxmillError, match=match):
        normalise(np.zeros((2, 2)), STATISTICS, settings)
