"""The real volumes of the accuracy benchmark, and the settings of their networks."""

import dataclasses
from pathlib import Path

import numpy as np
import tifffile
from left_out import Volume

from voxmill.config.training import Augmentation, TrainingSettings
from voxmill.geometry import Box
from voxmill.runtime.files import sha256
from voxmill.training.sources import Source
from voxmill.volumes import read_header
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.measure_volume import measure_grey_values

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "lightsheet"
SOURCE = (
    "DELiVR training set (Kaltenecker et al., Nature Methods 2024), "
    "https://github.com/erturklab/delivr_cfos"
)
LICENCE = "MIT, Copyright (c) 2022 erturklab"

VOLUMES = {
    "cfos": ("cfos_695", "cfos_753", "cfos_1147", "cfos_1008"),
    "microglia": (
        "microglia_1874",
        "microglia_3941",
        "microglia_6506",
        "microglia_6003",
        "microglia_4150",
        "microglia_8858",
    ),
}
# Where the ground truth is complete, if not everywhere.
REGIONS = {
    "cfos_1008": "0:100, 0:200, 0:200; 100:200, 100:200, 0:200; 100:200, 0:100, 100:200",
}
# Of microglia the voxel size is not known, and lengths are in voxels. Blur is stronger along z:
# patches are rotated only in the plane.
VOXEL_SIZES_UM = {"microglia": (1.0, 1.0, 1.0), "cfos": (6.0, 1.62, 1.62)}
MATCH_VOX = {"microglia": 6.0, "cfos": 4.0}
# Volumes of the benchmarks that compare trainings with each other (hundred_clicks, mask_thresholds,
# training_width).
HELD_OUT = {"microglia": "microglia_6506", "cfos": "cfos_695"}
TRAINING = {
    "microglia": ("microglia_1874", "microglia_3941"),
    "cfos": ("cfos_753", "cfos_1147"),
}

_COMMON = {
    "patch_vox": (32, 64, 64),
    "batch": 1,
    "checkpoint_every": 100,
    "device": "auto",
}
# Settings of the detector among which the cross-validation chooses. Nuclei of a few voxels do not
# survive smoothing, and hardly any is smaller than the least volume.
DETECTORS = {
    "microglia": {
        "min_volume_um3": (20.0, 60.0, 80.0, 100.0, 120.0, 150.0),
        "border_share": (1.0, 0.25),
        "min_score": (0.0, 0.9, 0.97),
    },
    # 1, 3, 6 and 10 voxels.
    "cfos": {"min_volume_um3": (15.7, 47.0, 94.0, 157.0)},
}
# Scale of the filter whose responses are the candidates of gradient boosting.
CANDIDATE_SCALE = {"microglia": 0.7, "cfos": 0.55}
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
        normalisation={"kind": "local", "background_um": 48.0, "contrast": "cells", "scale": 2.0},
        dim_share=0.3,
        augmentation=Augmentation(
            rotate="yx", scale=0.2, shift=0.2, noise=0.1, gradient=0.3, layer=0.3, seam=0.2
        ),
        max_distance_um=6.0,
        steps=400,
        validate_every=400,
        learning_rate=1.2e-2,
        **_COMMON,
    ),
    # These are nuclei of a few voxels in noise, for which masks are the better target.
    "cfos": TrainingSettings(
        cell_diameter_um=13.0,
        target="mask",
        positive_weight=1.0,
        network={"kind": "msdnet", "depth": 16, "width": 4, "dilations": (1, 2, 3, 4, 6, 8)},
        detector={"min_volume_um3": 47.0},
        normalisation={"kind": "local", "background_um": 32.0, "contrast": "cells", "scale": 4.0},
        dim_share=0.3,
        augmentation=Augmentation(
            rotate="yx", scale=0.2, shift=0.2, blur_vox=0.5, gradient=0.3, layer=0.3, seam=0.2
        ),
        max_distance_um=6.5,
        steps=300,
        validate_every=300,
        learning_rate=6e-3,
        **_COMMON,
    ),
}


def read_source(name: str, folder: Path) -> Source:
    """Read a volume with its centroids and its mask, as a whole."""
    size = VOXEL_SIZES_UM[name.partition("_")[0]]
    header = read_header(folder / f"{name}.tif", voxel_size_um=size)
    return Source(
        name=name,
        volume=ArrayVolume(tifffile.imread(folder / f"{name}.tif")),
        points=np.loadtxt(folder / f"{name}_centroids.csv", delimiter=",", skiprows=1),
        voxel_size_um=size,
        grey=measure_grey_values(header),
        region=Box.from_shape(header.shape),
        mask=ArrayVolume(tifffile.imread(folder / f"{name}_mask.tif")),
        contents=" ".join(digests(name, folder).values()),
    )


def truth_of(source: Source) -> Volume:
    """The ground truth of a volume, with the distances of its stain."""
    limit = MATCH_VOX[source.name.partition("_")[0]]
    regions = [of_region.region for of_region in regions_of(source)]
    return Volume(source.name, source.volume.shape, source.points, regions, limit)


def regions_of(source: Source) -> list[Source]:
    """A volume as one source for each region of complete ground truth."""
    texts = REGIONS.get(source.name)
    if texts is None:
        return [source]
    boxes = [Box.parse(text, source.volume.shape) for text in texts.split(";")]
    return [
        dataclasses.replace(source, name=f"{source.name}-{number}", region=box)
        for number, box in enumerate(boxes, start=1)
    ]


def digests(name: str, folder: Path) -> dict:
    """SHA-256 of the files of a volume: grey values, centroids, mask."""
    files = {"volume": ".tif", "centroids": "_centroids.csv", "mask": "_mask.tif"}
    return {f"{key}_sha256": sha256(folder / f"{name}{end}") for key, end in files.items()}
