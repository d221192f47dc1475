"""Files as other people have them: read rightly, or refused with what to do."""

import json
import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from voxmill.config.normalisation import Normalisation
from voxmill.config.settings import check
from voxmill.denoising import scans
from voxmill.denoising.write_derivatives import description
from voxmill.evaluation.check_ground_truth import check_ground_truth
from voxmill.evaluation.ground_truth import read_truth
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import sha256
from voxmill.volumes import open_volume, read_header
from voxmill.volumes.measure_volume import measure_volume
from voxmill.volumes.plausible import read_configured
from voxmill.workflow.places import check_places

PLANES = np.arange(4 * 6 * 7, dtype=np.uint16).reshape(4, 6, 7)


@pytest.fixture
def planes(tmp_path):
    for z, plane in enumerate(PLANES):
        tifffile.imwrite(tmp_path / f"b{z}.tif", plane)
    return tmp_path


def _inverted(folder):
    tifffile.imwrite(folder / "b3.tif", PLANES[3], photometric="miniswhite")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: os.mkfifo(folder / "b4.tif"), "b4.tif: .* a pipe"),
        (lambda folder: (folder / "b4.tif").mkdir(), "b4.tif: .* it is a folder"),
        (lambda folder: (folder / "b4.tif").symlink_to("b4.tif"), "b4.tif: .*symbolic links"),
        (lambda folder: (folder / "b4.png").touch(), "one type, found b0.tif and b4.png"),
        (_inverted, "b3.tif: .*0 is white"),
    ],
    ids=["pipe", "folder", "circle", "other type", "inverted"],
)
def test_a_folder_with_something_else_among_the_planes_is_refused(planes, change, message):
    change(planes)
    with pytest.raises(VoxmillError, match=message):
        read_header(planes)


def test_previews_and_other_files_beside_the_planes_are_left_out(planes):
    for name in ("b0.png", "Thumbs.db", "._b1.tif", "legend.png"):
        (planes / name).touch()
    with open_volume(read_header(planes)) as volume:
        np.testing.assert_array_equal(volume.read_window((0, 0, 0), PLANES.shape), PLANES)


@pytest.mark.parametrize("size", ["2,1,1", [2, 1], [2, -1, 1], {"z": 2}, True])
def test_a_foreign_voxel_size_in_a_description_is_no_voxel_size(tmp_path, size):
    text = json.dumps({"shape": PLANES.shape, "voxel_size_um": size})
    tifffile.imwrite(
        tmp_path / "v.tif", PLANES, description=text, metadata=None, photometric="minisblack"
    )
    header, _ = read_configured({"path": str(tmp_path / "v.tif")})
    assert header.voxel_size_um is None
    assert "voxel_size_um is" in header.voxel_size_source


def test_planes_that_the_ome_xml_leaves_out_are_noticed(tmp_path):
    path = tmp_path / "v.ome.tif"
    tifffile.imwrite(path, PLANES, metadata={"axes": "ZYX"})
    content = path.read_bytes()
    path.write_bytes(content.replace(b'SizeZ="4"', b'SizeZ="3"').replace(b't="4"', b't="3"'))
    with pytest.raises(VoxmillError, match="found 1 more planes"):
        read_header(path)


def _store(path, axes="zyx", scales=((2, 1, 1),), **more):
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for level in range(len(scales)):
        group.create_array(
            str(level), shape=PLANES.shape, chunks=(2, 3, 7), dtype="uint16",
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )[...] = PLANES  # fmt: skip
    names = {"z": "depth", "y": "height", "x": "width"} if axes.isupper() else {}
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [
                {"name": names.get(a, a), "type": "space", "unit": "micrometer"}
                for a in axes.lower()
            ],
            "datasets": [
                {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
                for i, scale in enumerate(scales)
            ],
        }
        | more
    ]
    return path


def test_chunks_under_other_names_than_the_metadata_say_are_no_missing_chunks(tmp_path):
    store = _store(tmp_path / "v.zarr")
    metadata = Path(store, "0", ".zarray")
    content = json.loads(metadata.read_text())
    del content["dimension_separator"]
    metadata.write_text(json.dumps(content))
    with pytest.raises(VoxmillError, match=r"chunks called as 0.0.0, .* found 0, 1"):
        read_header(store)


def test_levels_are_read_from_the_finest_on(tmp_path):
    store = _store(tmp_path / "v.zarr", scales=((2, 2, 2), (2, 1, 1)))
    with pytest.raises(VoxmillError, match="level 1 is finer than level 0"):
        read_header(store)
    assert read_header(store, level=1).voxel_size_um == (2, 1, 1)
    assert read_header(_store(tmp_path / "w.zarr", scales=((-2, 1, 1),))).voxel_size_um is None


def test_axes_called_width_height_and_depth_are_known(tmp_path):
    assert read_header(_store(tmp_path / "v.zarr", "XYZ")).shape == PLANES.shape[::-1]


def test_a_later_version_of_ome_zarr_is_named(tmp_path):
    store = _store(tmp_path / "v.zarr", coordinateSystems=[], version="0.6")
    with pytest.raises(VoxmillError, match=r"version 0.6, .* is not read: expected 0.1 to 0.5"):
        read_header(store)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "git lfs pull"),
        ("id,Center of the object_0,a,b\n1,2,3,4\n", "found id, Center of the object_0, a, b"),
        ("z_vox,y_vox,x_vox\n-1,2,3\n", "Usual causes"),
    ],
    ids=["pointer", "blanks in names", "negative"],
)
def test_messages_about_tables_name_the_cause(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(VoxmillError, match=message):
        read_truth(path, None, (50, 60, 70), (5, 2, 1))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,2,3,5,4,3\n1,2,3,5,4,3\n9,2,3,45,4,3\n", "1 of 3 points are at the very place"),
        ("1,2,3,5,4,3\n9,2,3,90,4,3\n", r"line 3 voxels \[9.0, 2.0, 3.0\] and lengths"),
        ("1,2,3,5.9,4,3\n9,2,3,45,4,3\n", ""),
    ],
    ids=["twice", "two places", "rounded"],
)
def test_doubtful_tables_bring_a_warning(tmp_path, caplog, rows, message):
    path = tmp_path / "t.csv"
    path.write_text("z_vox,y_vox,x_vox,z_um,y_um,x_um\n" + rows)
    with caplog.at_level(logging.WARNING):
        check_ground_truth(
            truth_path=str(path), kind="points", shape=(50, 60, 70), voxel_size_um=(5, 2, 1),
            output_path=str(tmp_path / "truth.csv"), log_path=None,
        )  # fmt: skip
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == bool(message)
    if message:
        assert re.search(message, warnings[0])


@pytest.mark.parametrize("names", [("a", "A"), ("Tiles",), ("cut",), ("batches",)])
def test_networks_whose_folders_are_others_are_refused(names):
    networks = {name: {"weights": "m.safetensors"} for name in names}
    with pytest.raises(VoxmillError, match=r"expected (a name of its own|another name)"):
        check({"volumes": {"v": {"path": "v.tif"}}, "networks": networks})


@pytest.mark.parametrize("name", ["results", "results/v", "logs"])
def test_what_stands_in_the_way_of_a_folder_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    check_places(["v"])
    Path(name).parent.mkdir(exist_ok=True)
    for make, found in ((Path.touch, "a file"), (lambda p: p.symlink_to("no"), "a link to no")):
        make(Path(name))
        with pytest.raises(VoxmillError, match=f"^{name}: expected a folder .*{found}"):
            check_places(["v"])
        Path(name).unlink()


def test_the_raw_data_set_is_linked_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "my study"
    raw.mkdir()
    (raw / "dataset_description.json").write_text("{}")
    folder = Path("results/study/derivatives/voxmill")
    folder.mkdir(parents=True)
    assert description("my study", folder)["DatasetLinks"]["raw"] == "../../../../my%20study"
    assert description(raw, folder)["SourceDatasets"] == [{"URL": raw.as_uri()}]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "scan.nii.gz"}, "scans.s.path: scan.nii.gz .* it is a folder"),
        ({"bids": "text"}, "scans.s.bids: text: expected a BIDS folder, found a file"),
        ({"bids": "study"}, "scans.s.bids: study: 1 of 1 scans .* it is a folder"),
    ],
    ids=["path", "data set", "scan of a data set"],
)
def test_scans_that_are_folders_and_data_sets_that_are_files_are_refused(
    tmp_path, monkeypatch, entry, message
):
    monkeypatch.chdir(tmp_path)
    Path("scan.nii.gz").mkdir()
    Path("text").touch()
    Path("study/sub-01/anat/sub-01_T1w.nii.gz").mkdir(parents=True)
    Path("study/dataset_description.json").write_text("{}")
    with pytest.raises(VoxmillError, match=message):
        scans.load({"scans": {"s": entry}})


@pytest.mark.parametrize(
    ("normalisation", "message"),
    [
        ({"high": 90.0}, "card.normalisation.high: expected one of the percentiles 0.1, .* 90"),
        ({"low": 99.0, "high": 5.0}, "card.normalisation.low: expected less than high, 5"),
    ],
    ids=["not measured", "exchanged"],
)
def test_a_card_is_refused_before_any_tile_is_cut(normalisation, message):
    with pytest.raises(VoxmillError, match=message):
        Normalisation.from_dict(normalisation, key="card.normalisation")


def test_a_mask_of_tissue_counts_by_its_content(tmp_path):
    """Edited under its name, it was taken for the one that the statistics were made with."""
    planes = np.tile(PLANES, (1, 8, 1))
    tifffile.imwrite(tmp_path / "v.tif", planes, photometric="minisblack")

    def measured(rows):
        mask = np.zeros(planes.shape, np.uint8)
        mask[:, :rows] = 1
        tifffile.imwrite(tmp_path / "m.tif", mask, photometric="minisblack")
        measure_volume(
            volume={"path": str(tmp_path / "v.tif"), "voxel_size_um": [1, 1, 1]},
            output_path=str(tmp_path / "statistics.json"),
            blocks_path=str(tmp_path / "grey_blocks.npz"), tissue=str(tmp_path / "m.tif"),
            tissue_fingerprint=sha256(tmp_path / "m.tif"), code="c",
        )  # fmt: skip
        return json.loads((tmp_path / "statistics.json").read_text())["tissue"]["share"]

    assert measured(48) == 1
    assert measured(16) < 0.5
