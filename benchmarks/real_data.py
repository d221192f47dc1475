"""The real volumes of the accuracy benchmark: which train, which are held out, and how."""

from pathlib import Path

import numpy as np
import tifffile

from voxmill.runtime.files import sha256
from voxmill.training.settings import Augmentation, TrainingSettings
from voxmill.training.sources import Source, whole
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.measure_volume import PERCENTILES

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "lightsheet"
SOURCE = (
    "DELiVR training set (Kaltenecker et al., Nature Methods 2024), "
    "https://github.com/erturklab/delivr_cfos"
)
LICENCE = "MIT, Copyright (c) 2022 erturklab"

# Held out: of each stain the volume with the median number of cells, a rule that looks at no
# result. Everything else trains, and validates by turns.
HELD_OUT = {"microglia": "microglia_6506", "cfos": "cfos_695"}
TRAINING = {
    "microglia": ("microglia_1874", "microglia_3941"),
    "cfos": ("cfos_753", "cfos_1147"),
}
# Distances are given in voxels for these data, so a voxel counts as 1 x 1 x 1 here; depth is
# blurred more than the plane, so patches are turned in the plane alone.
VOXEL_SIZE_UM = (1.0, 1.0, 1.0)
MATCH_VOX = {"microglia": 6.0, "cfos": 4.0}

_COMMON = {
    "patch_vox": (32, 64, 64),
    "batch": 1,
    "checkpoint_every": 50,
    "device": "auto",
}
# Settings of the finder that the cross-validation chooses from; nuclei of a few voxels stand no
# smoothing, and hardly any fits in less than its least volume.
FINDERS = {
    "microglia": {
        "min_volume_um3": (20.0, 40.0, 60.0, 80.0, 100.0),
        "border_share": (1.0, 0.25),
        "min_score": (0.0, 0.9),
    },
    "cfos": {"min_volume_um3": (1.0, 3.0, 6.0), "smoothing_um": (0.0,)},
}
# Of the cells, that a fold of the cross-validation has to train on.
LEAST_SHARE = 0.4
# A corner of the first volume, scored at the end of the training for the log alone.
WATCHED_VOX = (64, 64, 64)
SETTINGS = {
    # Whole cells with processes: their centroid is no bright place, so the mask is learnt, and
    # cells are its components, as in the truth.
    "microglia": TrainingSettings(
        cell_diameter_um=12.0,
        target="mask",
        network={"kind": "msdnet", "depth": 12, "width": 4, "dilations": (1, 2, 3, 4)},
        finder={"min_volume_um3": 5.0},
        normalisation={"low": 50.0, "high": 99.0, "clip": 10.0},
        augmentation=Augmentation(rotate="yx", scale=0.8, shift=0.3, noise=0.15),
        max_distance_um=6.0,
        steps=600,
        validate_every=600,
        learning_rate=1.2e-2,
        **_COMMON,
    ),
    # Nuclei of a few voxels in noise: the mask's border voxels teach more than a centroid does.
    "cfos": TrainingSettings(
        cell_diameter_um=8.0,
        target="mask",
        positive_weight=1.0,
        network={"kind": "msdnet", "depth": 16, "width": 4, "dilations": (1, 2, 3, 4, 6, 8)},
        finder={"min_volume_um3": 3.0},
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
    """A volume with its centroids and its mask."""
    volume = tifffile.imread(folder / f"{name}.tif")
    points = np.loadtxt(folder / f"{name}_centroids.csv", delimiter=",", skiprows=1)
    mask = tifffile.imread(folder / f"{name}_mask.tif")
    box = whole(volume.shape)
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
    """SHA-256 of what a training reads of a volume: its grey values, its centroids, its mask."""
    files = {"volume": ".tif", "centroids": "_centroids.csv", "mask": "_mask.tif"}
    return {f"{key}_sha256": sha256(folder / f"{name}{end}") for key, end in files.items()}
