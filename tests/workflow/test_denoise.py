"""Denoising from end to end on scans of a few voxels, and what a second run does."""

import json
import os
import re
import signal
import time

import nibabel
import numpy as np
import pytest
import yaml

from tests.workflow.conftest import Project
from voxmill.checking.check import check_run
from voxmill.slurm import table

PHANTOM = {"shape_vox": [12, 13, 12], "voxel_size_mm": 8, "seed": 1}
DENOISING = {
    "devices": ["cpu"],
    "network": {"inputs": 2, "down": [4, 4], "up": [4, 4], "skip": [2, 2]},
    "input": "recorrupted",
    "sigma": 30,
    "iterations": 5,
}


def write_bids(folder):
    image = nibabel.Nifti1Image(
        np.random.default_rng(0).integers(0, 500, (9, 9, 9)).astype(np.int16), np.eye(4)
    )
    for subject in ("01", "02"):
        anat = folder / f"sub-{subject}" / "anat"
        anat.mkdir(parents=True)
        nibabel.save(image, anat / f"sub-{subject}_T1w.nii.gz")
    description = {"Name": "Study", "BIDSVersion": "1.8.0"}
    (folder / "dataset_description.json").write_text(json.dumps(description))


def make_project(folder, **denoising):
    folder.mkdir()
    write_bids(folder / "raw")
    content = {
        "scans": {"made": {"phantom": PHANTOM}, "study": {"bids": "raw"}},
        "denoising": DENOISING | denoising,
    }
    (folder / "my.yaml").write_text(yaml.safe_dump(content))
    return Project(folder)


@pytest.fixture(scope="module")
def denoised(tmp_path_factory):
    """A project that ran to its end once; tests work on copies."""
    project = make_project(tmp_path_factory.mktemp("denoise") / "project")
    project.snakemake("denoise")
    return project


def test_every_scan_has_its_products(denoised):
    for scan in ("made", "study_sub-01", "study_sub-02"):
        names = {path.name for path in denoised.path(scan).iterdir()}
        assert {
            "denoised.nii.gz", "denoising.json", "denoising.csv", "denoised.png", "denoising.png",
        } <= names  # fmt: skip
    record = json.loads(denoised.path("made/denoising.json").read_text())
    assert record["iterations"] == 5
    assert "metrics" in record
    assert "metrics" not in json.loads(denoised.path("study_sub-01/denoising.json").read_text())


def test_a_good_run_leaves_no_checkpoint(denoised):
    assert list(denoised.path("").rglob(".denoising*")) == []


def test_every_file_of_denoising_has_a_checksum(denoised, monkeypatch):
    monkeypatch.chdir(denoised.folder)
    found = check_run(["results"])
    assert (found.broken, found.unchecked) == ([], [])
    assert found.whole > 20


def test_derivatives_that_are_deleted_or_damaged_come_back(denoised, tmp_path):
    project = denoised.copy(tmp_path / "project")
    root = project.path("study/derivatives/voxmill")
    files = sorted(path for path in root.rglob("sub-*_T1w.*") if ".made" not in path.parts)
    before = {path: path.read_bytes() for path in files}
    assert len(files) == 4
    files[0].unlink()
    (root / "sub-02/anat/sub-02_desc-denoised_T1w.json").write_text("{}")
    assert project.jobs("denoise") == {"denoise": 1, "write_derivatives": 1}
    project.snakemake("denoise")
    assert {path: path.read_bytes() for path in files} == before
    assert project.jobs("denoise") == {}


def test_every_fit_leaves_a_record_with_its_memory(denoised):
    rows = {row.task: row for row in table.read(denoised.folder)}
    made = rows["results/made/denoised.nii.gz"]
    assert len(rows) == 3 and made.status == "done"
    assert made.memory_mb > 0 and made.devices == "cpu"


def test_derivatives_are_laid_out(denoised):
    root = denoised.path("study/derivatives/voxmill")
    image = nibabel.load(root / "sub-02/anat/sub-02_desc-denoised_T1w.nii.gz")
    assert image.shape == (9, 9, 9)
    assert json.loads((root / "dataset_description.json").read_text())["GeneratedBy"]


def test_second_run_finds_nothing_to_do_and_a_setting_reruns_the_fits(denoised, tmp_path):
    project = denoised.copy(tmp_path / "project")
    assert project.jobs() == project.jobs("denoise") == {}
    project.configure(denoising={"iterations": 6})
    assert project.jobs("denoise") == {"denoise_scan": 3, "write_derivatives": 1, "denoise": 1}


def test_a_touched_scan_reruns_nothing_and_a_changed_one_its_fit(denoised, tmp_path):
    project = denoised.copy(tmp_path / "project")
    scan = project.folder / "raw/sub-01/anat/sub-01_T1w.nii.gz"
    os.utime(scan)
    assert project.jobs("denoise") == {}
    image = nibabel.load(scan)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine), scan)
    assert project.jobs("denoise") == {"denoise_scan": 1, "write_derivatives": 1, "denoise": 1}


def test_a_deleted_product_is_missed(denoised, tmp_path):
    project = denoised.copy(tmp_path / "project")
    project.path("made/denoising.csv").unlink()
    assert project.jobs("denoise") == {"denoise_scan": 1, "denoise": 1}


def run_until(project, condition):
    """Start a fit, end its whole session once the condition holds; returns whether it did.

    As a cluster ends a job: a signal to Snakemake alone would wait for the fit.
    """
    process = project.start("results/made/denoised.nii.gz", "--rerun-incomplete")
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    met = condition()
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=120)
    return met


def test_a_terminated_job_goes_on_from_its_checkpoint(tmp_path):
    project = make_project(tmp_path / "project", iterations=100_000, checkpoint_every=20)
    checkpoint = project.path("made/.denoising.pt")
    assert run_until(project, checkpoint.exists)
    assert checkpoint.exists()
    log = project.folder / "logs" / "made" / "denoise_scan.log"
    ended = re.search(r"ended by a signal after iteration (\d+)", log.read_text())

    def goes_on():
        return log.exists() and f"going on after iteration {ended[1]}\n" in log.read_text()

    assert run_until(project, goes_on)


def test_bad_configuration_is_one_message(denoised, tmp_path):
    project = denoised.copy(tmp_path / "project")
    project.configure(denoising={"devices": ["cpu"], "precision": "float16"})
    output = project.snakemake("--dry-run", ok=False)
    assert "config: denoising.precision: float16 needs GPUs" in output
    project.configure(denoising={"epochs": 5})
    output = project.snakemake("--dry-run", ok=False)
    assert "unknown key 'epochs'" in output
    (project.folder / "my.yaml").write_text("scans: {}\nvolumes: {}\n")
    assert "nothing to do: expected volumes" in project.snakemake("--dry-run", ok=False)
