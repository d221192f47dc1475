"""The full-scale benchmark: its volume is of the phantoms it names, its table of the logs."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import full_scale

VOLUME, PART = (32, 48, 128), (16, 48, 64)


def test_phantoms_lie_side_by_side_with_their_cells(tmp_path):
    full_scale.make_volume(tmp_path, VOLUME, PART, 300.0, processes=1)
    volume = tifffile.imread(tmp_path / "volume.tif")
    cells = np.loadtxt(tmp_path / "cells.csv", delimiter=",", skiprows=1)
    origins = [(0, 0, 0), (0, 0, 64), (16, 0, 0), (16, 0, 64)]
    assert full_scale.part_origins(VOLUME, PART) == origins
    assert volume.shape == VOLUME
    expected = []
    for number, (z, y, x) in enumerate(origins):
        grey, points = full_scale.make_part(full_scale.FIRST_SEED + number, PART, 300.0)
        np.testing.assert_array_equal(volume[z : z + 16, y : y + 48, x : x + 64], grey)
        expected.append(points + np.array([z, y, x]))
    assert len(cells) > 0
    np.testing.assert_allclose(cells, np.concatenate(expected), atol=5e-4)


def test_a_volume_that_parts_do_not_fill_is_refused():
    with pytest.raises(SystemExit, match="expected multiples of --part"):
        full_scale.part_origins((32, 48, 100), PART)


def test_the_table_is_of_the_last_lines_of_the_logs(tmp_path):
    logs = tmp_path / "logs" / "full" / "cut_tile"
    logs.mkdir(parents=True)
    end = "2026-01-01 00:00:00,000 INFO cut_tile done in {} s, peak memory {} MiB\n"
    (logs / "a.log").write_text("cut_tile: voxmill 0.1.0\n" + end.format("2.50", 1000))
    (logs / "b.log").write_text(end.format("4.00", 500))
    (logs / "failed.log").write_text("ERROR cut_tile failed\n")
    table = full_scale.job_table(tmp_path)
    assert table.loc["cut_tile"].to_dict() == {
        "jobs": 2, "seconds": 6.5, "longest, s": 4.0, "peak memory, GB": 1.05
    }  # fmt: skip
    with pytest.raises(SystemExit, match="no job's log says that it is done"):
        full_scale.job_table(tmp_path / "elsewhere")
