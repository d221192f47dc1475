"""A small checked configuration for the tests of `voxmill.workflow`, made without any file."""

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace

from voxmill.networks.models import ModelCard
from voxmill.workflow.configuration import Config, Volume

SHAPE, TILE = (100, 200, 300), (100, 100, 150)
TILES = ["z0000_y0000_x0000", "z0000_y0000_x0150", "z0000_y0100_x0000", "z0000_y0100_x0150"]
NETWORK = {"depth": 10, "width": 2, "dilations": [1, 2, 3], "inputs": 1, "outputs": 1}
EXPORTED = {"halo_vox": 7, "bytes_per_voxel": 900, "shape_multiple": 8, "inputs": 1, "outputs": 1}


@dataclass(frozen=True)
class Machine:
    """What `Resources` asks about where jobs run: here, unless told otherwise."""

    non_local_exec: bool = False
    remote_exec: bool = False


def ancient(path):
    """A mark that a test can see."""
    return f"ancient {path}"


def wildcards(**names):
    return SimpleNamespace(**names)


def volume(name="v", **changes):
    settings = {"path": f"{name}.tif", "truth": {"path": f"{name}.csv", "kind": "points"}}
    made = Volume(
        name=name, shape=SHAPE, voxel_size_um=(2.0, 1.0, 1.0), itemsize=2, made_from="f",
        path=f"{name}.tif", settings=settings, windows=True, networks=("a", "b"),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def config(volumes=None, **sections):
    """A configuration of two networks, "a" of MS-D layers and "b", a program of torch.export."""
    settings = {
        "networks": {"a": {"weights": "models/a.safetensors"}, "b": {"weights": "models/b.pt2"}},
        "tiles": {
            "shape_vox": TILE, "halo_vox": 10, "halo_tolerance": 0.001, "per_job": 1,
            "keep": "all",
        },
        "prediction": {
            "backend": "auto", "device": "cpu", "precision": "float32", "flips": False,
        },
        "stitching": {"formats": ("ome-zarr",), "dtype": "uint8", "compression": "zstd"},
        "cells": {"method": "maxima", "threshold": "model", "min_distance_um": 6},
        "evaluation": {"max_distance_um": 5, "baseline": True, "seed": 0},
        "training": {},
    }  # fmt: skip
    for name, section in sections.items():
        settings[name] = settings[name] | section
    cards = {
        "a": ModelCard("a", "msdnet", NETWORK, threshold=0.4),
        "b": ModelCard("b", "exported", EXPORTED, threshold=0.6),
    }
    digests = {name: name * 64 for name in cards}
    volumes = [volume()] if volumes is None else volumes
    return Config(settings, {v.name: v for v in volumes}, cards, TILE, digests)
