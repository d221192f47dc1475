"""What rules read and are told: paths, batches, slabs and settings, without Snakemake."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.unit.workflow_config import TILES, ancient, config, volume, wildcards
from voxmill.denoising.scans import Denoising, Scan
from voxmill.workflow import pattern
from voxmill.workflow.cutting import Cutting
from voxmill.workflow.evaluations import Evaluations
from voxmill.workflow.predictions import Predictions
from voxmill.workflow.pyramids import Pyramids
from voxmill.workflow.scans import Scans
from voxmill.workflow.trainings import Trainings
from voxmill.workflow.volumes import Volumes

V = wildcards(volume="v")
OF_A = wildcards(volume="v", network="a")


def cutting_of(**tiles):
    checked = config(tiles=tiles)
    return Cutting(checked, Volumes(checked, ancient), lambda path: f"temporary {path}")


def phantom():
    return volume(path=None, settings={"phantom": {"seed": 1}})


def test_a_pattern_matches_names_alone_and_nothing_without_names():
    assert pattern(["a.b", "c"]) == r"a\.b|c"
    assert pattern([]) == "(?!)"


@pytest.mark.parametrize(
    ("changes", "path", "marked"),
    [
        ({}, "v.tif", True),
        ({"windows": False, "path": "v.nii.gz"}, "results/v/unpacked.nii", False),
        ({"path": None, "settings": {"phantom": {}}}, "results/v/phantom.tif", False),
    ],
)
def test_the_date_of_a_users_volume_alone_counts_for_nothing(changes, path, marked):
    volumes = Volumes(config([volume(**changes)]), ancient)
    assert volumes.file(V) == (ancient(path) if marked else path)
    assert volumes.arguments(V) == {"path": path, "channel": None, "voxel_size_um": [2.0, 1.0, 1.0]}


def test_a_packed_volume_is_read_from_the_users_file():
    packed = volume(windows=False, path="v.nii.gz", settings={"path": "v.nii.gz", "channel": 1})
    volumes = Volumes(config([packed]), ancient)
    assert volumes.original(V) == "ancient v.nii.gz"
    assert volumes.original_arguments(V)["path"] == "v.nii.gz"
    assert volumes.original_arguments(V)["channel"] == 1


def test_params_of_a_volume():
    volumes = Volumes(config(), ancient)
    assert volumes.fingerprint(V) == "f"
    assert volumes.own_shape(V) == [100, 200, 300]
    assert volumes.voxel_size_um(V) == [2.0, 1.0, 1.0]
    assert Volumes(config([phantom()]), ancient).phantom(V) == {"seed": 1}


def test_the_ground_truth_of_a_volume():
    volumes = Volumes(config(), ancient)
    assert (volumes.truth_file(V), volumes.truth_kind(V)) == ("ancient v.csv", "points")
    made = Volumes(config([phantom()]), ancient)
    assert (made.truth_file(V), made.truth_kind(V)) == ("results/v/phantom.csv", None)


def test_what_is_said_of_a_table_and_the_volume_of_a_ground_truth():
    truth = {"path": "v.csv", "units": "um", "offset_vox": [0, 0, -1]}
    volumes = Volumes(config([volume(settings={"path": "v.tif", "truth": truth})]), ancient)
    assert volumes.truth_reading(V) == {"units": "um", "offset_vox": [0, 0, -1]}
    expected = {"path": "v.tif", "channel": None, "voxel_size_um": [2.0, 1.0, 1.0]}
    assert volumes.truth_volume(V) == expected
    made = Volumes(config([phantom()]), ancient)
    assert (made.truth_reading(V), made.truth_volume(V)) == ({}, None)


def test_a_network_with_its_card_and_digest():
    predictions = Predictions(config(), ancient)
    assert predictions.weights(wildcards(network="b")) == "models/b.pt2"
    assert predictions.card(wildcards(network="b")) == "models/b.json"
    assert predictions.model_digest(OF_A) == "a" * 16
    assert predictions.settings(OF_A)["device"] == "cpu"
    assert predictions.storage(OF_A) == {"dtype": "uint8", "compression": "zstd"}


def test_the_halo_is_given_or_theoretical_or_measured():
    given = Predictions(config(), ancient)
    assert given.halo_vox(V) == (10, 10, 10)
    assert given.measured_halos(V) == []
    exact = Predictions(config(tiles={"halo_vox": "exact"}), ancient)
    assert exact.halo_vox(V) == (19, 19, 19)  # dilations 1, 2, 3 in 10 layers; b declares 7
    measured = Predictions(config(tiles={"halo_vox": "auto"}), ancient)
    assert measured.halo_vox(V) is None
    assert measured.measured_halos(V) == ["results/v/a/halo.json", "results/v/b/halo.json"]
    assert measured.halo_settings(V) == {"tolerance": 0.001}


def test_each_tile_is_a_job_by_default():
    predictions = Predictions(config(), ancient)
    slab = wildcards(volume="v", network="a", slab="z0000")
    assert predictions.of_slab(slab) == [f"results/v/a/predictions/{tile}.json" for tile in TILES]
    cutting = cutting_of()
    assert cutting.targets("v") == [f"results/v/batches/{tile}.json" for tile in TILES]
    assert cutting.tiles(wildcards(volume="v", batch=TILES[1])) == [TILES[1]]
    needed = cutting.of_tile(wildcards(volume="v", network="a", tile=TILES[1]))
    assert needed == f"results/v/batches/{TILES[1]}.json"
    # 300 voxels are one level more.
    pyramids = Pyramids(config())
    rows = ["results/v/a/slabs/z0000.json", "results/v/a/levels/1/0.json"]
    assert pyramids.of_probability(OF_A) == rows
    labels = ["results/v/a/labels/z0000.json", "results/v/a/label_levels/1/0.json"]
    assert pyramids.of_labels(OF_A) == labels
    first = wildcards(volume="v", network="a", levels="levels", level="1", row="0")
    assert pyramids.rows_below(first) == rows[:1]
    assert (pyramids.image(first)[-20:], pyramids.how(first)) == ("probability.ome.zarr", "mean")
    of_labels = wildcards(volume="v", network="a", levels="label_levels", level="1", row="0")
    assert pyramids.rows_below(of_labels) == labels[:1]
    assert (pyramids.image(of_labels), pyramids.how(of_labels)) == (
        "results/v/a/labels.ome.zarr", "mode",
    )  # fmt: skip
    assert pyramids.storage(of_labels)["dtype"] == "uint32"


def test_tiles_that_share_jobs():
    predictions = Predictions(config(tiles={"per_job": 3}), ancient)
    batch = wildcards(volume="v", network="a", batch=TILES[0])
    assert predictions.tiles_of_batch(batch) == TILES[:3]
    cutting = cutting_of(per_job=3)
    assert cutting.tiles(batch) == TILES[:3]
    assert cutting.of_batch(batch) == f"results/v/batches/{TILES[0]}.json"
    assert cutting.targets("v") == [
        f"results/v/batches/{tile}.json" for tile in (TILES[0], TILES[3])
    ]
    slab = wildcards(volume="v", network="a", slab="z0000")
    expected = [f"results/v/a/batches/{tile}.json" for tile in (TILES[0], TILES[3])]
    assert predictions.of_slab(slab) == expected


def test_tiles_are_kept_for_ever_until_predicted_or_never_written():
    batch, made = wildcards(volume="v", network="a", batch=TILES[0]), SimpleNamespace(tiles="made")
    kept = cutting_of(per_job=2)
    assert (kept.output, kept.folder(batch)) == (
        "results/{volume}/batches/{batch}.json", "results/v/tiles",
    )  # fmt: skip
    assert kept.source(batch, made) == {"folder": "results/v/tiles"}
    brief = cutting_of(per_job=2, keep="until-predicted")
    assert brief.output == "temporary results/{volume}/cut/{batch}"
    # Only a folder of whole tiles gets the name of the output.
    assert brief.folder(batch) == f"results/v/cut/.{TILES[0]}"
    assert brief.of_batch(batch) == f"results/v/cut/{TILES[0]}"
    assert (brief.source(batch, made), brief.targets("v")) == ({"folder": "made"}, [])
    never = cutting_of(per_job=2, keep="none")
    assert never.of_batch(batch) == never.volumes.file(V) == "ancient v.tif"
    assert never.source(batch, made) == {"volume": never.volumes.arguments(V)}
    assert never.targets("v") == []


def test_100_000_tiles_are_some_thousand_jobs():
    large = volume(shape=(20480,) * 3)
    for per_job, jobs, cuts in (("auto", 994, 994), (64, 1350, 675), (1, 86_400, 994)):
        checked = replace(
            config([large], tiles={"per_job": per_job}), tile_shape_vox=(512, 456, 427)
        )
        assert len(checked.tiles("v")) == 86_400
        assert len(checked.batches("v").names) == len(checked.batches("v")) == jobs
        assert len(checked.cuts("v").names) == len(checked.cuts("v")) == cuts


def test_a_slab_waits_for_the_jobs_that_hold_its_tiles():
    deep = volume(shape=(300, 100, 300))
    predictions = Predictions(config([deep], tiles={"per_job": 4}), ancient)
    pyramids = Pyramids(predictions.config)
    assert [path[11:] for path in pyramids.of_probability(OF_A)] == [
        "/slabs/z0000.json", "/slabs/z0100.json", "/slabs/z0200.json",
        "/levels/1/0.json", "/levels/1/1.json", "/levels/1/2.json",
        "/levels/2/0.json", "/levels/2/1.json",
    ]  # fmt: skip
    held = {
        slab: predictions.of_slab(wildcards(volume="v", network="a", slab=slab))
        for slab in ("z0000", "z0100", "z0200")
    }
    first, second = (f"results/v/a/batches/{z}_y0000_x0000.json" for z in ("z0000", "z0200"))
    assert held == {"z0000": [first], "z0100": [first], "z0200": [second]}


def test_rows_of_a_level_are_made_from_two_below_where_z_is_halved():
    deep = volume(shape=(700, 100, 100), voxel_size_um=(1.0, 1.0, 1.0))
    pyramids = Pyramids(config([deep]))
    below = {
        (level, row): [
            path[12:]
            for path in pyramids.rows_below(
                wildcards(volume="v", network="a", levels="levels", level=level, row=row)
            )
        ]
        for level, row in (("1", "0"), ("1", "3"), ("2", "1"), ("3", "0"))
    }
    assert below == {
        ("1", "0"): ["slabs/z0000.json", "slabs/z0100.json"],
        ("1", "3"): ["slabs/z0600.json"],
        ("2", "1"): ["levels/1/2.json", "levels/1/3.json"],
        ("3", "0"): [],  # there is none: (175, 25, 25) is small enough
    }


def test_settings_and_methods_of_an_evaluation():
    evaluations = Evaluations(config())
    assert evaluations.methods(V) == ["a", "b", "baseline"]
    assert evaluations.of_volume(V)[-1] == "results/v/baseline/evaluation.json"
    assert evaluations.settings(V) == {"max_distance_um": 5, "seed": 0, "region": None}
    assert evaluations.baseline_settings(V)["cell_diameter_um"] == 10
    assert evaluations.cell_settings(OF_A)["threshold"] == 0.4
    assert evaluations.matches_if_any(OF_A) == "results/v/a/matches.csv"


def test_without_a_ground_truth_there_is_no_baseline_and_no_match():
    evaluations = Evaluations(config([volume(settings={"path": "v.tif"})]))
    assert evaluations.methods(V) == ["a", "b"]
    assert evaluations.matches_if_any(OF_A) == []
    assert Evaluations(config(evaluation={"baseline": False})).methods(V) == ["a", "b"]


def test_files_of_a_training():
    first = {"path": "p.tif", "truth": {"path": "p.csv"}, "mask": "m.tif"}
    section = {"volumes": {"p": first, "q": {"path": "q.tif", "truth": {"path": "q.csv"}}}}
    started = section | {"start": "models/a.safetensors", "settings": {"steps": 3}}
    trainings = Trainings(config(training={"n": section, "fine": started}), ancient)
    new, fine = wildcards(trained="n"), wildcards(trained="fine")
    files = ("p.tif", "q.tif", "p.csv", "q.csv", "m.tif")
    assert trainings.files(new) == [ancient(path) for path in files]
    assert (trainings.start(new), trainings.settings(new)) == ([], {})
    assert (trainings.start(fine), trainings.settings(fine)) == (started["start"], {"steps": 3})
    assert trainings.volumes(new) == section["volumes"]


def test_inputs_of_scans():
    made = Scan("made", "results/made/scan.nii.gz", mask="results/made/mask.nii.gz", phantom={})
    own = Scan("own", "o.nii.gz", volume=2, reference="r.nii.gz", dataset="study")
    denoising = Denoising(
        {"made": made, "own": own}, {"study": {"bids": "raw"}}, {"seed": 1}, ("cpu",)
    )
    scans = Scans(denoising, ancient)
    of_made, of_own, of_study = wildcards(scan="made"), wildcards(scan="own"), {"dataset": "study"}
    assert (scans.file(of_made), scans.mask(of_made)) == (made.path, made.mask)
    assert (scans.reference(of_made), scans.mask(of_own)) == ([], [])
    assert scans.file(of_own) == "ancient o.nii.gz"
    assert scans.reference(of_own) == "ancient r.nii.gz"
    assert (scans.volume(of_own), scans.phantom(of_made)) == (2, {})
    assert (scans.settings(of_own), scans.devices(of_own)) == ({"seed": 1}, ["cpu"])
    assert scans.fingerprints(of_made) == []
    study = wildcards(**of_study)
    assert scans.dataset_folder(study) == "raw"
    assert scans.dataset_volumes(study) == ["results/own/denoised.nii.gz"]
    assert scans.dataset_records(study) == ["results/own/denoising.json"]
    assert (scans.dataset_suffixes(study), scans.dataset_counts(study)) == (["T1w"], [1])
