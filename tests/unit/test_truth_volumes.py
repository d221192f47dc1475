"""Ground truth in volumes: types, masks called labels, other orientations than the volume's."""

import itertools
import logging

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxmill.cells.components import label_equal
from voxmill.config.base import SettingError
from voxmill.config.volumes import GroundTruthSection
from voxmill.evaluation import truth_volumes
from voxmill.evaluation.check_ground_truth import check_ground_truth
from voxmill.evaluation.ground_truth import read_truth
from voxmill.runtime.errors import VoxmillError
from voxmill.training.open_sources import _mask_header
from voxmill.volumes import read_header

SHAPE = (12, 20, 24)
CELLS = [(5, 4, 3), (8, 12, 20), (2, 17, 9)]
SIZE_MM = (0.002, 0.003, 0.005)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(truth_volumes, "BLOCK_VOX", 8)


def labels_of(cells=CELLS, shape=SHAPE):
    array = np.zeros(shape, dtype=np.uint16)
    for number, cell in enumerate(cells, 1):
        array[cell] = number
    return array


def save_nifti(path, array_xyz, affine, unit="mm"):
    image = nibabel.Nifti1Image(array_xyz, affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def read(path, kind="labels", volume=None, shape=SHAPE):
    header = None if volume is None else read_header(volume)
    return read_truth(path, kind, shape, (1, 1, 1), volume=header).tolist()


def sorted_cells(cells=CELLS):
    return [list(map(float, cell)) for cell in sorted(cells)]


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "int64", "uint64", "int32", "uint32", "uint16", "int16"]
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".tif"])
def test_labels_of_any_type(tmp_path, dtype, suffix):
    path, array = tmp_path / f"labels{suffix}", labels_of().astype(dtype)
    if suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        nibabel.save(nibabel.Nifti1Image(array.T, np.eye(4), dtype=dtype), path)
    assert read(path) == sorted_cells()


def test_a_mask_with_a_fourth_axis_of_one(tmp_path):
    array = (labels_of() > 0).astype(np.uint8).T[..., None]
    path = save_nifti(tmp_path / "mask.nii.gz", array, np.diag([*SIZE_MM, 1]))
    assert read(path, "mask") == sorted_cells()


def test_equal_labels_are_pieces_of_their_own():
    values = np.array([[[3, 3, 7, 7, 0, 3], [0, 0, 3, 0, 0, 0]]])
    labels, n_labels = label_equal(values)
    assert n_labels == 3
    assert labels.tolist() == [[[1, 1, 2, 2, 0, 3], [0, 0, 1, 0, 0, 0]]]


@pytest.mark.parametrize(
    ("value", "cells"), [(255, CELLS), (1, CELLS), (65535, CELLS), (1, CELLS[:2]), (7, CELLS)]
)
def test_a_mask_called_labels_is_refused(tmp_path, value, cells):
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, np.where(labels_of(cells) > 0, value, 0).astype(np.uint16))
    match = rf"mask.tif: .*1 label \(such as {value}\) in {len(cells)} separate pieces.*kind: mask"
    with pytest.raises(VoxmillError, match=match):
        read(path)
    assert read(path, "mask") == sorted_cells(cells)


def test_classes_called_labels_are_refused(tmp_path):
    array = np.full(SHAPE, 2, np.uint8)
    array[labels_of([*CELLS, (10, 2, 2)]) > 0] = 1
    tifffile.imwrite(tmp_path / "classes.tif", array)
    with pytest.raises(VoxmillError, match=r"2 labels .* in 5 separate pieces.*save a mask"):
        read(tmp_path / "classes.tif")


def test_an_image_called_labels_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(truth_volumes, "MAX_PIECES", 100)
    image = np.random.default_rng(0).integers(1, 20, SHAPE).astype(np.uint16)
    tifffile.imwrite(tmp_path / "image.tif", image)
    with pytest.raises(VoxmillError, match=r"image\.tif: .*19 numbers in more than .*an image"):
        read(tmp_path / "image.tif")


def test_a_label_in_pieces_is_one_cell_and_mentioned(tmp_path, caplog):
    array = labels_of()
    # Two pieces at faces of blocks, and a cell over a corner of blocks, which is whole.
    array[8, 12, 23] = 2
    array[7:9, 7:9, 7:9] = 9
    tifffile.imwrite(tmp_path / "labels.tif", array)
    with caplog.at_level(logging.WARNING):
        points = read(tmp_path / "labels.tif")
    assert points == sorted_cells([(5, 4, 3), (8, 12, 21.5), (2, 17, 9), (7.5, 7.5, 7.5)])
    assert "1 of 4 labels are in several pieces (label 2 is in 2)" in caplog.text


def test_touching_cells_of_a_mask_and_inverted_masks_are_mentioned(tmp_path, caplog):
    array = labels_of()
    array[5, 4, 4] = 9
    tifffile.imwrite(tmp_path / "labels.tif", array)
    tifffile.imwrite(tmp_path / "inverted.tif", (array == 0).astype(np.uint8))
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path / "labels.tif", "mask")) == 3
    assert "voxels of different numbers touch" in caplog.text
    for kind in ("mask", "labels"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            read(tmp_path / "inverted.tif", kind)
        assert "one cell fills 100 % of the volume" in caplog.text


@pytest.mark.parametrize("value", [0.25, np.nan, -1.0])
@pytest.mark.parametrize("kind", ["mask", "labels"])
def test_probabilities_and_nan_are_neither_mask_nor_labels(tmp_path, value, kind):
    array = labels_of().astype(np.float32)
    array[0, 0, 0] = value
    tifffile.imwrite(tmp_path / "t.tif", array)
    with pytest.raises(VoxmillError, match=f"t.tif: expected .*whole numbers from 0, .*{value}"):
        read(tmp_path / "t.tif", kind)


def turned(array, affine, order, flips):
    """The same image with its axes in another order and direction, as nibabel writes it."""
    axes = np.array(list(zip(np.argsort(order), np.where(flips, -1, 1), strict=True)))
    image = nibabel.Nifti1Image(array, affine).as_reoriented(axes)
    return np.asarray(image.dataobj), image.affine


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
def test_a_truth_of_any_orientation_is_brought_into_the_volume(tmp_path, order, flips, caplog):
    affine = np.diag([*SIZE_MM, 1.0])
    affine[:3, 3] = (0.4, -0.3, 0.1)
    volume = save_nifti(tmp_path / "volume.nii", labels_of().T, affine)
    array, its_affine = turned(labels_of().T, affine, order, flips)
    truth = save_nifti(tmp_path / "truth.nii.gz", array, its_affine)
    with caplog.at_level(logging.WARNING):
        assert read(truth, "labels", volume) == sorted_cells()
    same = order == (0, 1, 2) and not any(flips)
    assert ("brought into the volume's frame" in caplog.text) != same
    for kind in ("mask", "voxels"):
        ones = save_nifti(tmp_path / "ones.nii", (array > 0).astype(np.uint8), its_affine)
        assert read(ones, kind, volume) == sorted_cells()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    volume=st.tuples(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3)),
    truth=st.tuples(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3)),
    angle=st.floats(-0.7, 0.7),
    corner=st.tuples(*[st.floats(-9, 9)] * 3),
)  # fmt: skip
def test_both_orientations_are_read(tmp_path, volume, truth, angle, corner):
    cosine, sine = np.cos(angle), np.sin(angle)
    affine = np.eye(4)
    affine[:3, :3] = [[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]] @ np.diag([0.2, 0.3, 0.5])
    affine[:3, 3] = corner
    array, of_volume = turned(labels_of().T, affine, *volume)
    save_nifti(tmp_path / "volume.nii", array, of_volume)
    shape = array.T.shape
    expected = sorted(map(tuple, np.argwhere(array.T > 0).tolist()))
    save_nifti(tmp_path / "truth.nii", *turned(labels_of().T, affine, *truth))
    points = read(tmp_path / "truth.nii", "labels", tmp_path / "volume.nii", shape)
    assert points == [list(map(float, point)) for point in expected]


def test_a_mirrored_truth_without_its_volume_is_refused(tmp_path):
    array, affine = turned(labels_of().T, np.diag([*SIZE_MM, 1.0]), (0, 1, 2), (True, False, False))
    truth = save_nifti(tmp_path / "truth.nii", array, affine)
    with pytest.raises(VoxmillError, match=r"truth.nii: .*found x- y\+ z\+ in its affine"):
        read(truth)


@pytest.mark.parametrize(
    "change",
    [
        lambda affine: affine @ np.diag([2.0, 2, 2, 1]),
        lambda affine: np.add(affine, [[0, 0, 0, 0.1], [0] * 4, [0] * 4, [0] * 4]),
        lambda affine: affine @ np.diag([-1.0, 1, 1, 1]),
        lambda affine: np.diag([-1.0, 1, 1, 1]),
    ],
    ids=["resampled", "elsewhere", "mirrored about 0", "mirrored, without a size"],
)
def test_a_truth_of_another_frame_is_refused(tmp_path, change):
    affine = np.diag([*SIZE_MM, 1.0])
    volume = save_nifti(tmp_path / "volume.nii", labels_of().T, affine)
    truth = save_nifti(tmp_path / "truth.nii", labels_of().T, change(affine))
    with pytest.raises(VoxmillError, match=r"truth\.nii: expected .* in the frame of its volume"):
        read(truth, "labels", volume)


@pytest.mark.parametrize(
    ("affine", "unit", "message"),
    [
        (np.eye(4), "mm", "looks like that of an array without one"),
        (np.diag([*SIZE_MM, 1.0]), "micron", "unit of length"),
        (np.diag([*SIZE_MM, 1.0]), "mm", "looks like that of an array without one"),
        (None, "mm", ""),
    ],
    ids=["identity", "another unit", "no origin", "no affine"],
)
def test_an_affine_that_a_tool_lost_is_mentioned(tmp_path, caplog, affine, unit, message):
    of_volume = np.diag([*SIZE_MM, 1.0])
    if unit == "mm":
        of_volume[:3, 3] = (4, 5, 6)
    volume = save_nifti(tmp_path / "volume.nii", labels_of().T, of_volume)
    truth = save_nifti(tmp_path / "truth.nii", labels_of().T, affine, unit)
    with caplog.at_level(logging.WARNING):
        assert read(truth, "labels", volume) == sorted_cells()
    assert message in caplog.text


def test_a_volume_without_an_affine_takes_voxels_as_they_are(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "volume.tif", labels_of())
    for directions, warns in (((-1, -1, 1), False), ((1, -1, 1), True)):
        truth = save_nifti(
            tmp_path / "truth.nii", labels_of().T, np.diag([*np.multiply(directions, 2.0), 1])
        )
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert read(truth, "labels", tmp_path / "volume.tif") == sorted_cells()
        assert ("the volume says nothing about its own" in caplog.text) == warns


def test_the_job_reads_the_volume_and_what_the_configuration_says(tmp_path):
    affine = np.diag([*SIZE_MM, 1.0])
    volume = save_nifti(tmp_path / "volume.nii", labels_of().T, affine)
    array, its_affine = turned(labels_of().T, affine, (0, 1, 2), (True, True, False))
    truth = save_nifti(tmp_path / "truth.nii", array, its_affine)
    common = {"shape": SHAPE, "voxel_size_um": (5, 3, 2), "output_path": tmp_path / "out.csv"}
    check_ground_truth(
        truth_path=truth,
        kind="labels",
        volume={"path": volume, "channel": None, "voxel_size_um": [5, 3, 2]},
        **common,
    )
    assert read_truth(tmp_path / "out.csv", None, SHAPE, (1, 1, 1)).tolist() == sorted_cells()
    (tmp_path / "cells.csv").write_text("6,5,4\n")
    check_ground_truth(
        truth_path=tmp_path / "cells.csv",
        kind="points",
        reading={"columns": [1, 2, 3], "units": "vox", "offset_vox": [-1, -1, -1]},
        volume=None,
        **common,
    )
    assert read_truth(tmp_path / "out.csv", None, SHAPE, (1, 1, 1)).tolist() == [[5, 4, 3]]


def test_a_training_mask_of_another_orientation_is_refused(tmp_path):
    affine = np.diag([*SIZE_MM, 1.0])
    volume = read_header(save_nifti(tmp_path / "volume.nii", labels_of().T, affine))
    assert _mask_header(volume.path, volume).shape == SHAPE
    turned_by = turned(labels_of().T, affine, (0, 1, 2), (False, True, False))
    mask = save_nifti(tmp_path / "mask.nii", *turned_by)
    with pytest.raises(VoxmillError, match=r"mask\.nii: expected a mask whose axes run as"):
        _mask_header(mask, volume)


@pytest.mark.parametrize(
    "key", [{"columns": ["z", "y", "x"]}, {"units": "um"}, {"offset_vox": [0, 0, 0]}]
)
def test_settings_of_tables_are_refused_for_volumes(key):
    with pytest.raises(SettingError, match="only tables of points have it, found kind mask"):
        GroundTruthSection(path="mask.tif", kind="mask", **key)
