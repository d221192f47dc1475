"""The overview shows the volume, the same as the network takes it, and the probability."""

import dataclasses

import numpy as np
import pytest
import tifffile

from voxmill.cells.table import table_of, write_cells
from voxmill.config.networks import MSDNetSettings
from voxmill.evaluation import draw_overview
from voxmill.evaluation.draw_overview import limits_of
from voxmill.geometry import VoxelSize
from voxmill.networks import build, models
from voxmill.volumes.grey_values import read_grey_values
from voxmill.volumes.measure_volume import measure_volume

SIZE = VoxelSize(1, 1, 1)


def test_the_normalised_planes_are_what_the_network_sees(tmp_path, monkeypatch):
    # A cell of 300 above the background, which rises from 100 to 5000 along x.
    grey = np.broadcast_to(np.linspace(100, 5000, 50), (20, 40, 50)).copy()
    grey += np.random.default_rng(0).normal(0, 20, grey.shape)
    grey[9:12, 19:22, 23:26] += 300
    tifffile.imwrite(tmp_path / "v.tif", grey.astype(np.uint16), photometric="minisblack")
    tifffile.imwrite(tmp_path / "p.tif", np.zeros(grey.shape, np.float32))
    write_cells(
        tmp_path / "c.csv", table_of(np.array([(10, 20, 24)]), np.ones(1), np.ones(1), SIZE)
    )
    normalisation = {"kind": "local", "background_um": 8.0}
    settings = MSDNetSettings(depth=1, width=1, dilations=(1,))
    card = models.ModelCard(
        "m", "msdnet", dataclasses.asdict(settings), normalisation=normalisation
    )
    models.save(tmp_path / "m.safetensors", build("msdnet", settings, 0), card)
    volume = {"path": str(tmp_path / "v.tif"), "voxel_size_um": tuple(SIZE)}
    logs = {"log_path": str(tmp_path / "log.txt")}
    statistics = str(tmp_path / "s.json")
    measure_volume(
        volume=volume, output_path=statistics, blocks_path=str(tmp_path / "b.npz"), **logs
    )
    figures = []
    monkeypatch.setattr(draw_overview.plt, "close", figures.append)
    draw_overview.draw_overview(
        volume=volume, probability_path=str(tmp_path / "p.tif"), cells_path=str(tmp_path / "c.csv"),
        matches_path=None, output_path=str(tmp_path / "o.png"), statistics_path=statistics,
        weights_path=str(tmp_path / "m.safetensors"), **logs,
    )  # fmt: skip
    drawn = [panel for panel in figures[0].axes if panel.images]
    assert [panel.get_title() for panel in drawn[3:6]] == [
        f"normalised, {plane}" for plane in ("xy", "xz", "yz")
    ]
    raw, normalised = (np.asarray(drawn[row].images[0].get_array()) for row in (0, 3))
    normaliser = read_grey_values(statistics).normaliser(normalisation)
    whole = tifffile.imread(tmp_path / "v.tif")
    # A slab of 4 um around plane 10.
    np.testing.assert_allclose(normalised, normaliser(whole, (0, 0, 0))[8:12].max(axis=0))
    # In the raw plane the bright end drowns the cell; normalised it stands out.
    assert raw[20, 24] < raw[:, 40:].min()
    assert normalised[20, 24] > normalised[:, 16:32].mean() + 0.1


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("probability", [0.2, 0.4], (0, 1)),
        # One value in a thousand, a bright speck, decides nothing.
        ("volume", [100] * 500 + [300] * 499 + [60000], (100, 300)),
        ("volume", [7] * 1000, (7, 8)),
        ("normalised", [-0.01, 0.01] * 500, (-0.01, 1)),
        ("normalised", [-9] * 500 + [9] * 500, (-1, 4)),
    ],
)
def test_limits_by_hand(name, values, expected):
    images = [np.array(values[:10], float)[None], np.array(values[10:], float)[None]]
    assert limits_of(name, images) == pytest.approx(expected)
