"""Volumes of nuclei with labels: the real ones, and phantoms that look like them."""

import dataclasses
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from voxmill.config.phantoms import PhantomSettings
from voxmill.geometry import Box
from voxmill.phantoms.make_phantom import draw_labelled
from voxmill.runtime.files import sha256
from voxmill.training.sources import Source, grey_of
from voxmill.volumes import read_header
from voxmill.volumes.blocks import ArrayVolume

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "nuclei"
SOURCE = "go-nuclear (Vijayan et al., EMBL), https://github.com/kreshuklab/go-nuclear"
LICENCE = "MIT, Copyright (c) 2024 Qin Yu and Anna Kreshuk, EMBL"
VOLUMES = ("nuclei_1135", "nuclei_1137", "nuclei_1170")
# `python benchmarks/nuclei.py look` says why the others are not.
USABLE = ("nuclei_1135",)
DIAMETER_UM = 4.0
# Phantoms are drawn so many times larger, since their rims and fibres have fixed widths.
SCALE = 4.0
SHAPE = (100, 100, 100)
SIZE_UM = (0.284, 0.127, 0.127)
# Drawn beyond each face and cut off: nuclei are cut at the faces of real volumes.
AROUND_VOX = (10, 20, 20)


# Networks see means of so many voxels along z, y, x: voxels that are nearly cubes, a quarter as
# many, with half of the noise. A nucleus is still 14 of them across.
COARSE = (1, 2, 2)


def coarse(volume: np.ndarray) -> np.ndarray:
    """Means of 1 x 2 x 2 voxels, float32; an odd last row or column counts twice."""
    volume = np.pad(volume, [(0, n % c) for n, c in zip(volume.shape, COARSE, strict=True)], "edge")
    z, y, x = volume.shape
    parts = volume.reshape(z, y // 2, 2, x // 2, 2).astype(np.float32)
    return parts.mean(axis=(2, 4))


def coarse_labels(labels: np.ndarray) -> np.ndarray:
    """The label that most of 1 x 2 x 2 voxels have; of two with two voxels each, the larger."""
    labels = np.pad(labels, [(0, n % c) for n, c in zip(labels.shape, COARSE, strict=True)], "edge")
    four = np.sort([labels[:, y::2, x::2] for y in (0, 1) for x in (0, 1)], axis=0)
    return np.where(four[1] == four[2], four[1], np.where(four[0] == four[1], four[0], four[2]))


def fine(maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Maps (outputs, z, y, x) of coarse voxels in the voxels of the volume, linearly."""
    found = [ndimage.zoom(each, COARSE, order=1, grid_mode=True, mode="nearest") for each in maps]
    return np.stack(found)[:, : shape[0], : shape[1], : shape[2]]


def relabelled(labels: np.ndarray) -> np.ndarray:
    """Labels 1, 2, ... in the order of the old ones."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.uint32)


def centres_of(labels: np.ndarray) -> np.ndarray:
    """Centroids of labels, (N, 3) voxels."""
    names = np.unique(labels[labels > 0])
    return np.array(ndimage.center_of_mass(labels > 0, labels, names)).reshape(-1, 3)


def make_source(name: str, volume: np.ndarray, labels: np.ndarray, size) -> Source:
    """A volume in memory, in coarse voxels, with its labels as ground truth."""
    volume, labels = coarse(volume), coarse_labels(labels)
    size = tuple(float(s * c) for s, c in zip(size, COARSE, strict=True))
    return Source(
        name=name,
        volume=ArrayVolume(volume),
        points=centres_of(labels),
        voxel_size_um=size,
        grey=grey_of(volume, size),
        region=Box.from_shape(volume.shape),
        mask=ArrayVolume(labels),
    )


def read_volume(name: str, folder: Path = DATA):
    """Grey values, labels (numbered anew) and voxel size of a real volume."""
    path = folder / f"{name}.ome.tif"
    labels = tifffile.imread(folder / f"{name}_labels.ome.tif")
    size = read_header(path).voxel_size_um
    return tifffile.imread(path), relabelled(labels), size


def digests(name: str, folder: Path = DATA) -> dict:
    """SHA-256 of the files of a volume."""
    files = {"volume": ".ome.tif", "labels": "_labels.ome.tif"}
    return {f"{key}_sha256": sha256(folder / f"{name}{end}") for key, end in files.items()}


def draw_nuclei(seed: int, shape=SHAPE):
    """Grey values and labels of a phantom of touching nuclei; each seed has its own look."""
    rng = np.random.default_rng((seed, 24))
    signal = float(np.exp(rng.uniform(np.log(12), np.log(80))))
    settings = PhantomSettings(
        seed=seed,
        shape_vox=tuple(n + 2 * a for n, a in zip(shape, AROUND_VOX, strict=True)),
        voxel_size_um=tuple(SCALE * s for s in SIZE_UM),
        density_per_mm3=float(rng.uniform(1.5e5, 6e5)),
        cell_diameter_um=SCALE * float(rng.uniform(3.0, 4.4)),
        size_spread=float(rng.uniform(0.1, 0.3)),
        brightness_spread=float(rng.uniform(0.1, 0.5)),
        touching=float(rng.uniform(0.3, 0.9)),
        hollow=float(rng.uniform(0, 0.8)),
        stubs_per_cell=0.0,
        fibres_per_mm3=2000.0,
        specks_per_mm3=float(rng.uniform(0, 3e5)),
        vessels_per_mm3=0.0,
        signal_photons=signal,
        background_photons=signal * float(rng.uniform(0.15, 0.5)),
        background_variation=float(rng.uniform(0.2, 0.8)),
        stripes=0.1,
        attenuation_um=float(rng.uniform(60, 400)),
        blur_um=tuple(SCALE * float(rng.uniform(0.5, 1.4)) * b for b in (0.4, 0.16, 0.16)),
        offset=2.0,
        read_noise=float(rng.uniform(0, 3)),
    )  # fmt: skip
    volume, _, labels = draw_labelled(settings)
    inner = tuple(slice(a, -a) for a in AROUND_VOX)
    return volume[inner], relabelled(labels[inner])


def phantom_source(seed: int, held: bool = False) -> Source:
    """A phantom to train on, or to validate with."""
    volume, labels = draw_nuclei(seed)
    source = make_source(f"phantom-{seed}", volume, labels, SIZE_UM)
    return dataclasses.replace(source, validation=source.region if held else None)
