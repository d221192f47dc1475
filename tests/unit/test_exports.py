"""Cells in files of other programs, read back by those programs' own packages."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from voxmill.cells.export_cells import export_cells
from voxmill.cells.neuroglancer import _LIMIT, write_annotations
from voxmill.cells.table import write_cells
from voxmill.config.export import ExportSection
from voxmill.geometry import VoxelSize
from voxmill.runtime.errors import VoxmillError

SIZE = VoxelSize(5.0, 2.0, 1.5)
SHAPE = (40, 60, 80)
# The first cell lies in the first plane, and rounds up along y and x.
PLACES = np.array([[0.2, 10.6, 20.7], [3.5, 0.0, 79.0], [39.0, 59.0, 0.4]])


def table(places: np.ndarray) -> pd.DataFrame:
    numbers = np.column_stack([places, SIZE.to_um(places)])
    cells = pd.DataFrame(numbers, columns=["z_vox", "y_vox", "x_vox", "z_um", "y_um", "x_um"])
    cells.insert(0, "id", np.arange(1, len(cells) + 1))
    return cells.assign(score=np.linspace(0.5, 1, len(cells)), volume_um3=100.0)


@pytest.fixture
def export(tmp_path, monkeypatch):
    """A function that exports cells and returns the folder."""
    monkeypatch.chdir(tmp_path)

    def run(format: str, places: np.ndarray = PLACES, images=None) -> Path:
        write_cells("cells.csv", table(places))
        export_cells(
            format=format,
            cells_path="cells.csv",
            output_folder=f"export/{format}",
            shape=SHAPE,
            voxel_size_um=SIZE,
            images=images or {},
            url="http://localhost:9000/",
        )
        return tmp_path / "export" / format

    return run


def test_napari_reads_places_in_micrometres_and_properties(export):
    pytest.importorskip("napari")
    from napari_builtins.io import csv_to_layer_data

    points, attributes, kind = csv_to_layer_data(str(export("napari") / "cells.csv"))
    assert kind == "points"
    np.testing.assert_allclose(points, SIZE.to_um(PLACES), atol=1e-4)
    np.testing.assert_allclose(attributes["properties"]["score"].astype(float), [0.5, 0.75, 1])


def test_brainglobe_reads_the_nearest_voxels_those_of_the_first_plane_too(export):
    pytest.importorskip("brainglobe_utils")
    from brainglobe_utils.IO.cells import get_cells

    folder = export("brainglobe")
    cells = get_cells(folder / "cells.xml", cells_only=True)
    assert [(c.z, c.y, c.x) for c in cells] == [(0, 11, 21), (4, 0, 79), (39, 59, 0)]
    points = pd.read_csv(folder / "points.csv")
    assert points.type.tolist() == [2, 2, 2]  # as its cells_to_csv writes them
    np.testing.assert_allclose(points[["z", "y", "x"]], PLACES, atol=1e-4)


def test_imagej_points_lie_in_their_planes(export):
    roifile = pytest.importorskip("roifile")
    roi = roifile.roiread(export("fiji") / "cells.roi")
    assert roi.roitype == roifile.ROI_TYPE.POINT
    assert roi.counter_positions.tolist() == [1, 5, 40]  # planes from 1; 3.5 is rounded to even
    np.testing.assert_allclose(roi.coordinates() - 0.5, PLACES[:, [2, 1]], atol=1e-4)


def test_neuroglancer_reads_all_annotations(export):
    pytest.importorskip("neuroglancer")
    from neuroglancer.read_precomputed_annotations import AnnotationReader

    reader = AnnotationReader(f"file://{export('neuroglancer') / 'cells'}/")
    found = sorted(reader.get_within_spatial_bounds(), key=lambda point: int(point.id))
    assert [int(point.id) for point in found] == [1, 2, 3]
    np.testing.assert_allclose([point.point for point in found], PLACES, atol=1e-5)
    assert [float(value) for value in reader.by_id[2].props] == [0.75]
    scales = np.array([reader.coordinate_space[axis].scale for axis in "zyx"])
    np.testing.assert_allclose(PLACES * scales * 1e6, SIZE.to_um(PLACES))


def test_neuroglancer_state_is_read_and_names_every_layer(export, tmp_path):
    neuroglancer = pytest.importorskip("neuroglancer")
    (tmp_path / "p.ome.zarr").mkdir()
    folder = export("neuroglancer", images={"probability": "p.ome.zarr"})
    state = neuroglancer.ViewerState(json.loads((folder / "state.json").read_text()))
    assert [(layer.name, layer.layer.type) for layer in state.layers] == [
        ("probability", "image"),
        ("cells", "annotation"),
    ]
    base = "http://localhost:9000/export/neuroglancer"
    assert state.layers["probability"].source[0].url == f"zarr://{base}/probability"
    assert state.layers["cells"].source[0].url == f"precomputed://{base}/cells"
    assert (folder / "probability").resolve() == tmp_path / "p.ome.zarr"


def test_spatial_index_holds_each_annotation_once_and_no_full_cells(tmp_path):
    pytest.importorskip("neuroglancer")
    from neuroglancer.read_precomputed_annotations import AnnotationReader

    count = 3 * _LIMIT
    places = np.random.default_rng(1).uniform(-0.5, np.array(SHAPE) - 0.5, (count, 3))
    write_annotations(tmp_path, table(places), SHAPE, SIZE)
    reader = AnnotationReader(f"file://{tmp_path}/")
    assert len(reader.spatial) > 1
    found = [int(point.id) for point in reader.get_within_spatial_bounds()]
    assert sorted(found) == list(range(1, count + 1))
    corner = list(reader.get_within_spatial_bounds(lower_bound=[0] * 3, upper_bound=[9] * 3))
    assert len(corner) == np.all((places >= 0) & (places <= 9), axis=1).sum()
    for level, spatial in enumerate(reader.spatial):
        grid = spatial.metadata["grid_shape"]
        cells = [spatial.get(place).result() or [] for place in np.ndindex(*grid)]
        assert max(map(len, cells)) <= _LIMIT, level


@pytest.mark.parametrize("format", ["napari", "brainglobe", "neuroglancer", "fiji"])
def test_no_cells_make_readable_files(export, format):
    folder = export(format, np.zeros((0, 3)))
    assert folder.is_dir()
    if format == "neuroglancer":
        info = json.loads((folder / "cells" / "info").read_text())
        assert info["annotation_type"] == "POINT"


def test_a_second_export_replaces_the_first(export):
    first = export("napari")
    (first / "old").write_text("x")
    assert not (export("napari") / "old").exists()


def test_unknown_format_and_broken_table_are_refused(export, tmp_path, capsys):
    with pytest.raises(SystemExit):
        export("imaris")
    assert "expected one of napari, brainglobe" in capsys.readouterr().err
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit):
        export_cells(
            format="napari", cells_path="bad.csv", output_folder="x", shape=SHAPE,
            voxel_size_um=SIZE, images={}, url="http://x",
        )  # fmt: skip
    assert "bad.csv: expected the columns id" in capsys.readouterr().err


def test_settings_name_what_is_expected():
    with pytest.raises(VoxmillError, match="formats"):
        ExportSection.from_dict({"formats": ["imaris"]})
    with pytest.raises(VoxmillError, match="url"):
        ExportSection.from_dict({"url": "127.0.0.1"})


def test_keys_of_the_index_are_compressed_morton_codes():
    """By the example of the format: bits of the axes in turn, left out where an axis is short."""
    from voxmill.cells.neuroglancer import _morton

    grid = np.array([4, 2, 1])
    index = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 0, 0], [3, 1, 0]])
    assert _morton(index, grid).tolist() == [0, 1, 2, 4, 7]
