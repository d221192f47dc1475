"""The benchmark of widths: settings, steps and times of its trainings."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from training_width import compare, settings_of, show

from tests.unit.test_training import TINY, make_source
from voxmill.geometry import Box


def test_settings_differ_in_width_and_steps_alone():
    changed = settings_of(3, 7, TINY)
    assert (changed.network["width"], changed.steps) == (3, 7)
    assert changed.network | {"width": 2} == TINY.network
    assert settings_of(2, TINY.steps, TINY).network == TINY.network


@pytest.mark.parametrize("widths", [(1, 2)])
def test_equal_steps_then_equal_time(widths):
    source = make_source(seed=0, validation=None)
    scored = make_source(seed=1, validation=Box((0, 0, 0), (24, 24, 40)))
    rows = list(compare([source, scored], widths, 4, 1, TINY))
    assert [(row["compared"], row["width"]) for row in rows] == [
        ("steps", 1), ("steps", 2), ("time", 1), ("time", 2)
    ]  # fmt: skip
    assert [row["steps"] for row in rows[:2]] == [4, 4]
    assert rows[0]["parameters"] < rows[1]["parameters"]
    slowest = max(rows[:2], key=lambda row: row["seconds"])
    assert {**slowest, "compared": "time"} in rows[2:]
    assert all(0 <= row["f1"] <= 1 for row in rows)
    assert show(rows).splitlines()[2].startswith("| steps | 1 | ")
