"""The card of a model of real data names the bytes of all that its training read."""

import dataclasses
import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import real_data

from voxmill.geometry import Box
from voxmill.training.sources import Source
from voxmill.volumes.blocks import ArrayVolume


def test_digests_of_the_volume_the_centroids_and_the_mask(tmp_path):
    contents = {"v.tif": b"grey", "v_centroids.csv": b"points", "v_mask.tif": b"mask"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found = real_data.digests("v", tmp_path)
    expected = [hashlib.sha256(content).hexdigest() for content in contents.values()]
    assert found == dict(
        zip(("volume_sha256", "centroids_sha256", "mask_sha256"), expected, strict=True)
    )
    with pytest.raises(FileNotFoundError, match=r"w\.tif"):
        real_data.digests("w", tmp_path)


@pytest.mark.parametrize("stain", sorted(real_data.HELD_OUT))
def test_the_volume_held_out_does_not_train(stain):
    assert real_data.HELD_OUT[stain] not in real_data.TRAINING[stain]


def test_every_volume_held_out_or_trained_on_is_one_of_its_stain():
    for stain, names in real_data.VOLUMES.items():
        assert {real_data.HELD_OUT[stain], *real_data.TRAINING[stain]} <= set(names)
        assert all(name.startswith(f"{stain}_") for name in names)
        assert stain in real_data.SETTINGS and stain in real_data.DETECTORS


def test_regions_of_a_volume_share_it():
    shape = (200, 200, 200)
    source = Source(
        name="cfos_1008",
        volume=ArrayVolume(np.zeros(shape, np.uint8)),
        points=np.zeros((0, 3)),
        voxel_size_um=(1.0, 1.0, 1.0),
        grey=None,
        region=Box.from_shape(shape),
    )
    parts = real_data.regions_of(source)
    assert len(parts) == 3 and all(part.volume is source.volume for part in parts)
    # All but the block without truth, which no region touches.
    assert sum(part.region.size for part in parts) == 7 * 100**3
    assert not any(part.region.overlaps(Box((100, 0, 0), (200, 100, 100))) for part in parts)
    other = dataclasses.replace(source, name="cfos_695")
    assert real_data.regions_of(other) == [other]
    assert real_data.truth_of(source).limit_vox == 4.0
