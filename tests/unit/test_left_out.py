"""Leaving one volume out: counts, tuning on the others, and the table, by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import left_out

from voxmill.geometry import Box

SHAPE = (40, 40, 40)


def volume(name="a", points=((10, 10, 10), (20, 20, 20), (30, 30, 30)), regions=None):
    regions = regions or [Box.from_shape(SHAPE)]
    return left_out.Volume(name, SHAPE, np.array(points, float), regions, 2.0)


def test_points_outside_of_all_regions_are_dropped():
    regions = [Box((0, 0, 0), (20, 40, 40)), Box((20, 0, 0), (40, 20, 40))]
    points = np.array([[5, 30, 5], [25, 10, 5], [25, 30, 5.0]])
    assert volume(regions=regions).kept(points).tolist() == [True, True, False]
    assert volume().kept(np.zeros((0, 3))).shape == (0,)


def scored():
    """Three cells: two are found with 0.9 and 0.5, a false find has 0.7, another 0.2."""
    places = np.array([[10, 10, 11], [5, 5, 5], [20, 20, 20], [35, 5, 5.0]])
    return left_out.ScoredRun(volume(), places, np.array([0.9, 0.7, 0.5, 0.2]))


def test_counts_and_f1_at_each_threshold():
    run = scored()
    assert run.thresholds.tolist() == [0.2, 0.5, 0.7, 0.9]
    found, matched = run.counts
    assert found.tolist() == [4, 3, 2, 1] and matched.tolist() == [2, 2, 1, 1]
    assert run.f1 == pytest.approx([4 / 7, 4 / 6, 2 / 5, 2 / 4])
    assert run.f1_at(0.6) == pytest.approx(2 / 5)
    assert run.f1_at(0.95) == 0
    # Recall 1/3 at precision 1, then 2/3 at 2/3.
    assert run.average_precision() == pytest.approx(1 / 3 + 2 / 9)


def test_a_run_that_finds_anew_at_each_threshold_counts_the_same():
    run = scored()
    other = left_out.Run(run.volume, run.thresholds, run.find)
    assert [c.tolist() for c in other.counts] == [c.tolist() for c in run.counts]
    assert other.average_precision() == pytest.approx(run.average_precision())
    assert other.f1_at(0.56) == pytest.approx(4 / 6)


def test_scores_inside_and_at_the_border():
    points = np.array([[10, 10, 10], [1, 1, 1.0]])
    scores = left_out.scores_of(volume(points=((10, 10, 10), (1, 1, 1), (0, 39, 0))), points)
    assert (scores["f1"], scores["errors"], scores["found"]) == (0.8, 1, 2)
    assert (scores["f1_inside"], scores["cells_inside"]) == (1.0, 1)
    assert scores["f1_border"] == pytest.approx(2 / 3, abs=1e-4)


def runs():
    """Setting "good" is best at 0.5 on every volume, "bad" finds nothing; c wants 0.9."""
    places = volume().points
    wrong = np.array([[5, 30, 5], [5, 5, 30.0]])
    made = {}
    for name, low in (("a", 0.3), ("b", 0.3), ("c", 0.8)):
        points = np.concatenate([places, wrong])
        scores = np.array([0.9, 0.9, 0.5 if name != "c" else 0.9, low, low])
        made[name] = {
            "bad": left_out.ScoredRun(volume(name), wrong, np.array([0.6, 0.6])),
            "good": left_out.ScoredRun(volume(name), points, scores),
        }
    return made


def test_setting_and_threshold_come_from_the_other_volumes():
    setting, threshold, f1 = left_out.choose(runs(), "c")
    assert (setting, threshold, f1) == ("good", 0.5, 1.0)
    rows = left_out.leave_out(runs())
    # At 0.5, two false finds of c count; its own best is 0.9.
    assert rows["c"]["f1"] == 0.75 and rows["c"]["best_f1"] == 1.0
    assert rows["c"]["threshold"] == 0.5 and rows["c"]["best_threshold"] == 0.9
    assert left_out.choose(runs(), None)[0] == "good"


def test_the_table_begins_with_the_worst_volume():
    rows = {"network": left_out.leave_out(runs())}
    text = left_out.table(rows, {name: volume(name) for name in "abc"})
    lines = text.splitlines()
    order = sorted("abc", key=lambda name: rows["network"][name]["f1"])
    assert [line.split("|")[1].strip() for line in lines[2:5]] == order
    assert len({line.count("|") for line in lines}) == 1
    mean = np.mean([row["f1"] for row in rows["network"].values()])
    assert f"| {mean:.3f} |" in lines[-1]
