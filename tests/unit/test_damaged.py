"""Products that are not what was written, noticed when a run starts."""

import errno
import os
from pathlib import Path

import pytest

from voxmill.runtime import receipts
from voxmill.workflow.damaged import set_damaged_aside

BIDS = "d/derivatives/voxmill"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "v/cells.csv", "v/net/probability.ome.zarr/zarr.json", "v/net/export/napari/cells.csv",
        "v/net/probability.ome.zarr/0/zarr.json", f"{BIDS}/sub-1/anat/t1.nii.gz",
        f"{BIDS}/dataset_description.json", "v/tiles/.made/unread.json",
    ):  # fmt: skip
        path = Path("results", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")
        if name != "v/tiles/.made/unread.json":
            receipts.write_receipts([path.parent if "export" in name else path], "a job", "")
    return Path("results")


def notice():
    return set_damaged_aside(["v", "d", "not there"])


def test_nothing_is_said_of_what_is_whole(run):
    assert notice() == []
    for path in run.rglob("*"):
        os.utime(path)
    assert notice() == [], "the content counts"
    path = run / "v/cells.csv"
    os.utime(path, (4_000_000_000, 4_000_000_000))
    before = receipts.receipt_path(path).stat().st_mtime_ns
    assert notice() == []
    assert receipts.receipt_path(path).stat().st_mtime_ns >= before


@pytest.mark.parametrize("change", ["flip", "cut", "foreign", "old"])
def test_what_was_damaged_is_set_aside(run, change):
    path = run / "v/cells.csv"
    text = {"flip": "Content", "cut": "con", "foreign": "z,y,x\n", "old": ""}[change]
    path.write_text(text)
    if change == "old":
        os.utime(path, (0, 0))
    (warning,) = notice()
    assert warning.startswith("results/v/cells.csv: damaged, edited or of another run")
    assert warning.endswith("It is made anew. What was there is .cells.csv.damaged now.")
    assert not path.exists() and (run / "v/.cells.csv.damaged").read_text() == text
    assert notice() == []


def test_a_flip_that_keeps_size_and_date_is_left_to_the_readers(run):
    path = run / "v/cells.csv"
    date = path.stat().st_mtime_ns
    path.write_text("Content")
    os.utime(path, ns=(date, date))
    assert notice() == []


@pytest.mark.parametrize(
    ("lost", "last"),
    [
        ("v/net/probability.ome.zarr/0/zarr.json", "v/net/probability.ome.zarr/zarr.json"),
        (f"{BIDS}/sub-1/anat/t1.nii.gz", f"{BIDS}/dataset_description.json"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["deleted", "damaged"])
def test_what_snakemake_does_not_know_of_is_made_with_what_it_knows(run, lost, last, way):
    if way == "deleted":
        (run / lost).unlink()
    else:
        (run / lost).write_text("another")
    (warning,) = notice()
    assert warning.startswith(f"results/{lost}: ") and "It is made anew." in warning
    assert not (run / last).exists()
    assert notice() == []


def test_a_deleted_output_is_snakemakes_to_miss(run):
    (run / "v/cells.csv").unlink()
    (run / "v/net/probability.ome.zarr/zarr.json").unlink()
    assert notice() == []


def test_a_folder_of_an_export_is_one_product(run):
    folder = run / "v/net/export/napari"
    for content in ("another", "the next time"):
        folder.mkdir(exist_ok=True)
        receipts.write_receipts([folder], "a job", "")
        (folder / "cells.csv").write_text(content)
        (warning,) = notice()
        assert warning.startswith("results/v/net/export/napari: damaged")
        assert not folder.exists()
        assert (folder.with_name(".napari.damaged") / "cells.csv").read_text() == content


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_where_nothing_can_be_written_the_remedy_is_told(run, monkeypatch, number):
    def refused(path, target):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "replace", refused)
    (run / "v/cells.csv").write_text("cut")
    (warning,) = notice()
    assert warning.startswith("results/v/cells.csv: damaged") and warning.endswith(receipts.REMAKE)
    assert receipts.receipt_path(run / "v/cells.csv").exists()


def test_a_damaged_receipt_is_no_reason_to_lose_a_product(run):
    receipts.receipt_path(run / "v/cells.csv").write_text("{")
    (warning,) = notice()
    assert "cells.csv.json" in warning
    assert (run / "v/.cells.csv.damaged").exists()
