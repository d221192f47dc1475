"""Several tiles in one prediction job, through whole runs of Snakemake."""

import json

import pytest
import tifffile

from tests.workflow.conftest import flip_a_bit, make_project, shard_of

TILES = ["z0000_y0000_x0000", "z0000_y0000_x0012", "z0000_y0010_x0000", "z0000_y0010_x0012"]
BATCHES = [TILES[0], TILES[3]]
NETWORK = "v/identity"


@pytest.fixture(scope="module")
def batched(tmp_path_factory):
    """A finished run of batches of three tiles: one whole, one of the last tile alone."""
    project = make_project(tmp_path_factory.mktemp("batched") / "project")
    project.configure(tiles={"per_job": 3}, evaluation={"baseline": False})
    project.output = project.snakemake()
    return project


@pytest.fixture
def copy(batched, tmp_path):
    return batched.copy(tmp_path / "copy")


def prediction(project, tile):
    return shard_of(project.path(NETWORK), tile)


def identity(project, tile):
    return project.path(f"{NETWORK}/predictions/{tile}.json")


def known(project, tile):
    """What is known about a tile's prediction, but for what tells files of two projects apart."""
    content = json.loads(identity(project, tile).read_text())
    of_file = {name: content["identity"].pop(name) for name in ("tile", "statistics")}
    assert all(of_file.values()) and content.pop("checksum")
    return content


def times(project):
    return {tile: prediction(project, tile).stat().st_mtime_ns for tile in TILES}


def times_of(project, tiles):
    return [prediction(project, tile).stat().st_mtime_ns for tile in tiles]


def damage_tile(path):
    """Flip a bit of a tile's last voxel."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[-1]
        position = page.dataoffsets[0] + page.databytecounts[0] - 1
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def log(project, batch):
    return (project.folder / f"logs/v/identity/predict_batch/{batch}.log").read_text()


def test_the_same_files_as_with_a_job_for_each_tile(batched, finished):
    for tile in TILES:
        assert prediction(batched, tile).read_bytes() == prediction(finished, tile).read_bytes()
        assert known(batched, tile) == known(finished, tile)
    cells = f"{NETWORK}/cells.csv"
    assert batched.path(cells).read_bytes() == finished.path(cells).read_bytes()


def test_one_job_loads_the_model_once_for_its_tiles(batched):
    assert "predict_batch 2" in " ".join(batched.output.split())
    text = log(batched, BATCHES[0])
    assert [text.count(f"predicted {tile}") for tile in TILES] == [1, 1, 1, 0]
    assert text.count("predict_batch: voxmill") == 1
    manifest = json.loads(batched.path(f"{NETWORK}/batches/{BATCHES[0]}.json").read_text())
    assert [tile["name"] for tile in manifest["tiles"]] == TILES[:3]
    sizes = [prediction(batched, tile).stat().st_size for tile in TILES[:3]]
    assert [tile["shard"]["bytes"] for tile in manifest["tiles"]] == sizes


def test_a_second_run_finds_nothing_to_do(copy):
    assert copy.jobs() == {}


def test_a_lost_identity_or_shard_is_made_again_by_its_job_which_keeps_the_others(copy):
    before = prediction(copy, TILES[1]).read_bytes()
    kept = times(copy)
    identity(copy, TILES[0]).unlink()
    prediction(copy, TILES[1]).unlink()
    assert copy.jobs("predict") == {"predict": 1, "predict_batch": 1}
    copy.snakemake("predict", "stitch")
    assert "1 of 3 tiles are predicted already" in log(copy, BATCHES[0])
    assert prediction(copy, TILES[1]).read_bytes() == before
    assert times_of(copy, TILES[2:]) == [kept[tile] for tile in TILES[2:]]
    assert copy.jobs("predict", "stitch") == {}


def test_a_lost_tile_is_cut_again_alone(copy):
    folder = copy.path("v/tiles")
    kept = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    predictions = times(copy)
    (folder / f"{TILES[1]}.tif").unlink()
    jobs = copy.jobs()
    assert (jobs["cut_tiles"], jobs["predict_batch"]) == (1, 1)
    said = copy.snakemake("tiles", "stitch")
    assert "results/v/tiles" not in said  # was told by the dry run
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {name for name in kept if after[name] != kept[name]} == {f"{TILES[1]}.tif"}
    assert times(copy) == predictions
    assert copy.jobs("tiles", "stitch") == {}


@pytest.mark.parametrize("keep", [pytest.param("until-predicted", marks=pytest.mark.slow), "none"])
def test_tiles_that_are_not_kept_give_the_same(batched, tmp_path, keep):
    project = make_project(tmp_path / "project")
    project.configure(
        tiles={"per_job": 3, "keep": keep}, evaluation={"baseline": False},
        prediction={"device": "cpu"},
    )  # fmt: skip
    said = project.snakemake("stitch")
    assert ("cut_tiles" in said) == (keep == "until-predicted")
    for tile in TILES:
        assert prediction(project, tile).read_bytes() == prediction(batched, tile).read_bytes()
        assert known(project, tile) == known(batched, tile)
    assert not project.path("v/tiles").exists()
    assert [*project.path("v").glob("cut/*")] == []
    assert project.jobs("stitch") == {}
    prediction(project, TILES[3]).unlink()
    assert project.jobs("stitch").get("cut_tiles", 0) == (keep == "until-predicted")
    project.snakemake("predict")
    assert prediction(project, TILES[3]).exists()


def test_a_stopped_job_goes_on_at_the_first_tile_that_is_not_whole(copy):
    copy.path(f"{NETWORK}/batches/{BATCHES[0]}.json").unlink()
    kept = times(copy)
    flip_a_bit(prediction(copy, TILES[1]))
    prediction(copy, TILES[2]).unlink()
    copy.snakemake("stitch")
    assert "1 of 3 tiles are predicted already" in log(copy, BATCHES[0])
    assert {t: times(copy)[t] == kept[t] for t in TILES} == dict(
        zip(TILES, [True, False, False, True], strict=True)
    )
    assert copy.jobs("stitch") == {}


def test_tiles_predicted_one_by_one_are_kept_in_batches(finished, tmp_path):
    project = finished.copy(tmp_path / "one-by-one")
    kept = times(project)
    project.configure(tiles={"per_job": 2})
    project.snakemake("predict")
    assert times(project) == kept


def test_forced_all_are_kept_and_with_other_settings_made_anew(copy):
    kept = times(copy)
    copy.configure(prediction={"backend": "torch"})
    copy.snakemake("--forcerun", "predict_batch", "--", "predict")
    # All backends give the same numbers in single precision.
    assert times(copy) == kept
    copy.configure(prediction={"backend": "torch", "precision": "bfloat16"})
    copy.snakemake("predict")
    assert f"predicted {TILES[0]}" in log(copy, BATCHES[0])
    copy.configure(stitching={"dtype": "float32"})
    copy.snakemake("predict")
    assert not any(times(copy)[tile] == kept[tile] for tile in TILES)


def test_a_failed_job_keeps_the_tiles_before_the_failure(copy):
    for path in copy.path(f"{NETWORK}/batches").iterdir():
        path.unlink()
    for tile in TILES[:3]:
        prediction(copy, tile).unlink()
    third = copy.path(f"v/tiles/{TILES[2]}.tif")
    whole = third.read_bytes()
    damage_tile(third)
    said = copy.snakemake("predict", ok=False)
    assert f"{TILES[2]}.tif: damaged" in said
    kept = times_of(copy, TILES[:2])
    third.write_bytes(whole)
    copy.snakemake("predict")
    assert times_of(copy, TILES[:2]) == kept
    assert "2 of 3 tiles are predicted already" in log(copy, BATCHES[0])
