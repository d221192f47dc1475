"""Scans of BIDS folders and of a configuration; derivatives."""

import json
import os
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from voxmill.denoising import bids, scans
from voxmill.denoising.nifti import read_scan, write_like
from voxmill.denoising.write_derivatives import write_derivatives
from voxmill.runtime.errors import VoxmillError
from voxmill.workflow.scans import Scans

NAMES = (
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-02/ses-1/anat/sub-02_ses-1_run-2_T1w.nii",
    "sub-02/ses-2/anat/sub-02_ses-2_acq-mprage_T1w.nii.gz",
)


def make_dataset(folder, names=NAMES):
    folder.mkdir(exist_ok=True)
    description = {"Name": "Study", "BIDSVersion": "1.8.0"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"an image")
    return folder


def test_scans_are_found_with_and_without_sessions(tmp_path):
    root = make_dataset(tmp_path / "raw")
    (root / "sub-01/anat/sub-01_T2w.nii.gz").touch()
    (root / "derivatives/sub-01/anat").mkdir(parents=True)
    (root / "derivatives/sub-01/anat/sub-01_desc-x_T1w.nii.gz").touch()
    found = bids.find_scans(root)
    assert [scan.path for scan in found] == [root / name for name in NAMES]
    assert [scan.stem for scan in found] == [
        "sub-01", "sub-02_ses-1_run-2", "sub-02_ses-2_acq-mprage",
    ]  # fmt: skip
    assert found[1].derivative == ("sub-02/ses-1/anat/sub-02_ses-1_run-2_desc-denoised_T1w.nii.gz")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no scan matches"),
        (("sub-01/anat/sub-01_desc_T1w.nii.gz",), "expected a BIDS name"),
        (("sub-01/anat/sub-02_T1w.nii.gz",), "does not begin with its folders, sub-01"),
        (("sub-01/ses-1/anat/sub-01_T1w.nii.gz",), "with its folders, sub-01_ses-1"),
        (("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii"), "the same scan twice"),
    ],
)
def test_folders_that_break_the_rules(tmp_path, names, message):
    with pytest.raises(VoxmillError, match=message):
        bids.find_scans(make_dataset(tmp_path / "raw", names))


def test_missing_folder_or_description(tmp_path):
    with pytest.raises(VoxmillError, match="this BIDS folder does not exist"):
        bids.find_scans(tmp_path / "none")
    with pytest.raises(VoxmillError, match="this BIDS data set description does not exist"):
        bids.find_scans(tmp_path)


def test_derivatives_have_the_right_names_and_descriptions(tmp_path):
    root = make_dataset(tmp_path / "raw")
    (root / "sub-01/anat/sub-01_T1w.json").write_text('{"RepetitionTime": 2.0}')
    volumes, records = [], []
    for index in range(3):
        volumes.append(tmp_path / f"{index}.nii.gz")
        volumes[-1].write_bytes(b"denoised %d" % index)
        record = {"noise_sigma": 3.0, "result_of_iterations": [9], "stop_reason": "end", "seed": 0}
        records.append(tmp_path / f"{index}.json")
        records[-1].write_text(json.dumps(record))
    output = tmp_path / "out" / "dataset_description.json"
    for _ in range(2):  # a second run replaces the first
        write_derivatives(
            denoised_paths=volumes, record_paths=records, output_path=output, source=str(root)
        )
    files = sorted(
        os.path.relpath(os.path.join(folder, name), output.parent)
        for folder, _, names in os.walk(output.parent)
        for name in names
        if not folder.endswith(".made")
    )
    stems = [
        "sub-01/anat/sub-01_desc-denoised_T1w",
        "sub-02/ses-1/anat/sub-02_ses-1_run-2_desc-denoised_T1w",
        "sub-02/ses-2/anat/sub-02_ses-2_acq-mprage_desc-denoised_T1w",
    ]
    expected = [f"{stem}{end}" for stem in stems for end in (".json", ".nii.gz")]
    assert files == ["dataset_description.json", *expected]
    assert (output.parent / f"{stems[2]}.nii.gz").read_bytes() == b"denoised 2"
    sidecar = json.loads((output.parent / f"{stems[0]}.json").read_text())
    assert sidecar["RepetitionTime"] == 2.0
    assert sidecar["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]
    assert sidecar["NoiseSigma"] == 3.0
    content = json.loads(output.read_text())
    assert content["DatasetType"] == "derivative"
    assert content["GeneratedBy"][0]["Name"] == "voxmill"
    assert content["Name"] == "Study, denoised"
    assert content["DatasetLinks"]["raw"] == root.as_uri()


def load(tmp_path, entries, **denoising):
    return scans.load({"scans": entries, "denoising": denoising})


def test_scans_of_a_configuration(tmp_path):
    root = make_dataset(tmp_path / "raw")
    (tmp_path / "a.nii").touch()
    found = load(
        tmp_path,
        {
            "one": {"path": str(tmp_path / "a.nii"), "volume": 3},
            "made": {"phantom": {"seed": 1}},
            "study": {"bids": str(root)},
        },
        devices=["cuda:0", "cuda:1"],
        precision="float16",
    )
    assert list(found.scans) == [
        "one", "made", "study_sub-01", "study_sub-02_ses-1_run-2",
        "study_sub-02_ses-2_acq-mprage",
    ]  # fmt: skip
    assert found.scans["one"].volume == 3
    assert found.scans["made"].reference == "results/made/reference.nii.gz"
    assert len(found.of_dataset("study")) == 3
    assert found.datasets == {"study": {"bids": str(root)}}
    assert found.settings == {"precision": "float16"}
    assert found.gpus == 2
    assert load(tmp_path, {}, devices=["cpu"]).gpus == 0


def test_a_configuration_needs_no_scans():
    assert scans.load({}).scans == {}


def test_bad_scans_name_their_key(tmp_path):
    def refused(message, entry, **denoising):
        with pytest.raises(VoxmillError, match=message):
            load(tmp_path, {"x": entry}, **denoising)

    phantom = {"phantom": {}}
    refused(r"config: scans\.x\.path: .*no\.nii does not exist", {"path": "no.nii"})
    refused(r"config: scans\.x\.path: expected a NIfTI file", {"path": "no.tif"})
    (tmp_path / "a.nii").touch()
    entry = {"path": str(tmp_path / "a.nii")}
    refused(r"scans\.x\.mask: no\.nii does not exist", entry | {"mask": "no.nii"})
    refused(r"scans\.x: expected one of path, phantom and bids, found none of them", {"volume": 1})
    refused(r"scans\.x: expected one of .*\['path', 'phantom'\]", entry | phantom)
    refused(r"scans\.x\.volume: not known beside phantom", phantom | {"volume": 1})
    refused(r"scans\.x\.bids: .*this BIDS folder does not exist", {"bids": "none"})
    refused(r"denoising\.devices: expected one device or two", phantom, devices=["cuda:0"] * 2)
    gpus = ["cuda:0", "cuda:1", "cuda:2"]
    refused(r"devices: expected one or two for each of 1 fit\(s\)", phantom, devices=gpus)
    refused(r"for each of 2 fit\(s\)", phantom, devices=gpus, fits=2, fits_at_once=2)
    refused(r"fits_at_once: expected at most `fits`, which is 1, found 2", phantom,
            devices=gpus[:2], fits_at_once=2)  # fmt: skip
    refused(r"denoising\.precision: float16 needs GPUs", phantom, devices=["cpu"],
            precision="float16")  # fmt: skip
    refused(r"config: denoising\.iterations: expected", phantom, iterations=0)


def test_a_scan_of_a_data_set_may_not_have_the_name_of_another(tmp_path):
    root = make_dataset(tmp_path / "raw", NAMES[:1])
    with pytest.raises(VoxmillError, match=r"scans\.study: study_sub-01 is there twice"):
        load(tmp_path, {"study_sub-01": {"phantom": {}}, "study": {"bids": str(root)}})


def test_other_suffixes_lie_beside_t1w(tmp_path):
    names = ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_acq-x_FLAIR.nii.gz")
    root = make_dataset(tmp_path / "raw", names)
    found = bids.find_scans(root, ("T1w", "FLAIR"))
    assert [scan.name for scan in found] == ["sub-01", "sub-01_acq-x_FLAIR"]
    assert found[1].derivative == "sub-01/anat/sub-01_acq-x_desc-denoised_FLAIR.nii.gz"
    with pytest.raises(VoxmillError, match=r"no scan matches sub-\*/\*/\*_T2w"):
        bids.find_scans(root, ("T1w", "T2w"))


def test_volumes_of_a_series_are_denoised_one_by_one_and_put_together(tmp_path):
    root = make_dataset(tmp_path / "raw", ())
    path = root / "sub-01/dwi/sub-01_dwi.nii.gz"
    path.parent.mkdir(parents=True)
    image = nibabel.Nifti1Image(np.arange(3 * 8, dtype=np.int16).reshape(2, 2, 2, 3), np.eye(4))
    image.header.set_slope_inter(0.5, 1)
    nibabel.save(image, path)
    path.with_name("sub-01_dwi.bval").write_text("0 1000 1000")
    entries = {"study": {"bids": str(root), "suffixes": ["dwi"], "sigma": 4.0}}
    found = load(tmp_path, entries)
    assert list(found.scans) == [f"study_sub-01_dwi_vol-000{volume}" for volume in range(3)]
    assert [scan.volume for scan in found.scans.values()] == [0, 1, 2]
    assert {scan.sigma for scan in found.scans.values()} == {4.0}
    volumes, records = [], []
    for volume in range(3):
        scan = read_scan(path, volume)
        volumes.append(tmp_path / f"{volume}.nii.gz")
        write_like(volumes[-1], scan.data, scan)
        record = {"noise_sigma": volume, "result_of_iterations": [9], "stop_reason": "end"}
        records.append(tmp_path / f"{volume}.json")
        records[-1].write_text(json.dumps(record | {"seed": 0}))
    write_derivatives(
        denoised_paths=volumes, record_paths=records, source=str(root),
        output_path=tmp_path / "out" / "dataset_description.json", suffixes=["dwi"], counts=[3],
    )  # fmt: skip
    stem = tmp_path / "out/sub-01/dwi/sub-01_desc-denoised_dwi"
    series = nibabel.load(f"{stem}.nii.gz")
    np.testing.assert_array_equal(series.get_fdata(), nibabel.load(path).get_fdata())
    assert json.loads(stem.with_suffix(".json").read_text())["NoiseSigma"] == [0, 1, 2]
    assert stem.with_suffix(".bval").read_text() == "0 1000 1000"


def test_noise_level_of_a_scan_wins_over_that_of_all(tmp_path):
    found = load(tmp_path, {"made": {"phantom": {}, "sigma": 2.5}, "other": {"phantom": {}}})
    rules = Scans(found, ancient=str)
    wanted = SimpleNamespace(scan="made")
    assert rules.settings(wanted) == {"sigma": 2.5}
    assert rules.settings(SimpleNamespace(scan="other")) == {}
