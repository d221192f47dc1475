"""A volume that is half air, through a whole run of Snakemake."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml

from tests.workflow.conftest import make_project, read_probability, save_identity

CELLS = [(8, 8, 20), (6, 20, 40), (10, 9, 56)]
FULL, AIR = "z0000_y0000_x0000", "z0000_y0000_x0128"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two tiles: tissue of 1000 with three cells, and air of 100; blocks of 4 voxels."""
    project = make_project(tmp_path_factory.mktemp("tissue") / "project")
    rng = np.random.default_rng(0)
    volume = rng.normal(100, 2, (16, 32, 256))
    volume[..., :100] = rng.normal(1000, 5, (16, 32, 100))
    z, y, x = np.indices(volume.shape)
    for cz, cy, cx in CELLS:
        volume += 3000 * np.exp(-((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2) / 4)
    tifffile.imwrite(project.folder / "v.tif", volume.astype(np.uint16))
    rows = "".join(f"{z},{y},{x}\n" for z, y, x in CELLS)
    (project.folder / "truth.csv").write_text("z_vox,y_vox,x_vox\n" + rows)
    weights = project.folder / "models" / "identity.safetensors"
    save_identity(weights)
    card = json.loads(weights.with_suffix(".json").read_text())
    card["normalisation"] = {"kind": "local", "scale": 200.0, "clip": 10.0}
    card["seen"] = {"contrast": [0.5, 1.0], "density_per_mm3": [0, 1]}
    weights.with_suffix(".json").write_text(json.dumps(card))
    content = project.config
    content["volumes"]["v"]["voxel_size_um"] = [4.0, 4.0, 4.0]
    content["tiles"]["shape_vox"] = [16, 32, 128]
    content["cells"]["min_distance_um"] = 12
    content["evaluation"] |= {"max_distance_um": 8, "baseline": False}
    (project.folder / "my.yaml").write_text(yaml.safe_dump(content))
    project.output = project.snakemake()
    return project


def test_air_is_not_predicted_and_costs_nothing(run):
    folder = run.path("v/identity")
    empty = {
        name: json.loads((folder / f"predictions/{name}.json").read_text())["empty"]
        for name in (FULL, AIR)
    }
    assert empty == {FULL: False, AIR: True}
    shards = sorted(p.name for p in (folder / "probability.ome.zarr/0/c/0/0").iterdir())
    assert shards == ["0"]
    assert not read_probability(folder)[..., 128:].any()


def test_cells_are_found_and_the_share_of_tissue_is_told(run):
    cells = pd.read_csv(run.path("v/identity/cells.csv"))
    found = cells[["z_vox", "y_vox", "x_vox"]].round().to_numpy(int)
    assert sorted(map(tuple, found)) == sorted(CELLS)
    evaluation = json.loads(run.path("v/identity/evaluation.json").read_text())
    assert evaluation["f1"] == 1
    # 25 of 64 blocks along x, and one more.
    assert evaluation["tissue"]["share"] == pytest.approx(26 / 64)


def test_what_the_model_has_not_seen_is_told_everywhere(run):
    evaluation = json.loads(run.path("v/identity/evaluation.json").read_text())
    told = evaluation["unlike_training"]
    assert [words in text for words, text in zip(("dim", "crowded"), told, strict=True)] == [
        True
    ] * 2
    logs = run.folder / "logs/v/identity"
    assert "nothing this dim" in (logs / f"predict_tile/{FULL}.log").read_text()
    assert "nothing this crowded" in (logs / "evaluate_cells.log").read_text()
    page = run.path("v/comparison.html").read_text()
    assert "nothing this dim" in page
    assert "40.6% of the volume is tissue" in page


def test_a_changed_card_of_an_old_date_and_another_mask_predict_anew(run, tmp_path):
    project = run.copy(tmp_path / "copy")
    assert project.jobs() == {}
    content = project.config
    content["volumes"]["v"]["tissue"] = "none"
    (project.folder / "my.yaml").write_text(yaml.safe_dump(content))
    assert {"measure_volume", "predict_tile"} <= set(project.jobs())
    project.snakemake("predict")
    stored = project.path(f"v/identity/predictions/{AIR}.json").read_text()
    assert (
        json.loads(stored)["identity"]["statistics"]
        not in run.path(f"v/identity/predictions/{AIR}.json").read_text()
    )
