"""Contents decide, not dates: what is kept, what comes back, and what is refused by name."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile

from tests.workflow.conftest import ROOT, make_project, make_volume
from voxmill.tiles.plan import read_plan
from voxmill.volumes import read_tile

# Those that take long on a real volume.
KEEPING = ("measure_volume", "cut_tiles", "find_cells", "find_baseline_cells", "measure_seams")
# In each group no job reads what another makes, so that each rule runs for its own loss alone.
PRODUCTS = [
    {"plan.json": "plan_volume", "truth.csv": "check_ground_truth"},
    {"statistics.json": "measure_volume"},
    {"grey_blocks.npz": "measure_volume"},
    {
        "identity/seams.json": "measure_seams",
        "identity/cells.csv": "find_cells",
        "baseline/cells.csv": "find_baseline_cells",
    },
    {"identity/overview.png": "draw_overview", "comparison.html": "compare_methods"},
    {"identity/evaluation.json": "evaluate_cells"},
    {"identity/evaluation.csv": "evaluate_cells"},
    {"identity/matches.csv": "evaluate_cells"},
    {"baseline/evaluation.csv": "evaluate_cells"},
    {"baseline/matches.csv": "evaluate_cells"},
]


def contents(project):
    """Every product of a run, but what tells of dates and places."""
    return {
        path.relative_to(project.folder).as_posix(): path.read_bytes()
        for path in project.path("v").rglob("*")
        if path.is_file() and ".made" not in path.parts
    }


def kept(project):
    """Rules whose jobs say that they kept what was there."""
    logs = (project.folder / "logs").rglob("*.log")
    names = {path: path.parent.name for path in logs if "kept, whole" in path.read_text()}
    return {path.stem if path.stem in KEEPING else names[path] for path in names}


def command(project, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "voxmill", *arguments], cwd=project.folder, text=True,
        capture_output=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def flip(path):
    """As a disk does it: the date stays, so that nobody sees it but who reads the file."""
    content, date = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(date, date))


def test_without_the_records_of_snakemake_whole_results_are_kept(project):
    before = contents(project)
    shutil.rmtree(project.folder / ".snakemake")
    # In the order of a copy by hand: what was made last has the oldest date.
    files = sorted(project.path("v").rglob("*"), key=lambda path: -path.stat().st_mtime_ns)
    for number, path in enumerate(files):
        os.utime(path, (1_700_000_000 + number,) * 2)
    project.snakemake()
    assert contents(project) == before
    assert kept(project) == set(KEEPING)
    assert project.jobs() == {}


def test_without_the_records_an_edit_is_seen_still(project):
    cells = project.path("v/identity/cells.csv").read_text()
    shutil.rmtree(project.folder / ".snakemake")
    project.configure(cells={"threshold": 0.9999})
    project.snakemake("cells")
    assert project.path("v/identity/cells.csv").read_text() != cells
    assert kept(project) == {"measure_volume", "cut_tiles"}


def test_a_model_is_known_by_its_content_and_not_by_its_date(project):
    """Copied back with its old date, a card of other grey values or ranges is another model."""
    path = project.folder / "models" / "identity.json"
    card = json.loads(path.read_text())
    card["normalisation"]["high"] = 99.0
    path.write_text(json.dumps(card))
    os.utime(path, (1_000_000_000,) * 2)
    jobs = project.jobs()
    assert jobs["predict_tile"] == 4
    assert {"measure_seams", "evaluate_cells"} <= set(jobs)


def test_dates_of_scripts_count_for_nothing(project):
    """As in a new clone, or after a change of branch and back."""
    scripts = list((ROOT / "scripts").glob("*.py"))
    dates = {path: path.stat() for path in scripts}
    try:
        for path in scripts:
            os.utime(path)
        assert project.jobs() == {}
    finally:
        for path, date in dates.items():
            os.utime(path, ns=(date.st_atime_ns, date.st_mtime_ns))


def test_every_kind_of_product_is_missed_where_it_is_deleted(project):
    for group in PRODUCTS:
        away = {project.path(f"v/{name}"): project.path(f"v/{name}.away") for name in group}
        for path, there in away.items():
            path.rename(there)
        assert set(group.values()) <= set(project.jobs()), group
        for path, there in away.items():
            there.rename(path)
    assert project.jobs() == {}


def test_deleted_products_come_back_as_they_were(project):
    before = contents(project)
    for name in ("plan.json", "truth.csv", "identity/evaluation.csv", "baseline/matches.csv"):
        project.path(f"v/{name}").unlink()
    project.snakemake()
    assert contents(project) == before
    assert {"cut_tiles", "find_baseline_cells"} <= kept(project)
    assert project.jobs() == {}


def test_damaged_products_are_named_and_repaired(project):
    before = contents(project)
    damaged = ["v/truth.csv", "v/identity/cells.csv", "v/statistics.json", "v/identity/seams.json"]
    assert command(project, "check", "my.yaml").returncode == 0
    # A start that reads what Snakemake touched after its jobs: later ones go by dates and sizes.
    assert project.jobs() == {}
    for name in damaged:
        flip(project.path(name))
    project.configure(evaluation={"max_distance_um": 2.5})
    output = project.snakemake(ok=False)
    first = r"(truth\.csv|cells\.csv|statistics\.json)"
    assert re.search(rf"{first}: damaged, edited or of another run.*Delete it", output)
    project.configure(evaluation={"max_distance_um": 2})
    found = command(project, "check", "my.yaml")
    assert found.returncode == 1
    for name in damaged:
        assert f"broken   results/{name}: " in found.stdout
    assert command(project, "repair", "my.yaml").returncode == 0
    project.snakemake("--rerun-incomplete")
    assert contents(project) == before
    assert command(project, "check", "my.yaml").returncode == 0


def test_a_volume_replaced_while_a_run_goes_on_ends_it(tmp_path):
    project = make_project(tmp_path / "replaced")
    process = project.start("tiles")
    plan = project.path("v/plan.json")
    while not plan.exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)  # waiting for the plan, which the first tiles follow
    other = np.roll(make_volume(), 2, axis=2)
    tifffile.imwrite(project.folder / "new.tif", other)
    os.replace(project.folder / "new.tif", project.folder / "v.tif")
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0, output
    assert re.search(r"v\.tif: expected the volume that this run was planned with", output)
    project.snakemake("tiles")
    for tile in read_plan(plan).tiles:
        path = project.path(f"v/tiles/{tile.name}.tif")
        voxels = read_tile(path, tile.window.shape, "uint16", {"tile": tile.key})
        np.testing.assert_array_equal(voxels, other[tile.window.slices])


@pytest.mark.parametrize("where", ["first piece", "between the pieces"])
def test_a_changed_volume_is_seen_wherever_it_changed(project, where):
    volume = make_volume()
    volume[(0, 0, 0) if where == "first piece" else (7, 3, 11)] += 1
    tifffile.imwrite(project.folder / "v.tif", volume)
    jobs = project.jobs()
    assert jobs["measure_volume"] == 1
    assert jobs["cut_tiles"] == 4


def test_receipts_tell_what_made_a_table(project):
    receipt = json.loads(project.path("v/identity/.made/cells.csv.json").read_text())
    assert receipt["made_by"] == "find_cells"
    assert receipt["bytes"] == project.path("v/identity/cells.csv").stat().st_size
