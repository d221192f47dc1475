"""The jobs of `snakemake segment`: labels by slab are those of the whole volume."""

import itertools
import json

import numpy as np
import pytest
import tifffile
import zarr
from matplotlib import pyplot as plt

from voxmill.cells.finish_labels import finish_labels
from voxmill.cells.foreground import read_foreground
from voxmill.cells.label_slab import STORAGE, label_slab, read_seeds
from voxmill.cells.measure_cells import measure_cells, reach_of_cell
from voxmill.cells.measurements import MEASURES
from voxmill.cells.outlines import outline_block
from voxmill.config.objects import ObjectSettings
from voxmill.config.phantoms import PhantomSettings
from voxmill.engine.build import compiler
from voxmill.evaluation.draw_instances import (
    COLOURS,
    best_overlaps,
    draw_instances,
    planes_of,
)
from voxmill.evaluation.evaluate_instances import compared, evaluate_instances
from voxmill.evaluation.instances import count_overlaps
from voxmill.evaluation.measure_label_seams import measure_label_seams
from voxmill.geometry import Box, Resampling, VoxelSize
from voxmill.phantoms.make_phantom import draw_labelled
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json
from voxmill.tiles.plan import read_plan
from voxmill.tiles.plan_volume import plan_volume
from voxmill.tiles.predicted import PlannedImage
from voxmill.volumes import LABEL_DTYPES, fingerprint, open_volume, read_header
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.multiscale import write_image
from voxmill.volumes.own_voxels import InOwnVoxels

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

UNIT = VoxelSize(1, 1, 1)
PHANTOM = PhantomSettings(
    shape_vox=(24, 50, 60), density_per_mm3=90000.0, touching=0.6, blur_um=(0.5, 0.5, 0.5), seed=3
)
SETTINGS = {"foreground": "image", "threshold": 0.45, "largest_radius_um": 12.0}


class Run:
    """A phantom in a folder, its true places as the table of cells, and the jobs on it."""

    def __init__(self, folder):
        self.folder = folder
        self.volume, places, self.truth = draw_labelled(PHANTOM)
        tifffile.imwrite(folder / "v.tif", self.volume)
        tifffile.imwrite(folder / "truth.tif", self.truth, compression="zlib")
        self.size = PHANTOM.voxel_size_um
        self.source = {"path": str(folder / "v.tif"), "voxel_size_um": list(self.size)}
        rows = ["id,z_vox,y_vox,x_vox,score,volume_um3"]
        places = np.clip(places, 0, np.array(self.volume.shape) - 1)
        rows += [f"{k},{z},{y},{x},1,0" for k, (z, y, x) in enumerate(places.tolist(), start=1)]
        (folder / "cells.csv").write_text("\n".join(rows) + "\n")
        plan_volume(
            volume=self.source, fingerprint="f", tile_shape_vox=(12, 25, 32), halo_vox=(1, 1, 1),
            halo_paths=[], output_path=folder / "plan.json",
        )  # fmt: skip
        self.slabs = ["z0000", "z0012"]

    def label(self, slab, settings=SETTINGS):
        label_slab.__wrapped__(
            plan_path=self.folder / "plan.json", cells_path=self.folder / "cells.csv",
            foreground_path=self.folder / "v.tif", source=self.source,
            image_path=str(self.folder / "labels.ome.zarr"), slab=slab, settings=settings,
            output_path=self.folder / f"{slab}.json", threads=2,
        )  # fmt: skip

    def finish(self):
        finish_labels.__wrapped__(
            plan_path=self.folder / "plan.json", cells_path=self.folder / "cells.csv",
            manifest_paths=[str(self.folder / f"{slab}.json") for slab in self.slabs],
            image_path=str(self.folder / "labels.ome.zarr"),
            probability_path=str(self.folder / "probability.ome.zarr"), threads=2,
        )  # fmt: skip

    def labels(self):
        header = read_header(self.folder / "labels.ome.zarr", dtypes=LABEL_DTYPES)
        with open_volume(header) as opened:
            return opened.read_window((0, 0, 0), self.volume.shape)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("segment"))
    for slab in run.slabs:
        run.label(slab)
    run.finish()
    return run


def test_labels_of_tiles_are_those_of_the_volume(whole):
    box, size = Box.from_shape(whole.volume.shape), VoxelSize.of(whole.size)
    checked = ObjectSettings(**SETTINGS)
    values, grey = read_foreground(ArrayVolume(whole.volume), box, size, checked)
    seeds = read_seeds(whole.folder / "cells.csv")
    expected = outline_block(values, (0, 0, 0), box, box, seeds, size, checked, grey=grey)
    np.testing.assert_array_equal(whole.labels(), expected)
    assert len(np.unique(expected)) == len(seeds.ids) + 1 > 10


def test_the_image_is_listed_as_labels_of_the_probability(whole):
    group = zarr.open_group(whole.folder / "labels.ome.zarr", mode="r")
    ome = group.attrs["ome"]
    assert ome["image-label"]["source"] == {"image": "../probability.ome.zarr"}
    colours = {each["label-value"]: each["rgba"] for each in ome["image-label"]["colors"]}
    assert set(colours) == set(np.unique(whole.labels())) - {0}
    assert len({tuple(rgba) for rgba in colours.values()}) == len(colours)
    assert "omero" not in ome
    assert ome["multiscales"][0]["type"] == "mode"
    listed = zarr.open_group(whole.folder / "probability.ome.zarr/labels", mode="r")
    assert listed.attrs["ome"]["labels"] == ["cells"]
    np.testing.assert_array_equal(listed["cells/0"][:], whole.labels())
    assert listed["cells"].attrs["ome"] == ome | {
        "image-label": ome["image-label"] | {"source": {"image": "../../"}}
    }


def test_the_certificate_counts_labels_that_differ_at_seams(whole, tmp_path):
    def certificate(labels):
        measure_label_seams.__wrapped__(
            plan_path=whole.folder / "plan.json", cells_path=whole.folder / "cells.csv",
            foreground_path=whole.folder / "v.tif", source=whole.source, labels_path=labels,
            output_path=tmp_path / "seams.json", settings={"window_vox": 16}, objects=SETTINGS,
        )  # fmt: skip
        return read_json(tmp_path / "seams.json", "certificate")

    found = certificate(whole.folder / "labels.ome.zarr/zarr.json")
    assert len(found["windows"]) == 24
    assert found["labels"] > 20
    assert (found["labels_differ"], found["label_voxels_differ"]) == (0, 0)
    # As if a tile had numbers of its own, as blocks without a merge have.
    labels = whole.labels()
    labels[12:][labels[12:] > 0] += 1000
    planned = PlannedImage.planned(
        tmp_path / "cut.zarr", read_plan(whole.folder / "plan.json"), STORAGE
    )
    (array,) = planned.arrays
    for index in itertools.product(*map(range, array.shards)):
        array.write_shard(index, labels[array.box(index).slices])
    write_image(tmp_path / "cut.zarr", [array], planned.levels, whole.size, "x", {}, "mode", {}, {})
    cut = certificate(tmp_path / "cut.zarr/zarr.json")
    assert cut["labels_differ"] > 10
    assert cut["labels_split"] > 0


def test_the_table_of_measured_cells(whole):
    output = whole.folder / "measured.csv"
    measure_cells(
        cells_path=whole.folder / "cells.csv",
        labels_path=whole.folder / "labels.ome.zarr/zarr.json", source=whole.source,
        settings=SETTINGS, output_path=output, threads=2,
    )  # fmt: skip
    lines = output.read_text().splitlines()
    head = lines[0].split(",")
    assert head[:5] == ["id", "z_vox", "y_vox", "x_vox", "score"]
    assert head[5:] == list(MEASURES)
    labels, size = whole.labels(), VoxelSize.of(whole.size)
    for line in lines[1:]:
        row = dict(zip(head, line.split(","), strict=True))
        mask = labels == int(row["id"])
        assert float(row["volume_um3"]) == pytest.approx(mask.sum() * size.volume_um3, abs=1e-3)
        assert float(row["integrated_intensity"]) == whole.volume[mask].sum()


def test_a_cell_reaches_no_farther_than_its_window(whole):
    reach = reach_of_cell(ObjectSettings(**SETTINGS), VoxelSize.of(whole.size))
    labels, seeds = whole.labels(), read_seeds(whole.folder / "cells.csv")
    for name, place in zip(seeds.ids, np.rint(seeds.places), strict=True):
        away = np.abs(np.argwhere(labels == name) - place)
        assert (away <= reach).all()


def test_instances_against_the_phantom(whole):
    output = whole.folder / "instances.json"
    evaluate_instances(
        truth_path=whole.folder / "truth.tif", truth_volume=whole.source,
        labels_path=str(whole.folder / "labels.ome.zarr/zarr.json"),
        voxel_size_um=list(whole.size), output_path=output,
    )  # fmt: skip
    found = read_json(output, "evaluation")
    assert found["true_objects"] == len(np.unique(whole.truth)) - 1
    half = next(scores for scores in found["scores"] if scores["threshold"] == 0.5)
    assert half["average_precision"] > 0.6
    assert found["labels_in_pieces"][1]["labels"] == 0
    assert sum(part["true_objects"] for part in found["by_size"]) == found["true_objects"]
    draw_instances(
        volume=whole.source, truth_path=str(whole.folder / "truth.tif"),
        labels_path=str(whole.folder / "labels.ome.zarr/zarr.json"),
        instances_path=str(output), output_path=str(whole.folder / "instances.png"),
        voxel_size_um=list(whole.size),
    )  # fmt: skip
    picture = plt.imread(whole.folder / "instances.png")[..., :3]
    for colour in COLOURS.values():  # lines of both colours
        wanted = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        assert (np.abs(picture - wanted).max(axis=-1) < 0.02).sum() > 500


def test_labels_of_other_voxels_are_compared_in_those_of_the_file(tmp_path):
    """A model's voxels are twice as wide along y and x; of the odd last row half is beyond."""
    truth = np.zeros((3, 7, 8), np.uint16)
    truth[:, :4, :4], truth[:, 4:, 4:] = 1, 2
    coarse = truth[:, ::2, ::2].astype(np.uint32)
    seen = InOwnVoxels(ArrayVolume(coarse), Resampling((3, 7, 8), UNIT, VoxelSize(1, 2, 2)))
    np.testing.assert_array_equal(seen.read_window((0, 0, 0), (3, 7, 8)), truth)
    np.testing.assert_array_equal(seen.read_window((1, 3, 5), (3, 7, 8)), truth[1:3, 3:7, 5:])
    grid = {"own_shape": [3, 7, 8], "own_voxel_size_um": [1, 1, 1]}
    volume, size = compared(ArrayVolume(coarse), [1, 2, 2], grid)
    assert (volume.shape, size) == ((3, 7, 8), UNIT)
    overlaps = count_overlaps(ArrayVolume(truth), volume)
    assert overlaps.ratios.tolist() == [1, 1]


def test_planes_that_are_shown():
    boxes = planes_of((8, 600, 10))
    assert [box.start for box in boxes] == [(2, 100, 0), (4, 100, 0), (6, 100, 0), (0, 300, 0)]
    assert boxes[0].stop == (3, 500, 10) and boxes[3].stop == (8, 301, 10)
    assert [box.shape for box in planes_of((1, 2, 2))] == [(1, 2, 2)] * 3 + [(1, 1, 2)]


def test_best_overlaps_of_each_true_object():
    truth, found = np.zeros((2, 1, 1, 12), np.uint32)
    truth[..., :4], truth[..., 4:8], truth[..., 10:] = 1, 2, 3
    found[..., :3], found[..., 3:8] = 1, 2
    overlaps = count_overlaps(ArrayVolume(truth), ArrayVolume(found))
    assert best_overlaps(overlaps).tolist() == [3 / 4, 4 / 5, 0]


def test_a_shard_that_is_lost_or_damaged_is_named(tmp_path):
    run = Run(tmp_path)
    for slab in run.slabs:
        run.label(slab)
    run.finish()
    shard = next(path for path in (tmp_path / "labels.ome.zarr/0/c").rglob("*") if path.is_file())
    content = shard.read_bytes()
    shard.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(VoxmillError, match="damaged"):
        run.finish()
    shard.unlink()
    with pytest.raises(VoxmillError, match=r"found none of c/0/0/0. Delete its list"):
        run.finish()
    run.label(run.slabs[0])
    run.label(run.slabs[1])
    assert shard.read_bytes() == content, "the same bytes again"
    assert not (tmp_path / "labels.ome.zarr/zarr.json").exists(), "not whole before its end"
    assert not (tmp_path / "probability.ome.zarr/labels/cells/zarr.json").exists()
    run.finish()
    run.slabs = run.slabs[:1]
    with pytest.raises(VoxmillError, match=r"expected 8 shards, found none of c/1/0/0 and 3 more"):
        run.finish()


def test_other_settings_write_other_shards(tmp_path):
    run = Run(tmp_path)
    run.label("z0000")
    before = json.loads((tmp_path / "z0000.json").read_text())
    run.label("z0000", SETTINGS | {"outlines": False})
    assert json.loads((tmp_path / "z0000.json").read_text()) != before


def test_a_volume_of_another_shape_and_bad_ids_are_refused(tmp_path):
    run = Run(tmp_path)
    tifffile.imwrite(tmp_path / "v.tif", run.volume[:-1])
    with pytest.raises(VoxmillError, match="expected the plan's shape"):
        run.label("z0000")
    (tmp_path / "cells.csv").write_text("id,z_vox,y_vox,x_vox,score\n0,1,1,1,1\n")
    with pytest.raises(VoxmillError, match=r"cells.csv: cells: expected ids that are whole"):
        read_seeds(tmp_path / "cells.csv")
    assert read_plan(tmp_path / "plan.json").volume.shape == run.volume.shape


class Keyed(Run):
    """As rules call the jobs: with the digest of the code and the fingerprint of the volume."""

    def label_as_rule(self, **changes):
        label_slab(
            plan_path=self.folder / "plan.json", cells_path=self.folder / "cells.csv",
            foreground_path=self.source["path"], source=self.source, settings=SETTINGS,
            image_path=str(self.folder / "labels.ome.zarr"), slab="z0000", code="c",
            output_path=self.folder / "z0000.json", log_path=self.folder / "log",
            **{"fingerprint": fingerprint(read_header(**self.source))} | changes,
        )  # fmt: skip
        return "kept, whole" in (self.folder / "log").read_text()


@pytest.fixture
def keyed(tmp_path):
    run = Keyed(tmp_path)
    assert not run.label_as_rule()
    return run


def test_a_labelled_slab_is_kept_where_its_shards_are_whole(keyed):
    assert keyed.label_as_rule()
    shard = next(path for path in keyed.folder.rglob("0/c/*/*/*") if path.is_file())
    content = shard.read_bytes()
    shard.unlink()
    assert not keyed.label_as_rule()
    assert shard.read_bytes() == content


def test_a_volume_that_was_replaced_is_refused(keyed, capsys):
    planned = fingerprint(read_header(**keyed.source))
    measure = {
        "cells_path": str(keyed.folder / "cells.csv"), "source": keyed.source, "threads": 1,
        "labels_path": str(keyed.folder / "labels.ome.zarr/zarr.json"), "settings": SETTINGS,
        "output_path": str(keyed.folder / "measured.csv"), "fingerprint": planned,
    }  # fmt: skip
    keyed.label("z0012")
    keyed.finish()
    measure_cells(**measure)
    tifffile.imwrite(keyed.source["path"], keyed.volume[::-1])
    # What was made of the planned volume is kept; what is not there can't be made any more.
    assert keyed.label_as_rule(fingerprint=planned)
    (keyed.folder / "z0000.json").unlink()
    (keyed.folder / "measured.csv").unlink()
    refused = "v.tif: expected the volume that this run was planned with"
    with pytest.raises(SystemExit):
        measure_cells(**measure)
    assert refused in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate_instances(
            truth_path=str(keyed.folder / "truth.tif"), truth_volume=None, fingerprint="other",
            labels_path=measure["labels_path"], voxel_size_um=list(keyed.size),
            output_path=str(keyed.folder / "instances.json"),
        )  # fmt: skip
    assert "truth.tif: expected the file that this run was planned with" in capsys.readouterr().err
    assert not (keyed.folder / "instances.json").exists()
    with pytest.raises(SystemExit):
        keyed.label_as_rule(fingerprint=planned)
    assert refused in capsys.readouterr().err
    assert not (keyed.folder / "z0000.json").exists()
