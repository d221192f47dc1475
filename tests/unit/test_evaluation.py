"""Evaluation: hand-checkable cases, reference values, the rules at seams and regions' edges."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from voxmill.cells.table import COLUMNS
from voxmill.evaluation import metrics
from voxmill.evaluation.evaluate_cells import EvaluationSettings, evaluate, evaluate_cells, table
from voxmill.evaluation.matches import Frame, near_seams, tile_of_points
from voxmill.geometry import Box, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json
from voxmill.tiles.grid import Tile
from voxmill.tiles.plan import Plan, PlannedVolume, write_plan

SHAPE = (20, 20, 40)
UNIT = (1.0, 1.0, 1.0)
PLAN = Plan(PlannedVolume(SHAPE, "uint16", (2.0, 1.0, 1.0)), "f", (20, 20, 20), (0, 0, 0))
TILES = PLAN.tiles
A, B = (tile.name for tile in TILES)


def cells(points, scores=None):
    points = np.reshape(np.asarray(points, dtype=float), (-1, 3))
    frame = pd.DataFrame(points, columns=["z_vox", "y_vox", "x_vox"])
    frame.insert(0, "id", np.arange(1, len(frame) + 1))
    return frame.assign(score=0.9 if scores is None else scores)


def run(truth, found, scores=None, distance=2.0, size=UNIT, shape=SHAPE, tiles=(), **kwargs):
    checked = EvaluationSettings(distance, **kwargs)
    return evaluate(np.reshape(truth, (-1, 3)), cells(found, scores), checked, size, shape, tiles)


def on_a_line(*xs):
    return [[5, 5, x] for x in xs]


def test_a_case_checked_by_hand():
    """Three true, three found: two pairs at 1 and 2 um, one missed, one too many."""
    result = run(on_a_line(5, 15, 30), on_a_line(6, 17, 25)).results
    expected = {
        "n_truth": 3,
        "n_found": 3,
        "true_positives": 2,
        "false_positives": 1,
        "false_negatives": 1,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "f1": 2 / 3,
        "localisation_error_um": 1.5,
        "localisation_error_median_um": 1.5,
        "count_error": 0,
        "count_error_relative": 0.0,
    }
    assert {key: result[key] for key in expected} == pytest.approx(expected)


def test_the_count_error_is_found_minus_true():
    result = run(on_a_line(5, 15), on_a_line(5, 15, 25, 30, 35)).results
    assert (result["count_error"], result["count_error_relative"]) == (3, 1.5)
    result = run(on_a_line(5, 15), on_a_line(5)).results
    assert (result["count_error"], result["count_error_relative"]) == (-1, -0.5)


def test_localisation_error_is_in_micrometres():
    result = run([[5, 5, 5]], [[6, 5, 5]], size=(5.0, 1.6, 1.6), distance=6).results
    assert result["localisation_error_um"] == pytest.approx(5)
    assert run([[5, 5, 5]], [[6, 5, 5]], size=(5.0, 1.6, 1.6), distance=4).results["f1"] == 0


@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        ([], [], {"precision": None, "recall": None, "f1": None, "average_precision": None}),
        ([], [[1, 1, 1]], {"precision": 0, "recall": None, "f1": 0, "average_precision": None}),
        ([[1, 1, 1]], [], {"precision": None, "recall": 0, "f1": 0, "average_precision": 0}),
    ],
)
def test_empty_sets_are_null_and_never_nan(truth, found, expected):
    result = run(truth, found, distances_um=[1, 2], tiles=TILES)
    assert {key: result.results[key] for key in expected} == expected
    assert result.results["localisation_error_um"] is None
    json.dumps(result.results, allow_nan=False)
    assert len(result.matches) == len(truth) + len(found)
    assert " -" in table({"net": result.results})


def test_average_precision_equals_scikit_learn_where_matching_is_unambiguous():
    """Far-apart cells, every truth found: a detection is right or wrong by itself."""
    rng = np.random.default_rng(0)
    truth = np.stack(np.meshgrid(*[np.arange(5, 60, 10)] * 3), -1).reshape(-1, 3)
    false = truth[:150] + 5.0
    found = np.concatenate([truth + rng.uniform(-1, 1, truth.shape), false])
    correct = np.repeat([1, 0], [len(truth), len(false)])
    scores = np.round(rng.normal(0.4 + 0.2 * correct, 0.15), 2)  # rounded: with ties
    shape = (70, 70, 70)
    result = run(truth, found, scores, shape=shape).results
    assert result["average_precision"] == pytest.approx(average_precision_score(correct, scores))
    precision, recall, thresholds = precision_recall_curve(correct, scores)
    curve = result["f1_against_threshold"]
    assert len(thresholds) < metrics.CURVE_ROWS
    assert [row["threshold"] for row in curve] == pytest.approx(thresholds[::-1])
    assert [row["precision"] for row in curve] == pytest.approx(precision[-2::-1])
    assert [row["recall"] for row in curve] == pytest.approx(recall[-2::-1])
    best = max(curve, key=lambda row: row["f1"])
    assert result["best_threshold"] == best
    # True cells that nothing finds lower it by their share.
    missed = np.concatenate([truth, [[65, 65, 65]] * len(truth)])
    half = run(missed, found, scores, shape=shape).results["average_precision"]
    assert half == pytest.approx(average_precision_score(correct, scores) / 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(0, 12), st.sampled_from([3, 50]))
def test_the_curve_is_what_a_run_at_each_threshold_gives(seed, n_truth, n_found, levels):
    rng = np.random.default_rng(seed)
    truth, found = rng.uniform(0, 7, (n_truth, 3)), rng.uniform(0, 7, (n_found, 3))
    scores = rng.integers(1, levels, n_found) / levels
    curve = run(truth, found, scores).results["f1_against_threshold"]
    assert [row["threshold"] for row in curve] == sorted(set(scores), reverse=True)
    for row in curve:
        kept = scores >= row["threshold"]
        again = run(truth, found[kept], scores[kept]).results
        assert {key: again[key] for key in row if key != "threshold"} == {
            key: value for key, value in row.items() if key != "threshold"
        }


def test_a_long_curve_is_thinned_but_keeps_its_ends():
    rng = np.random.default_rng(2)
    scores = rng.random(900)
    points = rng.uniform(0, 19, (900, 3))
    result = run(points, points, scores).results
    curve = result["f1_against_threshold"]
    assert len(curve) == metrics.CURVE_ROWS
    assert (curve[0]["threshold"], curve[-1]["threshold"]) == (scores.max(), scores.min())
    assert result["best_threshold"]["threshold"] == scores.min()


def test_f1_against_distance():
    truth, found = on_a_line(5, 15, 30), on_a_line(6, 17, 33)
    curve = run(truth, found, distances_um=[0.5, 1, 2, 3]).results["f1_against_distance"]
    assert [row["distance_um"] for row in curve] == [0.5, 1, 2, 3]
    assert [row["f1"] for row in curve] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_tiles_hold_the_points_of_their_cores_and_add_up():
    """A pair over the seam counts where its true point is; its found point where that is."""
    truth, found = on_a_line(5, 19.4, 30, 35), on_a_line(5, 20.4, 33, 35, 12)
    rows = run(truth, found, tiles=TILES).tiles.set_index("tile")
    columns = ["n_truth", "n_found", "true_positives", "false_positives", "false_negatives"]
    assert rows.loc["all", columns].tolist() == [4, 5, 3, 2, 1]
    assert rows.loc[A, columns].tolist() == [2, 2, 2, 1, 0]
    assert rows.loc[B, columns].tolist() == [2, 3, 1, 1, 1]
    assert (rows.loc[[A, B], columns].sum() == rows.loc["all", columns]).all()
    assert rows.loc[B, "f1"] == pytest.approx(0.5)
    assert rows.loc[B, ["z_start", "x_start", "x_stop"]].tolist() == [0, 20, 40]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_rows_of_tiles_always_add_up(seed, limited):
    rng = np.random.default_rng(seed)
    truth, found = (rng.uniform(-0.25, 19.4, (n, 3)) * [1, 1, 2] for n in (30, 35))
    region = "3:17, 0:20, 11:29" if limited else None
    result = run(truth, found, distance=4, tiles=TILES, region=region)
    columns = ["n_truth", "n_found", "true_positives", "false_positives", "false_negatives"]
    rows = result.tiles.set_index("tile")[columns]
    assert (rows.iloc[1:].sum() == rows.loc["all"]).all()
    counts = result.matches["status"].value_counts()
    assert counts.get("TP", 0) == result.results["true_positives"]
    assert len(result.matches) == rows.loc["all", columns[2:]].sum()


def test_near_a_seam_and_in_the_interior():
    """The seam's plane is x = 19.5; the volume's own border is no seam."""
    truth = on_a_line(0, 17.4, 17.5, 21.5, 21.6, 39)
    found = on_a_line(0, 17.4, 21.5, 21.6, 39)
    seams = run(truth, found, tiles=TILES).results["seams"]
    assert seams["near"]["true_positives"] == 1
    assert seams["near"]["false_negatives"] == 1
    assert seams["interior"]["true_positives"] == 4
    assert seams["interior"]["f1"] == 1
    assert run(truth, found).results["seams"] is None


def test_tile_of_points_and_seams_of_a_grid_with_gaps():
    points = np.array([[0, 0, 0], [0, 0, 19.4], [0, 0, 19.5], [0, 0, 39.4], [-1, 0, 0]])
    assert tile_of_points(points, TILES).tolist() == [0, 0, 1, 1, -1]
    assert tile_of_points(points, TILES[1:]).tolist() == [-1, -1, 0, 0, -1]
    assert tile_of_points(points, []).tolist() == [-1] * 5
    assert tile_of_points(points[:0], TILES).tolist() == []
    frame = Frame(SHAPE, VoxelSize(1, 1, 2), Box.from_shape(SHAPE), TILES)
    near = near_seams(np.array([[0, 0, 18.6], [0, 0, 18.4], [0, 0, 20.4]]), frame, 2.0)
    assert near.tolist() == [True, False, True]


def test_region_of_interest_at_its_edge():
    """Region x 10:30. Inside are voxels 10 to 29; two micrometres beyond take part in matching."""
    truth = on_a_line(9, 20, 29, 31, 3)
    found = on_a_line(10, 20, 30, 29.4, 3)
    result = run(truth, found, region="0:20, 0:20, 10:30")
    # 9-10: truth outside, found inside: ignored. 20-20: true. 29-29.4 and 31-30: the first is
    # true, the second outside. 3-3: both outside.
    counts = {"true_positives": 2, "false_positives": 0, "false_negatives": 0}
    assert {key: result.results[key] for key in counts} == counts
    assert result.matches["x_vox"].tolist() == [20, 29.4]
    # A true point inside may have its found one outside: it is found.
    assert run(on_a_line(29), on_a_line(31), region="0:20,0:20,10:30").results["f1"] == 1
    # Unmatched, each counts if it is inside itself.
    alone = run(on_a_line(10, 33), on_a_line(26, 36), region="0:20,0:20,10:30").results
    assert (alone["n_truth"], alone["n_found"], alone["f1"]) == (1, 1, 0)
    assert result.results["region"] == [[0, 0, 10], [20, 20, 30]]


def test_region_limits_rows_of_tiles_and_coordinates_stay_absolute():
    result = run(on_a_line(25), on_a_line(25), tiles=TILES, region="0:20, 0:20, 22:30")
    assert result.tiles["tile"].tolist() == ["all", B]
    assert result.tiles.loc[0, ["x_start", "x_stop"]].tolist() == [22, 30]
    assert result.matches.loc[0, ["z_vox", "y_vox", "x_vox", "tile"]].tolist() == [5, 5, 25, B]


def test_a_region_in_the_curve_ends_where_the_whole_evaluation_stands():
    """Points inside alone, so that no largest matching can differ at the edge."""
    rng = np.random.default_rng(5)
    truth, found = rng.uniform(4, 15, (60, 3)), rng.uniform(4, 15, (70, 3))
    result = run(truth, found, rng.random(70), region="1:19, 1:19, 1:19").results
    last = result["f1_against_threshold"][-1]
    assert last["true_positives"] == result["true_positives"]
    assert last["false_positives"] == result["false_positives"]


def test_a_tile_beside_the_region_has_a_row_for_a_found_point_that_counts():
    result = run(on_a_line(20), on_a_line(19), tiles=TILES, region="0:20, 0:20, 20:30")
    rows = result.tiles.set_index("tile")
    assert rows["n_found"].tolist() == [1, 1, 0]
    assert rows["true_positives"].tolist() == [1, 0, 1]


def test_distance_to_a_box():
    box = Box((0, 0, 10), (20, 20, 30))
    points = np.array([[5, 5, 10], [5, 5, 9.5], [5, 5, 8.5], [-3.5, 5, 33.5]])
    distances = box.distance_um(points, VoxelSize(1, 1, 1))
    np.testing.assert_allclose(distances, [0, 0, 1, 5])
    assert box.distance_um(points[2:3], VoxelSize(1, 1, 4))[0] == 4


def scattered(seed=0, n=400, hit=0.8):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 19, (n, 3)) * [1, 1, 2] * 5
    keep = rng.random(n) < hit
    return truth, truth[keep] + 0.1, (100, 100, 200)


def test_bootstrap_draws_blocks_where_there_are_enough():
    truth, found, shape = scattered()
    result = run(truth, found, shape=shape).results
    interval = result["f1_interval"]
    assert interval["unit"] == "blocks"
    assert interval["units"] == 64
    assert interval["low"] < result["f1"] < interval["high"]
    assert interval["high"] - interval["low"] < 0.1
    assert run(truth, found, shape=shape).results["f1_interval"] == interval
    other = run(truth, found, shape=shape, seed=1).results["f1_interval"]
    assert other != interval
    tiled = [Tile(Box.from_shape(shape), Box.from_shape(shape))]
    assert run(truth, found, shape=shape, tiles=tiled).results["f1_interval"] == interval


def test_bootstrap_draws_points_where_blocks_are_few():
    interval = run(on_a_line(5, 15, 30), on_a_line(5, 15)).results["f1_interval"]
    assert interval["unit"] == "points"
    assert interval["units"] == 3
    assert run(on_a_line(5), on_a_line(5)).results["f1_interval"]["low"] == 1
    assert run(on_a_line(5), on_a_line(5), bootstrap_samples=0).results["f1_interval"] is None


def test_clustered_errors_widen_the_interval():
    """All misses in one corner against the same number spread out: same F1, less certain."""
    truth, _, shape = scattered(hit=1)
    order = np.argsort(truth.sum(axis=1))
    clustered = truth[order[80:]]
    spread = truth[np.random.default_rng(1).permutation(400)[80:]]
    widths = []
    for found in (clustered, spread):
        result = run(truth, found, shape=shape).results
        assert result["f1"] == pytest.approx(640 / 720)
        widths.append(result["f1_interval"]["high"] - result["f1_interval"]["low"])
    assert widths[0] > 1.5 * widths[1]


def test_matches_name_every_point_once():
    result = run(on_a_line(5, 15, 30), on_a_line(17, 25, 6), [0.5, 0.6, 0.7], tiles=TILES)
    rows = result.matches
    assert rows["status"].tolist() == ["TP", "TP", "FP", "FN"]
    assert rows["x_vox"].tolist() == [6, 17, 25, 30]
    assert rows["x_um"].tolist() == [6, 17, 25, 30]
    assert rows["truth_x_vox"].tolist()[:2] == [5, 15]
    assert rows["distance_um"].tolist()[:2] == [1, 2]
    assert rows["cell_id"].tolist()[:3] == [3, 1, 2]
    assert rows["truth_row"].tolist()[::3] == [1, 3]
    assert rows["score"].tolist()[:3] == [0.7, 0.5, 0.6]
    assert rows["tile"].tolist() == [A, A, B, B]
    assert rows.loc[2, ["truth_x_vox", "truth_row", "distance_um"]].isna().all()
    assert rows.loc[3, ["cell_id", "score", "distance_um"]].isna().all()


def test_every_metric_stands_in_the_results():
    results = run(on_a_line(5), on_a_line(5)).results
    assert set(metrics.METRICS) <= set(results)


@pytest.fixture
def job_files(tmp_path):
    write_plan(tmp_path / "plan.json", PLAN)
    (tmp_path / "truth.csv").write_text("z_vox,y_vox,x_vox\n5,5,5\n5,5,30\n")
    found = cells(on_a_line(6, 30), [0.7, 0.9]).reindex(columns=COLUMNS)
    found.to_csv(tmp_path / "cells.csv", index=False)
    names = {"plan": "plan.json", "truth": "truth.csv", "cells": "cells.csv"}
    names |= {"json": "evaluation.json", "csv": "evaluation.csv", "matches": "matches.csv"}
    return {f"{key}_path": tmp_path / name for key, name in names.items()}


def test_the_job_writes_its_files(job_files):
    section = {"max_distance_um": 2, "distances_um": [1], "region": None}
    evaluate_cells(**job_files, settings=section)
    results = read_json(job_files["json_path"])
    assert results["f1"] == 1
    assert results["settings"]["max_distance_um"] == 2
    rows = pd.read_csv(job_files["csv_path"])
    assert rows["tile"].tolist() == ["all", A, B]
    matches = pd.read_csv(job_files["matches_path"])
    assert matches["status"].tolist() == ["TP", "TP"]
    assert matches["z_um"].tolist() == [10, 10]
    first = [job_files[key].read_bytes() for key in ("json_path", "csv_path", "matches_path")]
    evaluate_cells(**job_files, settings=section)
    assert first == [job_files[k].read_bytes() for k in ("json_path", "csv_path", "matches_path")]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"max_distance_um": 2, "max_distance": 3}, "evaluation: unknown key 'max_distance'"),
        ({"max_distance_um": 0}, r"evaluation\.max_distance_um: expected a number > 0, found 0"),
    ],
)
def test_the_job_ends_with_a_message(job_files, capsys, section, expected):
    with pytest.raises(SystemExit):
        evaluate_cells(**job_files, settings=section)
    assert pd.Series([capsys.readouterr().err]).str.contains(expected).all()
    assert not job_files["json_path"].exists()


def test_cells_of_another_volume_are_refused(job_files, capsys):
    cells([[5, 5, 99]]).to_csv(job_files["cells_path"], index=False)
    with pytest.raises(SystemExit):
        evaluate_cells(**job_files, settings={"max_distance_um": 2})
    assert "cells.csv: expected points inside the volume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("max_distance_um", 0, "expected a number > 0, found 0"),
        ("max_distance_um", -1, "expected a number > 0, found -1"),
        ("max_distance_um", "5", "expected a number > 0, found '5'"),
        ("distances_um", [1, 0], r"expected one or more numbers > 0, found \[1, 0\]"),
        ("bootstrap_samples", -1, "expected an integer >= 0, found -1"),
        ("seed", 0.5, "expected an integer >= 0, found 0.5"),
    ],
)
def test_settings_out_of_range(key, value, expected):
    with pytest.raises(VoxmillError, match=rf"evaluation\.{key}: {expected}"):
        EvaluationSettings(**({"max_distance_um": 1.0} | {key: value}))


@pytest.mark.parametrize("region", ["1:2", "0:20, 0:20, 10:50", "5:5, 0:20, 0:20"])
def test_impossible_regions(region):
    with pytest.raises(VoxmillError, match=r"(box|region): expected"):
        run(on_a_line(5), on_a_line(5), region=region)


def test_table_side_by_side():
    network = run(on_a_line(5, 15), on_a_line(6, 15), tiles=TILES).results
    baseline = run(on_a_line(5, 15), on_a_line(25)).results
    lines = table({"phantom": network, "baseline": baseline}).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:5] == ["method", "true", "found", "precision", "recall"]
    assert lines[1].split()[:6] == ["phantom", "2", "2", "1.000", "1.000", "1.000"]
    assert lines[2].split()[:4] == ["baseline", "2", "1", "0.000"]
    assert len(max(lines, key=len)) <= 120
    assert table({}).splitlines() == [table({})]
