"""Truths of every kind give the same points; truths in another frame are refused."""

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from voxmill.evaluation import truth_volumes
from voxmill.evaluation.check_ground_truth import check_ground_truth
from voxmill.evaluation.ground_truth import TRUTH, read_truth
from voxmill.runtime.errors import VoxmillError

SHAPE = (20, 30, 40)
SIZE = (5.0, 1.6, 1.6)
# Corners, a face between blocks of 8, and the middle.
CENTRES = np.array([[1, 1, 1], [7, 15, 20], [8, 8, 8], [18, 28, 38]])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(truth_volumes, "BLOCK_VOX", 8)


def write_volume(path, array):
    tifffile.imwrite(path, array)
    return path


def cubes(values):
    array = np.zeros(SHAPE, dtype=np.uint16)
    for centre, value in zip(CENTRES, values, strict=True):
        array[tuple(slice(c - 1, c + 2) for c in centre)] = value
    return array


def spread_centres():
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[tuple(CENTRES.T)] = 1
    return array


@pytest.mark.parametrize(
    "text",
    [
        "z_vox,y_vox,x_vox\n1,2,3\n4.5,6,7\n",
        "name,x,y,z\na,3,2,1\nb,7,6,4.5\n",
        "index,axis-0,axis-1,axis-2\n0,1,2,3\n1,4.5,6,7\n",
        "z_um,y_um,x_um\n5,3.2,4.8\n22.5,9.6,11.2\n",
        # Voxels win where a table has both, as cells.csv does.
        "z_um,y_um,x_um,z_vox,y_vox,x_vox\n9,9,9,1,2,3\n9,9,9,4.5,6,7\n",
    ],
)
def test_tables_by_the_names_of_their_columns(tmp_path, text):
    path = tmp_path / "truth.csv"
    path.write_text(text)
    np.testing.assert_allclose(read_truth(path, None, SHAPE, SIZE), [[1, 2, 3], [4.5, 6, 7]])


def test_a_table_with_tabs(tmp_path):
    path = tmp_path / "truth.tsv"
    path.write_text("z\ty\tx\n1\t2\t3\n")
    assert read_truth(path, "points", SHAPE, SIZE).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        ("voxels", spread_centres()),
        ("voxels", spread_centres() + 2 * (cubes([1] * 4) - spread_centres()).astype(np.uint8)),
        ("labels", cubes([7, 300, 2, 65535])),
        ("mask", cubes([1, 1, 1, 1])),
        ("mask", cubes([255, 3, 9, 1])),
    ],
)
def test_volumes_give_the_points_in_them(tmp_path, kind, array):
    path = write_volume(tmp_path / "truth.tif", array)
    points = read_truth(path, kind, SHAPE, SIZE)
    np.testing.assert_array_equal(points, CENTRES)


def test_label_of_two_pieces_is_one_cell(tmp_path):
    array = np.zeros(SHAPE, dtype=np.uint16)
    array[2, 3, 4] = array[10, 3, 30] = 5
    path = write_volume(tmp_path / "labels.tif", array)
    assert read_truth(path, "labels", SHAPE, SIZE).tolist() == [[6, 3, 17]]
    assert len(read_truth(path, "mask", SHAPE, SIZE)) == 2


def test_mask_equals_labelling_the_whole(tmp_path):
    noise = ndimage.gaussian_filter(np.random.default_rng(1).random(SHAPE), 1.5)
    mask = noise > np.quantile(noise, 0.85)
    path = write_volume(tmp_path / "mask.tif", mask.astype(np.uint8))
    labels, n_labels = ndimage.label(mask, np.ones((3, 3, 3)))
    expected = np.array(ndimage.center_of_mass(mask, labels, range(1, n_labels + 1)))
    assert n_labels > 5
    points = read_truth(path, "mask", SHAPE, SIZE)
    np.testing.assert_allclose(points, expected[np.lexsort(expected.T[::-1])])


@pytest.mark.parametrize("kind", ["voxels", "labels", "mask"])
def test_an_empty_volume_is_a_truth_without_cells(tmp_path, kind):
    path = write_volume(tmp_path / "truth.tif", np.zeros(SHAPE, dtype=np.uint8))
    assert read_truth(path, kind, SHAPE, SIZE).shape == (0, 3)


def test_an_empty_table_is_a_truth_without_cells(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("z,y,x\n")
    assert read_truth(path, None, SHAPE, SIZE).shape == (0, 3)


def test_check_truth_writes_points_in_voxels(tmp_path):
    source, output = tmp_path / "truth.csv", tmp_path / "results" / "truth.csv"
    source.write_text("z_um,y_um,x_um\n5,3.2,4.8\n")
    check_ground_truth(
        truth_path=source,
        kind=None,
        shape=list(SHAPE),
        voxel_size_um=list(SIZE),
        output_path=output,
    )
    assert output.read_text() == "z_vox,y_vox,x_vox\n1.0000,2.0000,3.0000\n"


def test_a_point_just_inside_of_the_last_face_stays_inside_when_written(tmp_path):
    source, output = tmp_path / "truth.csv", tmp_path / "checked.csv"
    source.write_text("z,y,x\n19.49999,29,39\n")
    check_ground_truth(
        truth_path=source, kind=None, shape=SHAPE, voxel_size_um=SIZE, output_path=output
    )
    assert read_truth(output, None, SHAPE, SIZE).tolist() == [[19.4999, 29, 39]]


def test_kinds_that_are_unclear_or_unknown(tmp_path):
    path = write_volume(tmp_path / "truth.tif", np.zeros(SHAPE, np.uint8))
    with pytest.raises(
        VoxmillError, match=r"truth.tif: .*Set the key `kind`.*voxels.*labels.*mask"
    ):
        read_truth(path, None, SHAPE, SIZE)
    with pytest.raises(
        VoxmillError, match=r"expected a ground truth of kind points, voxels.*'dots'"
    ):
        read_truth(path, "dots", SHAPE, SIZE)
    assert list(TRUTH) == ["points", "voxels", "labels", "mask"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # x of 35 is outside of z: swapped; 90 um are 18 planes of 5 um; 500 is nowhere.
        ("z,y,x\n35,10,10\n", "In the order x, y, z all lie inside"),
        ("z,y,x\n90,10,10\n", "As micrometres all lie inside: name the columns z_um"),
        ("z,y,x\n500,10,10\n1,1,1\n", "found 1 of 2 outside, .* = \\(500, 10, 10\\).*axis order"),
        ("z,y,x\n19.5,1,1\n", "found 1 of 1 outside"),
        ("z,y,x\n1,-0.6,1\n", "found 1 of 1 outside"),
    ],
)
def test_points_outside_of_the_volume(tmp_path, text, expected):
    path = tmp_path / "truth.csv"
    path.write_text(text)
    pattern = rf"truth.csv: expected points inside the volume of shape \(20, 30, 40\).*{expected}"
    with pytest.raises(VoxmillError, match=pattern):
        read_truth(path, None, SHAPE, SIZE)


def test_points_on_the_outer_faces_are_inside(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("z,y,x\n-0.5,-0.5,-0.5\n19.49,29.49,39.49\n")
    assert len(read_truth(path, None, SHAPE, SIZE)) == 2


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros(SHAPE[::-1], np.uint8), "order x, y, z: transpose it"),
        (np.zeros((20, 30, 39), np.uint8), "another volume, or cropped or resampled"),
    ],
)
def test_a_volume_of_another_shape(tmp_path, array, expected):
    path = write_volume(tmp_path / "truth.tif", array)
    pattern = (
        rf"truth.tif: expected a ground truth of the volume's shape \(20, 30, 40\).*{expected}"
    )
    with pytest.raises(VoxmillError, match=pattern):
        read_truth(path, "mask", SHAPE, SIZE)


def test_a_mask_taken_for_centroids(tmp_path):
    path = write_volume(tmp_path / "mask.tif", cubes([255] * 4))
    with pytest.raises(VoxmillError, match=r"voxels equal to 1 .*largest value is 255.*mask"):
        read_truth(path, "voxels", SHAPE, SIZE)


@pytest.mark.parametrize("value", [0.5, -1.0])
def test_labels_that_are_no_labels(tmp_path, value):
    array = np.zeros(SHAPE, dtype=np.float32)
    array[1, 2, 3] = value
    path = write_volume(tmp_path / "labels.tif", array)
    with pytest.raises(VoxmillError, match=f"labels.tif: .*whole numbers from 0, .* {value}"):
        read_truth(path, "labels", SHAPE, SIZE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "this ground truth does not exist"),
        ("", "expected a table of points"),
        ("a,b\n1,2\n", "expected the columns z_vox,y_vox,x_vox or z,y,x .* found a, b"),
        ("z,y,x\n1,2,3\n1,two,3\n", "column 'y' of data row 2, found 'two'"),
        ("z,y,x\n1,,3\n", "column 'y' of data row 1"),
    ],
)
def test_unreadable_tables(tmp_path, text, expected):
    path = tmp_path / "truth.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(VoxmillError, match=f"truth.csv: .*{expected}"):
        read_truth(path, None, SHAPE, SIZE)
