"""A run that makes every kind of product: predictions, labels, exports, a model, denoised scans."""

import numpy as np
import tifffile
import yaml

from tests.workflow import test_denoise, test_train
from tests.workflow.conftest import CELLS, SHAPE, make_project

TARGETS = ("all", "segment", "export", "train", "denoise")
NETWORK = "results/v/identity"
FILES = [f"{NETWORK}/probability.ome.tif", f"{NETWORK}/cells_measured.parquet"]


def make_everything(folder):
    """A small project with all sections of the configuration."""
    project = make_project(folder)
    labels = np.zeros(SHAPE, np.uint16)
    for number, (z, y, x) in enumerate(CELLS, start=1):
        labels[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = number
    tifffile.imwrite(folder / "labels.tif", labels)
    test_denoise.write_bids(folder / "raw")
    content = project.config
    trained = dict(content["volumes"]["v"]) | {"validation": "0:12, 0:20, 14:24"}
    content["volumes"]["v"]["truth"] = {"path": "labels.tif", "kind": "labels"}
    settings = test_train.SETTINGS | {
        "steps": 2, "validate_every": 1, "patch_vox": [8, 8, 8], "checkpoint_every": 1,
    }  # fmt: skip
    content |= {
        "export": {"formats": ["napari", "neuroglancer"]},
        "training": {"mine": {"volumes": {"v": trained}, "settings": settings}},
        "scans": {"made": {"phantom": test_denoise.PHANTOM}, "study": {"bids": "raw"}},
        "denoising": test_denoise.DENOISING,
    }
    (folder / "my.yaml").write_text(yaml.safe_dump(content))
    return project
