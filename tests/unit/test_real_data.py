"""The card of a model of real data names the bytes of all that its training read."""

import hashlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import real_data


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
