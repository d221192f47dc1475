"""Input of the segmentation that is unusual or wrong, through all of its jobs."""

import logging
import math

import numpy as np
import pandas as pd
import pytest
import tifffile

from voxmill.cells.finish_labels import finish_labels
from voxmill.cells.label_slab import label_slab
from voxmill.cells.measure_cells import measure_cells
from voxmill.engine.build import compiler
from voxmill.evaluation.evaluate_instances import evaluate_instances
from voxmill.evaluation.measure_label_seams import measure_label_seams
from voxmill.geometry import VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json
from voxmill.tiles.plan_volume import plan_volume
from voxmill.volumes import LABEL_DTYPES, open_volume, read_header

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

SHAPE, TILE = (8, 40, 60), (4, 40, 30)
SETTINGS = {"largest_radius_um": 12.0, "threshold": 0.5}


def chain(folder, probability, places, size=(2.0, 1.0, 1.0), settings=SETTINGS, ids=None):
    """All jobs but the evaluation, of a probability from 0 to 255 and places of cells."""
    shape = probability.shape
    tifffile.imwrite(folder / "p.tif", probability, photometric="minisblack")
    source = {"path": str(folder / "p.tif"), "voxel_size_um": list(size)}
    ids = range(1, len(places) + 1) if ids is None else ids
    rows = [f"{k},{z},{y},{x},1\n" for k, (z, y, x) in zip(ids, places, strict=True)]
    (folder / "cells.csv").write_text("id,z_vox,y_vox,x_vox,score\n" + "".join(rows))
    plan_volume(
        volume=source, fingerprint="f", tile_shape_vox=TILE, halo_vox=(0, 0, 0), halo_paths=[],
        output_path=folder / "plan.json",
    )  # fmt: skip
    slabs = [f"z{z:04d}" for z in range(0, shape[0], TILE[0])]
    labels = folder / "labels.ome.zarr"
    common = {"plan_path": folder / "plan.json", "cells_path": folder / "cells.csv"}
    for slab in slabs:
        label_slab.__wrapped__(
            **common, foreground_path=folder / "p.tif", source=None, image_path=str(labels),
            slab=slab, settings=settings, output_path=folder / f"{slab}.json",
        )  # fmt: skip
    finish_labels.__wrapped__(
        **common, manifest_paths=[str(folder / f"{slab}.json") for slab in slabs],
        image_path=str(labels), probability_path=str(folder / "probability.ome.zarr"),
    )  # fmt: skip
    measure_cells.__wrapped__(
        cells_path=folder / "cells.csv", labels_path=labels / "zarr.json", source=source,
        settings=settings, output_path=folder / "measured.csv",
    )  # fmt: skip
    measure_label_seams.__wrapped__(
        **common, foreground_path=folder / "p.tif", source=None, labels_path=labels / "zarr.json",
        output_path=folder / "seams.json", settings={"window_vox": 8}, objects=settings,
    )  # fmt: skip
    seams = read_json(folder / "seams.json", "certificate")
    assert (seams["labels_differ"], seams["label_voxels_differ"]) == (0, 0)
    with open_volume(read_header(labels, dtypes=LABEL_DTYPES)) as opened:
        return opened.read_window((0, 0, 0), shape)


def evaluate(folder, truth, size=(2.0, 1.0, 1.0), name="truth.tif"):
    tifffile.imwrite(folder / name, truth, photometric="minisblack")
    evaluate_instances.__wrapped__(
        truth_path=folder / name, truth_volume=None, voxel_size_um=list(size),
        labels_path=str(folder / "labels.ome.zarr/zarr.json"), output_path=folder / "i.json",
    )  # fmt: skip
    return read_json(folder / "i.json", "evaluation")


@pytest.mark.parametrize("value", [0, 100, 255])
@pytest.mark.parametrize("places", [[], [(2, 20, 20), (5, 20, 40)]])
def test_a_probability_of_one_constant(tmp_path, value, places):
    labels = chain(tmp_path, np.full(SHAPE, value, np.uint8), places)
    measured = pd.read_csv(tmp_path / "measured.csv")
    assert set(np.unique(labels)) == {0, *range(1, len(places) + 1)}
    assert len(measured) == len(places)
    # Below the threshold nothing but the cells' own voxels, above it all within the radius.
    expected = 1 if value < 128 else 4 / 3 * math.pi * 6 * 12**2 / 2
    for row in measured.itertuples():
        assert row.volume_um3 / 2 == pytest.approx(expected, rel=0.45)
    result = evaluate(tmp_path, np.zeros(SHAPE, np.uint16))
    assert (result["true_objects"], result["found_objects"]) == (0, len(places))


def test_voxels_ten_times_as_long_as_wide(tmp_path):
    size, shape = VoxelSize(10.0, 1.0, 1.0), (9, 90, 130)
    places = [(4, 45, 40), (4, 45, 92)]  # they touch
    truth = np.zeros(shape, np.uint16)
    for name, place in enumerate(places, start=1):
        away = size.to_um(np.indices(shape).transpose(1, 2, 3, 0) - place)
        truth[((away**2).sum(axis=-1) < 26**2) & (truth == 0)] = name
    settings = {"largest_radius_um": 40.0, "threshold": 0.5}
    labels = chain(tmp_path, np.uint8(255 * (truth > 0)), places, size, settings)
    result = evaluate(tmp_path, truth, size)
    strict = next(scores for scores in result["scores"] if scores["threshold"] == 0.8)
    assert strict["true_positives"] == 2, strict
    assert result["splits_and_merges"] == {"split_objects": 0, "merged_objects": 0}
    for name, row in zip((1, 2), pd.read_csv(tmp_path / "measured.csv").itertuples(), strict=True):
        assert row.volume_um3 == (labels == name).sum() * 10
        assert row.volume_um3 == pytest.approx((truth == name).sum() * 10, rel=0.1)
        assert row.axis_1_um == pytest.approx(52, rel=0.1)


def test_labels_that_are_not_integers_are_refused_by_name(tmp_path):
    chain(tmp_path, np.zeros(SHAPE, np.uint8), [(2, 20, 20)])
    truth = np.zeros(SHAPE, np.float32)
    truth[2, 20, 20] = 1
    assert evaluate(tmp_path, truth)["scores"][0]["true_positives"] == 1, "whole floats are labels"
    for value in (0.5, -1, np.nan):
        truth[3, 3, 3] = value
        with pytest.raises(VoxmillError, match=r"truth.tif: expected labels as whole numbers from"):
            evaluate(tmp_path, truth)


def test_more_labels_than_the_type_holds_are_refused(tmp_path):
    probability = np.full(SHAPE, 255, np.uint8)
    places = [(2, 20, 20), (5, 20, 40)]
    with pytest.raises(VoxmillError, match=r"cells.csv: cells: expected ids .*found 4294967296"):
        chain(tmp_path, probability, places, ids=[1, 2**32])
    labels = chain(tmp_path, probability, places, ids=[1, 2**32 - 1])
    assert set(np.unique(labels)) == {0, 1, 2**32 - 1}
    truth = np.where(labels == 1, 1, 0).astype(np.uint64)
    truth[labels > 1] = 2**32
    with pytest.raises(VoxmillError, match=r"\(uint32\), found the value 4294967296. Number the"):
        evaluate(tmp_path, truth)


def test_one_label_in_two_pieces_is_counted_and_named(tmp_path, caplog):
    chain(tmp_path, np.full(SHAPE, 255, np.uint8), [(2, 20, 20)])
    truth = np.zeros(SHAPE, np.uint16)
    truth[2:5, 10:14, 10:14] = 3
    truth[2:5, 30:34, 40:44] = 3
    truth[2:5, 30:34, 10:14] = 4
    with caplog.at_level(logging.WARNING):
        result = evaluate(tmp_path, truth)
    assert result["labels_in_pieces"] == [{"labels": 1, "first": [3]}, {"labels": 0, "first": []}]
    assert "truth.tif: 1 labels are in several pieces: {3: 2}" in caplog.text
