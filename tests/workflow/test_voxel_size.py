"""A volume of other voxels than its model's: refused, or resampled to them on reading."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from tests.workflow.conftest import CELLS, SIZE_UM, make_project, make_volume
from voxmill.cells.table import PLACE

UM = ["z_um", "y_um", "x_um"]
# Each voxel of the known volume cut into 2 x 2 x 2: their mean is that voxel again.
HALF_UM = [edge / 2 for edge in SIZE_UM]


@pytest.fixture
def halved(tmp_path):
    """The known volume at half of the voxel size that its model was trained at."""
    project = make_project(tmp_path / "halved")
    fine = make_volume().repeat(2, 0).repeat(2, 1).repeat(2, 2)
    tifffile.imwrite(project.folder / "v.tif", fine)
    rows = "".join(f"{2 * z + 0.5},{2 * y + 0.5},{2 * x + 0.5}\n" for z, y, x in CELLS)
    (project.folder / "truth.csv").write_text("z_vox,y_vox,x_vox\n" + rows)
    card = project.folder / "models" / "identity.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"voxel_size_um": SIZE_UM}))
    volume = project.config["volumes"]["v"] | {"voxel_size_um": HALF_UM}
    project.configure(volumes={"v": volume})
    return project


def read_cells(project):
    """Cells in an order that the last digit does not decide."""
    cells = pd.read_csv(project.path("v/identity/cells.csv"))
    return cells.sort_values(["x_vox", "y_vox"], ignore_index=True)


def choose(project, **keys):
    project.configure(volumes={"v": project.config["volumes"]["v"] | keys})


def test_a_model_of_another_voxel_size_stops_before_any_job(halved):
    output = halved.snakemake("--dry-run", ok=False)
    assert "volumes.v.model_voxel_size: network identity was trained at" in output
    assert "2 x 1 x 1 um" in output
    assert "1 x 0.5 x 0.5 um" in output
    choose(halved, model_voxel_size="ignore")
    assert halved.jobs()["predict_tile"] == 32
    choose(halved, model_voxel_size="rescale")
    assert halved.jobs()["predict_tile"] == 4


def test_resampled_it_gives_the_same_cells_in_its_own_voxels(halved, finished):
    choose(halved, model_voxel_size="rescale", region="0:24, 0:40, 0:47")
    output = halved.snakemake()
    assert "tells no voxel size" not in output
    assert "tells no voxel size" in finished.output
    own, model = read_cells(halved), read_cells(finished)
    assert len(own) == len(CELLS)
    # The half of a voxel: voxel 3 of the model lies over 6 and 7, its centre at 6.5.
    np.testing.assert_allclose(own[PLACE], 2 * model[PLACE] + 0.5, atol=2e-4)
    np.testing.assert_allclose(own[UM], own[PLACE] * HALF_UM, atol=2e-4)
    assert own["score"].tolist() == model["score"].tolist()
    assert own["volume_um3"].tolist() == model["volume_um3"].tolist()

    evaluation = json.loads(halved.path("v/identity/evaluation.json").read_text())
    assert (evaluation["f1"], evaluation["volume_shape"]) == (1.0, [24, 40, 48])
    assert evaluation["region"] == [[0, 0, 0], [24, 40, 47]]
    of_tiles = pd.read_csv(halved.path("v/identity/evaluation.csv")).set_index("tile")
    before = pd.read_csv(finished.path("v/identity/evaluation.csv")).set_index("tile")
    assert of_tiles["n_truth"].to_dict() == before["n_truth"].to_dict()
    corners = of_tiles.loc["z0000_y0010_x0012", ["y_start", "x_start", "z_stop", "x_stop"]]
    assert corners.tolist() == [20, 24, 24, 48]

    plan = json.loads(halved.path("v/plan.json").read_text())
    assert plan["source"]["shape"] == [12, 20, 24]
    assert plan["source"]["own_shape"] == [24, 40, 48]
    # The image lies where the file does: its first voxel's centre is between two of the file's.
    image = json.loads(halved.path("v/identity/probability.ome.zarr/zarr.json").read_text())
    finest = image["attributes"]["ome"]["multiscales"][0]["datasets"][0]
    scale, translation = finest["coordinateTransformations"]
    assert (scale["scale"], translation["translation"]) == ([2, 1, 1], [0.5, 0.25, 0.25])
    # Difference of Gaussians works in the file's voxels, whatever the model's are.
    baseline = pd.read_csv(halved.path("v/baseline/cells.csv"))
    assert baseline["x_vox"].max() > 24
    assert halved.path("v/identity/overview.png").stat().st_size > 10_000
    assert json.loads(halved.path("v/identity/seams.json").read_text())["cells"] > 0
    assert halved.jobs() == {}

    # Another choice is another volume: everything is made anew.
    choose(halved, model_voxel_size="ignore")
    jobs = halved.jobs()
    assert (jobs["measure_volume"], jobs["plan_volume"], jobs["predict_tile"]) == (1, 1, 32)


def test_cells_of_a_told_diameter_are_as_large_as_the_model_knows_them(halved, finished):
    card = halved.folder / "models" / "identity.json"
    # 2 um are one voxel along z and two along y and x of the voxels of the model.
    known = {"voxel_size_um": None, "cell_diameter_vox": [1, 2, 2]}
    card.write_text(json.dumps(json.loads(card.read_text()) | known))
    assert "volumes.v.cell_diameter_um: network identity" in halved.snakemake("-n", ok=False)
    choose(halved, cell_diameter_um=2.0)
    halved.snakemake("results/v/identity/cells.csv")
    own, model = read_cells(halved), read_cells(finished)
    np.testing.assert_allclose(own[PLACE], 2 * model[PLACE] + 0.5, atol=2e-4)
