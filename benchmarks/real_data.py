"""The real volumes of the accuracy benchmark: training, held-out data, and settings."""

from pathlib import Path

import numpy as np
import tifffile

from voxmill.config.training import Augmentation, TrainingSettings
from voxmill.geometry import Box
from voxmill.runtime.files import sha256
from voxmill.training.sources import Source
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.measure_volume import PERCENTILES

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "lightsheet"
SOURCE = (
    "DELiVR training set (Kaltenecker et al., Nature Methods 2024), "
    "https://github.com/erturklab/delivr_cfos"
)
LICENCE = "MIT, Copyright (c) 2022 erturklab"

# Of each stain, the volume with the median number of cells is held out, a rule independent of any
# result. All others are used for training and cross-validation.
HELD_OUT = {"microglia": "microglia_6506", "cfos": "cfos_695"}
TRAINING = {
    "microglia": ("microglia_1874", "microglia_3941"),
    "cfos": ("cfos_753", "cfos_1147"),
}
# Distances of these data are in voxels, so the voxel size is 1 x 1 x 1. Blur is stronger along z:
# patches are rotated only in the plane.
VOXEL_SIZE_UM = (1.0, 1.0, 1.0)
MATCH_VOX = {"microglia": 6.0, "cfos": 4.0}

_COMMON = {
    "patch_vox": (32, 64, 64),
    "batch": 1,
    "checkpoint_every": 50,
    "device": "auto",
}
# Settings of the detector among which the cross-validation chooses. Nuclei of a few voxels do not
# survive smoothing, and hardly any is smaller than the least volume.
DETECTORS = {
    "microglia": {
        "min_volume_um3": (20.0, 40.0, 60.0, 80.0, 100.0),
        "border_share": (1.0, 0.25),
        "min_score": (0.0, 0.9),
    },
    "cfos": {"min_volume_um3": (1.0, 3.0, 6.0), "smoothing_um": (0.0,)},
}
# Least share of the cells on which a fold of the cross-validation must train.
LEAST_SHARE = 0.4
# A corner of the first volume, scored at the end of the training for the log alone.
WATCHED_VOX = (64, 64, 64)
SETTINGS = {
    # These are whole cells with processes, whose centroid is not a bright spot. The network learns
    # their mask, and cells are its components, as in the ground truth.
    "microglia": TrainingSettings(
        cell_diameter_um=12.0,
        target="mask",
        network={"kind": "msdnet", "depth": 12, "width": 4, "dilations": (1, 2, 3, 4)},
        detector={"min_volume_um3": 5.0},
        normalisation={"low": 50.0, "high": 99.0, "clip": 10.0},
        augmentation=Augmentation(rotate="yx", scale=0.8, shift=0.3, noise=0.15),
        max_distance_um=6.0,
        steps=600,
        validate_every=600,
        learning_rate=1.2e-2,
        **_COMMON,
    ),
    # These are nuclei of a few voxels in noise, for which masks are the better target.
    "cfos": TrainingSettings(
        cell_diameter_um=8.0,
        target="mask",
        positive_weight=1.0,
        network={"kind": "msdnet", "depth": 16, "width": 4, "dilations": (1, 2, 3, 4, 6, 8)},
        detector={"min_volume_um3": 3.0},
        normalisation={"low": 50.0, "high": 99.0, "clip": 10.0},
        augmentation=Augmentation(rotate="yx", scale=0.8, shift=0.3, noise=0.08, blur_vox=0.5),
        max_distance_um=4.0,
        steps=300,
        validate_every=300,
        learning_rate=3e-3,
        **_COMMON,
    ),
}


def read_source(name: str, folder: Path) -> Source:
    """Read a volume with its centroids and its mask."""
    volume = tifffile.imread(folder / f"{name}.tif")
    points = np.loadtxt(folder / f"{name}_centroids.csv", delimiter=",", skiprows=1)
    mask = tifffile.imread(folder / f"{name}_mask.tif")
    box = Box.from_shape(volume.shape)
    values = np.percentile(volume, PERCENTILES)
    return Source(
        name=name,
        volume=ArrayVolume(volume),
        points=points,
        voxel_size_um=VOXEL_SIZE_UM,
        statistics={
            "percentiles": {f"{p:g}": float(v) for p, v in zip(PERCENTILES, values, strict=True)}
        },
        region=box,
        mask=ArrayVolume(mask),
        contents=" ".join(digests(name, folder).values()),
    )


def digests(name: str, folder: Path) -> dict:
    """SHA-256 of the files of a volume: grey values, centroids, mask."""
    files = {"volume": ".tif", "centroids": "_centroids.csv", "mask": "_mask.tif"}
    return {f"{key}_sha256": sha256(folder / f"{name}{end}") for key, end in files.items()}
