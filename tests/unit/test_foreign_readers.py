"""Images of probabilities in readers and validators of others; a missing one is skipped."""

import io
import json
import zlib

import numpy as np
import pytest

from voxmill.tiles.export_tiff import export_tiff
from voxmill.tiles.plan import Plan, PlannedVolume, write_plan
from voxmill.tiles.predicted import PlannedImage, write_row_manifest
from voxmill.tiles.stitch_volume import stitch_volume
from voxmill.volumes.pyramid import reduce_mean, write_row

SHAPE, SIZE_UM = (9, 40, 530), (2.0, 1.0, 1.0)
STORAGE = {"dtype": "uint8", "compression": "zstd"}


@pytest.fixture(scope="module")
def voxels():
    return np.random.default_rng(5).integers(0, 255, SHAPE, np.uint8)


@pytest.fixture(scope="module")
def image(tmp_path_factory, voxels):
    """A stitched image of three levels."""
    folder = tmp_path_factory.mktemp("image")
    plan = Plan(PlannedVolume(SHAPE, "uint16", SIZE_UM), "f", (4, 40, 256), (0, 0, 0))
    write_plan(folder / "plan.json", plan)
    path = folder / "probability.ome.zarr"
    planned = PlannedImage.planned(path, plan, STORAGE)
    manifests = []
    for number, (level, array) in enumerate(zip(planned.levels, planned.arrays, strict=True)):
        for row in range(array.shards[0]):
            if number:
                shards = write_row(planned.arrays[number - 1], array, level, row, "mean")
            else:
                shards = [
                    array.write_shard(index, voxels[array.box(index).slices])
                    for index in array.indices(row)
                ]
            manifests.append(folder / f"{number}_{row}.json")
            write_row_manifest(manifests[-1], array, shards)
    stitch_volume(
        plan_path=folder / "plan.json", manifest_paths=manifests, image_path=path,
        storage=STORAGE, network="n", model="m",
    )  # fmt: skip
    return path


def test_ome_zarr_models_finds_the_image_valid(image):
    models = pytest.importorskip("ome_zarr_models.v05")
    zarr = pytest.importorskip("zarr")
    checked = models.Image.from_zarr(zarr.open_group(str(image), mode="r"))
    (multiscale,) = checked.ome_attributes.multiscales
    assert [axis.name for axis in multiscale.axes] == ["z", "y", "x"]
    assert {axis.unit for axis in multiscale.axes} == {"micrometer"}
    assert [dataset.path for dataset in multiscale.datasets] == ["0", "1", "2"]


def test_napari_shows_all_levels_in_their_places(image, voxels):
    plugin = pytest.importorskip("napari_ome_zarr")
    ((levels, settings, kind),) = plugin.napari_get_reader(str(image))(str(image))
    assert kind == "image"
    half = reduce_mean(voxels, (1, 2, 2))
    expected = [voxels, half, reduce_mean(half, (2, 2, 2))]
    assert len(levels) == len(expected)
    for found, level in zip(levels, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(found), level)
    assert settings["name"] == "n: probability"
    assert tuple(settings["scale"]) == SIZE_UM
    assert list(settings["contrast_limits"]) == [0, 255]


def test_neuroglancer_serves_the_array(image, voxels):
    neuroglancer = pytest.importorskip("neuroglancer")
    import tensorstore

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{image}/0/"}}
    space = neuroglancer.CoordinateSpace(names=["z", "y", "x"], units="um", scales=SIZE_UM)
    volume = neuroglancer.LocalVolume(tensorstore.open(spec).result(), dimensions=space)
    assert tuple(volume.shape) == SHAPE
    start, end = (1, 2, 300), (3, 10, 310)
    data, _ = volume.get_encoded_subvolume(
        data_format="npz", start=np.array(start), end=np.array(end), scale_key="1,1,1"
    )
    found = np.load(io.BytesIO(zlib.decompress(data)))
    np.testing.assert_array_equal(found, voxels[1:3, 2:10, 300:310])


def test_ome_types_finds_the_tiff_valid(image, tmp_path):
    ome_types = pytest.importorskip("ome_types")
    export_tiff(image_path=image / "zarr.json", output_path=tmp_path / "p.ome.tif")
    pixels = ome_types.from_tiff(tmp_path / "p.ome.tif").images[0].pixels
    assert (pixels.size_z, pixels.size_y, pixels.size_x) == SHAPE
    sizes = (pixels.physical_size_z, pixels.physical_size_y, pixels.physical_size_x)
    assert sizes == SIZE_UM
    assert pixels.physical_size_z_unit.value == "µm"
    assert pixels.type.value == "uint8"


def test_the_metadata_are_those_of_the_specification(image):
    ome = json.loads((image / "zarr.json").read_text())["attributes"]["ome"]
    (multiscale,) = ome["multiscales"]
    assert (ome["version"], multiscale["type"]) == ("0.5", "mean")
    scales = [dataset["coordinateTransformations"][0] for dataset in multiscale["datasets"]]
    assert [scale["scale"] for scale in scales] == [[2, 1, 1], [2, 2, 2], [4, 4, 4]]
    (channel,) = ome["omero"]["channels"]
    assert channel["label"] == "probability"
    assert channel["window"] == {"min": 0, "max": 255, "start": 0, "end": 255}
