"""Which places are suggested for a look, by hand-made probabilities."""

import numpy as np
import pytest

from voxmill.cells.find_cells import cells_of_volume
from voxmill.cells.suggest_cells import suggest
from voxmill.config.cells import CellSettings
from voxmill.runtime.errors import VoxmillError

SETTINGS = CellSettings(threshold=0.5, min_distance_um=3)
# Two sure cells, one that is hardly one, two that are hardly none, and one that is none.
PEAKS = {
    (5, 5, 5): 0.95, (5, 5, 25): 0.9, (5, 25, 5): 0.55,
    (5, 25, 25): 0.45, (15, 15, 15): 0.3, (25, 25, 25): 0.05,
}  # fmt: skip


class Array:
    """An array as a volume."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def read_window(self, start, stop):
        return self.array[tuple(map(slice, start, stop))]


@pytest.fixture
def probability():
    array = np.zeros((30, 30, 30), np.float32)
    for place, value in PEAKS.items():
        array[place] = value
    return Array(array)


def test_the_nearest_to_the_threshold_come_first(probability):
    cells = cells_of_volume(probability, SETTINGS, (1, 1, 1))
    assert len(cells) == 3
    found = suggest(probability, cells, SETTINGS, (1, 1, 1), number=2)
    assert found["kind"].tolist() == ["missed", "uncertain", "missed", "uncertain"] or found[
        "kind"
    ].tolist() == ["uncertain", "missed", "missed", "uncertain"]
    np.testing.assert_allclose(sorted(found["score"][:2]), [0.45, 0.55])
    np.testing.assert_allclose(found["score"][2:], [0.3, 0.9])
    places = [tuple(row) for row in found[["z_vox", "y_vox", "x_vox"]].round().astype(int).values]
    assert set(places) == {(5, 25, 5), (5, 25, 25), (15, 15, 15), (5, 5, 25)}


def test_a_maximum_beside_a_cell_is_no_miss(probability):
    probability.array[5, 5, 7] = 0.45
    cells = cells_of_volume(probability, SETTINGS, (1, 1, 1))
    found = suggest(probability, cells, SETTINGS, (1, 1, 1), number=10)
    missed = found[found["kind"] == "missed"]
    assert sorted(missed["score"].round(2)) == [0.3, 0.45]
    assert not ((missed["z_vox"] == 5) & (missed["y_vox"] == 5)).any()


def test_no_cells_and_no_number(probability):
    none = cells_of_volume(Array(np.zeros((9, 9, 9), np.float32)), SETTINGS, (1, 1, 1))
    assert len(suggest(Array(np.zeros((9, 9, 9), np.float32)), none, SETTINGS, (1, 1, 1), 5)) == 0
    with pytest.raises(VoxmillError, match="number: expected 1 or more, found 0"):
        suggest(probability, none, SETTINGS, (1, 1, 1), 0)
