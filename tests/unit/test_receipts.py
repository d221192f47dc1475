"""What a job leaves beside its outputs, and what it keeps by it."""

import os
import shutil
from pathlib import Path

import pytest

from voxmill.runtime import receipts
from voxmill.runtime.checked import DamagedFileError
from voxmill.runtime.jobs import job


class Times:
    """How often the job below ran."""

    done = 0


@pytest.fixture(autouse=True)
def _count():
    Times.done = 0


@job(outputs=("output_path", "second_path"))
def double(*, table_path, output_path, second_path, settings, threads=1, weights_path=None):
    """Write twice what a table holds."""
    Times.done += 1
    Path(output_path).write_text(Path(table_path).read_text() * 2)
    Path(second_path).write_text(str(settings))


@pytest.fixture
def arguments(tmp_path):
    (tmp_path / "in.csv").write_text("1,2\n")
    return {
        "table_path": str(tmp_path / "in.csv"), "output_path": str(tmp_path / "out.csv"),
        "second_path": str(tmp_path / "second.txt"), "settings": {"a": 1}, "code": "c",
    }  # fmt: skip


def test_whole_outputs_of_the_same_inputs_settings_and_code_are_kept(arguments, tmp_path):
    double(**arguments)
    written = (tmp_path / "out.csv").stat().st_mtime_ns
    os.utime(tmp_path / "in.csv")
    double(**arguments, threads=4, log_path=tmp_path / "log")
    assert Times.done == 1
    assert (tmp_path / "out.csv").stat().st_mtime_ns == written
    assert "kept, whole and made of the same" in (tmp_path / "log").read_text()


def test_kept_wherever_the_files_lie(arguments, tmp_path):
    double(**arguments)
    shutil.copytree(tmp_path, tmp_path / "moved")
    there = dict(arguments)
    for key in ("table_path", "output_path", "second_path"):
        there[key] = arguments[key].replace(str(tmp_path), str(tmp_path / "moved"))
    double(**there)
    assert Times.done == 1


@pytest.mark.parametrize("change", ["settings", "code", "input", "deleted", "damaged", "unknown"])
def test_anything_else_is_made_anew(arguments, tmp_path, change):
    double(**arguments)
    output = tmp_path / "out.csv"
    if change in ("settings", "code"):
        arguments[change] = "other"
    elif change == "input":
        (tmp_path / "in.csv").write_text("1,3\n")
    elif change == "deleted":
        (tmp_path / "second.txt").unlink()
    elif change == "damaged":
        output.write_text("1,2\n1,4\n")
    else:
        receipts.receipt_path(output).unlink()
    double(**arguments)
    assert Times.done == 2
    assert output.read_text() == (tmp_path / "in.csv").read_text() * 2
    double(**arguments)
    assert Times.done == 2


def test_the_card_beside_the_weights_counts(arguments, tmp_path):
    weights = tmp_path / "m.safetensors"
    weights.write_bytes(b"w")
    (tmp_path / "m.json").write_text("{}")
    double(**arguments, weights_path=weights)
    (tmp_path / "m.json").write_text('{"a": 1}')
    double(**arguments, weights_path=weights)
    assert Times.done == 2


def test_without_the_code_no_receipt_is_left(arguments, tmp_path):
    del arguments["code"]
    double(**arguments)
    double(**arguments)
    assert Times.done == 2
    assert not (tmp_path / receipts.FOLDER).exists()


@pytest.mark.parametrize("damage", ["edited", "cut short", "foreign receipt", "damaged receipt"])
def test_a_reader_refuses_a_file_that_its_receipt_does_not_fit(arguments, tmp_path, damage, capsys):
    double(**arguments)
    output, receipt = tmp_path / "out.csv", receipts.receipt_path(tmp_path / "out.csv")
    match = "out.csv: damaged, edited or of another run: .* double wrote.*Delete it and run again"
    if damage == "edited":
        output.write_text(output.read_text().replace("2", "3"))
    elif damage == "cut short":
        output.write_text("1,2\n")
    elif damage == "foreign receipt":
        shutil.copy(receipts.receipt_path(tmp_path / "second.txt"), receipt)
    else:
        receipt.write_text(receipt.read_text().replace('"bytes": 8', '"bytes": 9'))
        match = "damaged or edited: the content of this receipt of .*out.csv"
    with pytest.raises(DamagedFileError, match=match):
        receipts.check_file(output)
    reading = arguments | {"table_path": str(output), "output_path": str(tmp_path / "third.csv")}
    with pytest.raises(SystemExit):
        double(**reading)
    assert Times.done == 1
    assert "out.csv" in capsys.readouterr().err


def test_a_missing_file_and_one_without_a_receipt(arguments, tmp_path):
    receipts.check_file(tmp_path / "in.csv")
    double(**arguments)
    (tmp_path / "out.csv").unlink()
    with pytest.raises(DamagedFileError, match=r"out\.csv: this file does not exist"):
        receipts.check_file(tmp_path / "out.csv")


def test_folders_and_volumes_in_an_identity(tmp_path):
    folder = tmp_path / "image"
    (folder / "c").mkdir(parents=True)
    (folder / "c" / "0").write_bytes(b"shard")

    def identity(**changes):
        keywords = {"probability_path": folder, "volume": {"path": "a", "channel": 0}} | changes
        return receipts.identity_of("job", "code", keywords, ())

    before = identity()
    assert identity(volume={"path": "b", "channel": 0}) != before
    known = identity(fingerprint="f")
    assert identity(volume={"path": "b", "channel": 0}, fingerprint="f") == known
    assert identity(volume={"path": "a", "channel": 1}, fingerprint="f") != known
    assert identity(fingerprint="g") != known
    # A file that is the volume's counts by the fingerprint, and is not read once more.
    source = {"path": str(tmp_path / "v.tif")}
    (tmp_path / "v.tif").write_bytes(b"voxels")
    named = identity(source=source, foreground_path=source["path"], fingerprint="f")
    (tmp_path / "v.tif").write_bytes(b"other voxels")
    assert identity(source=source, foreground_path=source["path"], fingerprint="f") == named
    assert identity(source=source, foreground_path=source["path"], fingerprint="g") != named
    (folder / "c" / "0").write_bytes(b"longer")
    assert identity() != before


def test_outputs_that_list_others_are_kept_where_these_are_whole(arguments):
    whole, asked = [True], []

    @job(outputs=("output_path",), whole=lambda keywords: asked.append(keywords) or whole[0])
    def listing(*, table_path, output_path, second_path, settings):
        Times.done += 1
        Path(output_path).write_text("list")

    listing(**arguments)
    assert (Times.done, asked) == (1, [])
    listing(**arguments)
    assert Times.done == 1 and asked[0]["output_path"] == arguments["output_path"]
    whole[0] = False
    listing(**arguments)
    assert Times.done == 2


@pytest.mark.parametrize("change", ["content", "name", "link", "deleted", "added"])
def test_the_receipt_of_a_folder_is_about_all_its_files(tmp_path, change):
    folder = tmp_path / "export"
    (folder / "cells").mkdir(parents=True)
    (folder / "cells" / "info").write_text("cells")
    (folder / "link").symlink_to("elsewhere")
    receipts.write_receipts([folder], "export", "identity")
    receipts.check_file(folder)
    assert receipts.are_kept([folder], "identity")
    if change == "content":
        (folder / "cells" / "info").write_text("cellz")
    elif change == "name":
        (folder / "cells" / "info").rename(folder / "cells" / "inf0")
    elif change == "link":
        (folder / "link").unlink()
        (folder / "link").symlink_to("elsewhera")
    elif change == "deleted":
        (folder / "cells" / "info").unlink()
    else:
        (folder / "more").write_text("")
    with pytest.raises(DamagedFileError, match=r"export: damaged, edited"):
        receipts.check_file(folder)
