"""The denoising benchmarks: how they read a crop, and which precisions they measure."""

import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import denoising_memory
from denoising import read_crop

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising.memory import plan_memory


@pytest.fixture
def paths(tmp_path):
    """A scan of rising numbers and a mask around its voxel (4, 5, 6)."""
    scan = np.arange(10 * 11 * 12, dtype=np.float32).reshape(10, 11, 12)
    mask = np.zeros(scan.shape, np.uint8)
    mask[3:6, 4:7, 5:8] = 1
    for name, data in (("scan", scan), ("mask", mask)):
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / f"{name}.nii")
    return tmp_path / "scan.nii", tmp_path / "mask.nii"


def test_a_crop_lies_around_the_mask(paths):
    whole, mask, _ = read_crop(*paths, 0)
    assert whole.shape == (10, 11, 12) and mask.sum() == 27
    crop, cropped_mask, _ = read_crop(*paths, 4)
    assert np.array_equal(crop, whole[2:6, 3:7, 4:8]) and cropped_mask.sum() == 27
    moved, _, _ = read_crop(*paths, 4, [1, 0, -1])
    assert np.array_equal(moved, whole[3:7, 3:7, 3:7])
    with pytest.raises(SystemExit, match="exceeds the scan"):
        read_crop(*paths, 10)


@pytest.mark.parametrize("precision", denoising_memory.PRECISIONS)
def test_memory_can_be_planned_in_every_precision_of_the_benchmark(precision):
    network = {"inputs": 2, "down": [4], "up": [4], "skip": [2]}
    settings = DenoiseSettings.from_dict({"network": network, "precision": precision})
    (peak,) = plan_memory((8, 8, 8), settings, ["cuda:0"]).peak_bytes
    assert peak > 8**3 * 4
