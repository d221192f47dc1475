"""Labels in files of other programs, read back by other packages: places agree in micrometres."""

import hashlib
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage

from voxmill.cells.colours import colour_of
from voxmill.cells.export_cells import export_cells
from voxmill.cells.export_table import export_table
from voxmill.cells.label_slab import STORAGE
from voxmill.cells.outline_files import MOST_PIXELS, write_outlines
from voxmill.cells.table import write_cells
from voxmill.geometry import Box, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.tiles.export_tiff import export_tiff
from voxmill.tiles.plan import Plan, PlannedVolume
from voxmill.tiles.predicted import PlannedImage
from voxmill.volumes import fingerprint, read_header
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.multiscale import write_image

SHAPE, SIZE = (6, 30, 300), VoxelSize(10.0, 1.0, 1.5)  # nearly ten to one
PLACES = {7: (2, 14, 20), 4_000_000_000: (3, 15, 40), 9: (1, 24, 290)}


def balls(radius_um=12.0):
    """A ball a cell; cell 9 has a hole in its plane, and a piece of its own."""
    labels = np.zeros(SHAPE, np.uint32)
    for name, place in PLACES.items():
        away = SIZE.to_um(np.indices(SHAPE).transpose(1, 2, 3, 0) - place)
        labels[(away**2).sum(axis=-1) < radius_um**2] = name
    labels[1, 24, 290] = 0
    labels[1, 2, 290] = 9
    return labels


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An image of labels and the table of its cells."""
    monkeypatch.chdir(tmp_path)
    store(balls(), SIZE)
    places = np.array(list(PLACES.values()), float)
    numbers = np.column_stack([places, SIZE.to_um(places)])
    cells = pd.DataFrame(numbers, columns=["z_vox", "y_vox", "x_vox", "z_um", "y_um", "x_um"])
    cells.insert(0, "id", list(PLACES))
    write_cells("cells.csv", cells.assign(score=0.9, volume_um3=100.0))
    return tmp_path


def store(labels, size, origin_um=(0.0, 0.0, 0.0)):
    plan = Plan(PlannedVolume(labels.shape, "uint16", size), "f", (6, 30, 128), (0, 0, 0))
    image = PlannedImage.planned("labels.ome.zarr", plan, STORAGE)
    for index in image.arrays[0].indices(0):
        image.arrays[0].write_shard(index, labels[image.arrays[0].box(index).slices])
    write_image(
        "labels.ome.zarr", image.arrays[:1], image.levels[:1], size, "cells", {}, "mode",
        {"shards_sha256": hashlib.sha256(labels.tobytes()).hexdigest()},
        {"source": {"image": "../probability.ome.zarr"}}, origin_um,
    )  # fmt: skip


def export(format, box=None, shape=SHAPE, size=SIZE, **images):
    export_cells.__wrapped__(
        format=format, cells_path="cells.csv", output_folder=f"export/{format}", shape=shape,
        voxel_size_um=size, images=images, labels_path="labels.ome.zarr/zarr.json",
        url="http://localhost:9000", box=box,
    )  # fmt: skip
    return Path("export", format)


def filled(roi, shape):
    """Pixels whose middle lies in a selection, as ImageJ fills it: even and odd loops."""
    from skimage.measure import points_in_poly

    middles = np.indices(shape).reshape(2, -1).T[:, ::-1] + 0.5
    inside = np.zeros(len(middles), int)
    for loop in roi.coordinates(multi=True):
        inside += points_in_poly(middles, loop)
    return (inside % 2 == 1).reshape(shape)


def test_outlines_hold_exactly_the_pixels_of_each_cell(folder):
    roifile = pytest.importorskip("roifile")
    rois = roifile.roiread(export("rois") / "cells.zip")
    labels, drawn = balls(), np.zeros(SHAPE, np.uint32)
    for roi in rois:
        plane, name = map(int, roi.name.split("-"))
        assert roi.position == plane, "from 1"
        assert roi.stroke_color == bytes([255, *colour_of(name)])
        mask = filled(roi, SHAPE[1:])
        np.testing.assert_array_equal(mask, labels[plane - 1] == name)
        drawn[plane - 1][mask] = name
    np.testing.assert_array_equal(drawn, labels)
    with_hole = next(roi for roi in rois if roi.name == "00002-9")
    assert len(with_hole.coordinates(multi=True)) == 3, "a ring has two loops, the piece has one"
    corners = next(roi for roi in rois if roi.name == "00003-7").coordinates()
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2 - 0.5
    at_um = pd.read_csv("cells.csv").set_index("id").loc[7, ["x_um", "y_um"]]
    np.testing.assert_allclose(middle * (SIZE.array[2], SIZE.array[1]), at_um, atol=0.1)


def test_outlines_of_other_labels_are_made_anew(folder, caplog):
    def again():
        with caplog.at_level(logging.INFO):
            export_cells(
                format="rois", cells_path="cells.csv", output_folder="export/rois", shape=SHAPE,
                voxel_size_um=SIZE, images={}, url="", labels_path="labels.ome.zarr/zarr.json",
                code="c",
            )  # fmt: skip
        return Path("export/rois/cells.zip").read_bytes()

    first = again()
    assert again() == first
    assert "kept, whole and made of the same" in caplog.text
    store(balls(9.0), SIZE)
    assert again() != first


def test_outlines_of_a_box_are_cut_at_its_faces(folder):
    roifile = pytest.importorskip("roifile")
    rois = roifile.roiread(export("rois", box="2:4, 5:30, 15:40") / "cells.zip")
    expected = np.zeros(SHAPE, bool)
    expected[2:4, 5:30, 15:40] = balls()[2:4, 5:30, 15:40] > 0
    drawn = np.zeros(SHAPE, bool)
    for roi in rois:
        drawn[roi.position - 1] |= filled(roi, SHAPE[1:])
    np.testing.assert_array_equal(drawn, expected)
    first = Path("export/rois/cells.zip").read_bytes()
    export("rois", box="2:4, 5:30, 15:40")
    assert Path("export/rois/cells.zip").read_bytes() == first


def test_labels_that_fill_a_plane_and_places_beyond_the_format(tmp_path):
    roifile = pytest.importorskip("roifile")
    full = np.full((1, 3, 4), 5, np.uint32)
    assert write_outlines(tmp_path / "full.zip", ArrayVolume(full), Box.from_shape(full.shape)) == 1
    (roi,) = roifile.roiread(tmp_path / "full.zip")
    assert filled(roi, (3, 4)).all()
    wide = ArrayVolume(np.zeros((1, 1, MOST_PIXELS + 1), np.uint32))
    with pytest.raises(VoxmillError, match=r"export.box: expected outlines at most 60535 pixels"):
        write_outlines(tmp_path / "wide.zip", wide, Box.from_shape(wide.shape))


def mesh_of(path):
    meshio = pytest.importorskip("meshio")
    mesh = meshio.read(path)
    (block,) = mesh.cells
    return mesh.points.astype(float), block.data, mesh.point_data


def signed_volume(points, triangles):
    """Above 0 where the corners of closed surfaces run against the clock, seen from outside."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    return np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6


def test_surfaces_lie_around_their_cells_in_micrometres(folder):
    labels, there = balls(), export("meshes")
    assert sorted(int(path.stem) for path in there.iterdir()) == sorted(PLACES)
    for name in PLACES:
        points, triangles, data = mesh_of(there / f"{name}.ply")
        zyx = points[:, ::-1]
        places = SIZE.to_um(np.argwhere(labels == name))
        # Half a voxel around the middles of the outermost voxels.
        np.testing.assert_allclose(zyx.min(axis=0), places.min(axis=0) - SIZE.array / 2, atol=1e-3)
        np.testing.assert_allclose(zyx.max(axis=0), places.max(axis=0) + SIZE.array / 2, atol=1e-3)
        volume = (labels == name).sum() * SIZE.volume_um3
        assert 0.6 * volume < signed_volume(points, triangles) < volume
        edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all(), "closed"
        # meshio takes bytes for signed ones.
        colour = [int(data[channel].view(np.uint8)[0]) for channel in ("red", "green", "blue")]
        assert tuple(colour) == colour_of(name)


def test_surfaces_of_a_box_and_of_resampled_labels(folder):
    there = export("meshes", box="0:6, 0:30, 0:30")
    assert [path.name for path in there.iterdir()] == ["7.ply"]
    # The labels' voxels are twice as large along y and x as those of the volume.
    own = VoxelSize(10.0, 0.5, 0.75)
    (again,) = export("meshes", "0:6, 0:60, 0:60", (6, 60, 600), own).iterdir()
    points, _, _ = mesh_of(again)
    cell = ndimage.find_objects((balls() == 7).astype(int))[0]
    first_um = [part.start * edge for part, edge in zip(cell, SIZE, strict=True)]
    face_um = np.subtract(first_um, SIZE.array / 2) + (SIZE.array - own.array) / 2
    np.testing.assert_allclose(points[:, ::-1].min(axis=0), face_um, atol=1e-3)


def test_neuroglancer_opens_image_probability_labels_and_cells_together(folder):
    neuroglancer = pytest.importorskip("neuroglancer")
    there = export("neuroglancer", image="v.ome.zarr", probability="p.ome.zarr")
    state = neuroglancer.ViewerState(json.loads((there / "state.json").read_text()))
    assert [(layer.name, layer.layer.type) for layer in state.layers] == [
        ("image", "image"), ("probability", "image"), ("labels", "segmentation"),
        ("cells", "annotation"),
    ]  # fmt: skip
    url = state.layers["labels"].source[0].url
    assert url == "zarr://http://localhost:9000/export/neuroglancer/labels"
    # What a server hands out under that address is the image of labels: at a cell's place, its id.
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(there / "labels", mode="r")
    (scale, *_) = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    from neuroglancer.read_precomputed_annotations import AnnotationReader

    reader = AnnotationReader(f"file://{there.resolve() / 'cells'}/")
    metres = [reader.coordinate_space[axis].scale for axis in "zyx"]
    for point in reader.get_within_spatial_bounds():
        place_um = point.point * np.array(metres) * 1e6
        found = group["0"][tuple(np.rint(place_um / scale["scale"]).astype(int))]
        assert found == (int(point.id) if int(point.id) != 9 else 0), "cell 9 has a hole there"


def test_neuroglancer_gets_a_copy_of_a_volume_of_another_format(folder):
    models = pytest.importorskip("ome_zarr_models.v05")
    zarr = pytest.importorskip("zarr")
    volume = np.random.default_rng(0).integers(100, 4000, SHAPE).astype(np.uint16)
    tifffile.imwrite("v.tif", volume, photometric="minisblack")
    source = {"path": "v.tif", "voxel_size_um": list(SIZE)}
    keywords = {
        "format": "neuroglancer", "cells_path": "cells.csv", "output_folder": "export/ng",
        "shape": SHAPE, "voxel_size_um": SIZE, "images": {"probability": "p.ome.zarr"}, "url": "",
        "labels_path": "labels.ome.zarr/zarr.json", "copied": source, "copied_path": "v.tif",
    }  # fmt: skip
    export_cells.__wrapped__(**keywords, fingerprint=fingerprint(read_header(**source)))
    state = json.loads(Path("export/ng/state.json").read_text())
    names = [layer["name"] for layer in state["layers"]]
    assert names == ["image", "probability", "labels", "cells"]
    low, high = state["layers"][0]["shaderControls"]["normalized"]["range"]
    assert 100 <= low < 1500 < 2500 < high <= 4000
    group = zarr.open_group("export/ng/image", mode="r")
    models.Image.from_zarr(group)
    np.testing.assert_array_equal(group["0"][:], volume)
    assert sorted(group.array_keys()) == ["0", "1", "2"]
    with pytest.raises(VoxmillError, match=r"v\.tif"):
        export_cells.__wrapped__(**keywords, fingerprint="of another volume")


def test_the_tiff_of_labels_has_them_at_all_levels(folder):
    export_tiff(image_path="labels.ome.zarr/zarr.json", output_path="labels.ome.tif", how="mode")
    labels = balls()
    with tifffile.TiffFile("labels.ome.tif") as tif:
        levels = tif.series[0].levels
        np.testing.assert_array_equal(levels[0].asarray(), labels)
        assert set(np.unique(levels[1].asarray())) <= set(np.unique(labels))
    ome_types = pytest.importorskip("ome_types")
    pixels = ome_types.from_tiff("labels.ome.tif").images[0].pixels
    assert pixels.type.value == "uint32"
    assert (pixels.physical_size_z, pixels.physical_size_y, pixels.physical_size_x) == tuple(SIZE)


@pytest.mark.parametrize(("format", "names"), [("rois", ["cells.zip"]), ("meshes", [])])
def test_no_cells_are_no_outlines_and_no_surfaces(folder, format, names):
    store(np.zeros(SHAPE, np.uint32), SIZE)
    assert [path.name for path in export(format).iterdir()] == names
    if names:
        with zipfile.ZipFile("export/rois/cells.zip") as archive:
            assert archive.namelist() == []


def test_a_box_that_is_no_part_of_the_volume_is_refused(folder):
    with pytest.raises(VoxmillError, match=r"export.box: expected a part of the volume of shape"):
        export("rois", box="0:6, 0:30, 0:301")


def test_parquet_has_the_numbers_of_the_table(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    text = "id,z_vox,y_vox,x_vox,score,volume_um3,sphericity,at_border\n"
    (tmp_path / "c.csv").write_text(text + "1,0.5,2.25,3,0.9,10.5,0.91,0\n7,1,2,3,1,0,,1\n")
    export_table(cells_path=tmp_path / "c.csv", output_path=tmp_path / "c.parquet")
    table = parquet.read_table(tmp_path / "c.parquet")
    assert table.column_names == text.strip().split(",")
    assert table.schema.field("id").type == "int64"
    assert table.to_pydict()["y_vox"] == [2.25, 2]
    assert table.to_pydict()["sphericity"] == [0.91, None]
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "c.parquet"), pd.read_csv(tmp_path / "c.csv")
    )
    (tmp_path / "c.csv").write_text("id,z_vox\n1,2\n")
    with pytest.raises(VoxmillError, match=r"expected the columns .* of a table of measured cells"):
        export_table.__wrapped__(cells_path=tmp_path / "c.csv", output_path=tmp_path / "x.parquet")
