"""Whole runs of Snakemake on a volume small enough to know each cell by name."""

import dataclasses
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
import zarr

from voxmill.config.networks import MSDNetSettings
from voxmill.networks import build, models
from voxmill.volumes.probability import to_probability

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (12, 20, 24)
SIZE_UM = (2.0, 1.0, 1.0)
TILE_SHAPE = (12, 10, 12)
# On a face, an edge and a corner of tiles of 12 x 10 x 12, in the interior, near the border.
CELLS = [(6, 9, 5), (6, 10, 12), (4, 4, 18), (8, 15, 19), (6, 16, 4)]


def save_identity(path):
    """A network whose probability is a steep function of the normalised voxel alone."""
    settings = MSDNetSettings(depth=1, width=1, dilations=(1,))
    network = build("msdnet", settings)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.final_weight[0, 0] = 8.0
        network.final_bias[0] = -4.0
    card = models.ModelCard(
        "identity", "msdnet", dataclasses.asdict(settings),
        normalisation={"low": 5.0, "high": 99.9, "clip": 10.0},
    )  # fmt: skip
    models.save(path, network, card)


def make_volume():
    """Cells as small bright blobs on a faint, exactly known background."""
    z, y, x = np.indices(SHAPE)
    volume = 100.0 + (z + 2 * y + 3 * x) % 5
    for cz, cy, cx in CELLS:
        squared = ((z - cz) * 2) ** 2 + (y - cy) ** 2 + (x - cx) ** 2
        volume += 900 * np.exp(-squared / 4)
    return volume.astype(np.uint16)


class Project:
    """A folder with a configuration, in which Snakemake runs with the repository's Snakefile."""

    def __init__(self, folder, root=ROOT):
        self.folder, self.root = Path(folder), Path(root)

    def copy(self, folder):
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder, self.root)

    @property
    def config(self):
        return yaml.safe_load((self.folder / "my.yaml").read_text())

    def configure(self, **sections):
        content = self.config
        for name, section in sections.items():
            content[name] = content.get(name, {}) | section
        (self.folder / "my.yaml").write_text(yaml.safe_dump(content))

    def start(self, *arguments):
        command = [
            sys.executable, "-m", "snakemake", "--snakefile", self.root / "Snakefile",
            "--configfile", "my.yaml", "--cores", "2", *arguments,
        ]  # fmt: skip
        return subprocess.Popen(
            [str(part) for part in command], cwd=self.folder, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"COLUMNS": "200"},
            # In the background of a shell SIGINT is ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def snakemake(self, *arguments, ok=True):
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=600)
        assert (process.returncode == 0) == ok, output
        return output

    def jobs(self, *arguments):
        """Number of jobs per rule that a dry run announces."""
        output = self.snakemake("--dry-run", *arguments)
        if "Nothing to be done" in output:
            return {}
        table = output[output.rindex("Job stats:") :]
        counts = dict(re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE))
        counts.pop("total")
        return {rule: int(count) for rule, count in counts.items()}

    def path(self, name):
        return self.folder / "results" / name


def read_probability(folder, level=0):
    """The stored probability of a network on a volume, as float32 from 0 to 1."""
    stored = zarr.open_group(folder / "probability.ome.zarr", mode="r")[str(level)][...]
    return to_probability(stored)


def shard_of(folder, tile):
    """The file of a tile's shard."""
    start = [int(part[1:]) for part in tile.split("_")]
    index = [str(a // edge) for a, edge in zip(start, TILE_SHAPE, strict=True)]
    return folder.joinpath("probability.ome.zarr", "0", "c", *index)


def flip_a_bit(path, position=0):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def make_project(folder, root=ROOT):
    folder.mkdir(parents=True, exist_ok=True)
    save_identity(folder / "models" / "identity.safetensors")
    tifffile.imwrite(folder / "v.tif", make_volume())
    rows = "".join(f"{z},{y},{x}\n" for z, y, x in CELLS)
    (folder / "truth.csv").write_text("z_vox,y_vox,x_vox\n" + rows)
    content = {
        "volumes": {
            "v": {
                "path": "v.tif",
                "voxel_size_um": list(SIZE_UM),
                "truth": {"path": "truth.csv", "kind": "points"},
            }
        },
        "networks": {"identity": {"weights": "models/identity.safetensors"}},
        "tiles": {"shape_vox": list(TILE_SHAPE), "halo_vox": 2},
        "prediction": {"device": "cpu"},
        "cells": {"min_distance_um": 3, "smoothing_um": 0},
        "evaluation": {"max_distance_um": 2, "bootstrap_samples": 50},
    }
    (folder / "my.yaml").write_text(yaml.safe_dump(content))
    return Project(folder, root)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A project that ran to its end once, for all processes of the tests; tests work on copies."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    project, output = Project(base / "finished" / "project"), base / "finished" / "output.txt"
    with open(base / "finished.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            output.write_text(make_project(project.folder).snakemake())
    project.output = output.read_text()
    return project


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project."""
    return finished.copy(tmp_path / "project")
