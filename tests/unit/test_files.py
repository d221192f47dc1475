"""Outputs are whole or absent, and have one writer at a time."""

import os
import subprocess
import sys

import pytest

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json, sha256, write_json, writing


def test_a_block_that_ends_well_leaves_the_file_and_nothing_else(tmp_path):
    with writing(tmp_path / "sub" / "a.txt") as scratch:
        assert scratch.suffix == ".txt"
        scratch.write_text("done")
        assert not (tmp_path / "sub" / "a.txt").exists()
    assert (tmp_path / "sub" / "a.txt").read_text() == "done"
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["a.txt"]


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), writing(path) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path):
    path = tmp_path / "a.txt"
    with writing(path) as scratch:
        scratch.write_text("first")
        with pytest.raises(VoxmillError, match="another process is writing"), writing(path):
            pass
    assert path.read_text() == "first"


def test_a_killed_writer_leaves_no_lock(tmp_path):
    path = tmp_path / "a.txt"
    code = (
        "import os, signal\n"
        "from voxmill.runtime.files import writing\n"
        f"with writing({str(path)!r}) as scratch:\n"
        "    scratch.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert not path.exists()
    with writing(path) as scratch:
        scratch.write_text("whole")
    assert path.read_text() == "whole"


def test_json_round_trip_and_stable_bytes(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1, 2]})
    write_json(tmp_path / "b.json", {"a": [1, 2], "b": 1})
    assert read_json(tmp_path / "a.json") == {"a": [1, 2], "b": 1}
    assert sha256(tmp_path / "a.json") == sha256(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "expected a plan in JSON"), ("[1]", "expected a JSON object, found list")],
)
def test_broken_json_is_named(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(VoxmillError, match=message):
        read_json(tmp_path / "a.json", "plan")


def test_missing_json_is_named(tmp_path):
    with pytest.raises(VoxmillError, match=r"a\.json: this plan does not exist"):
        read_json(tmp_path / "a.json", "plan")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    """Opening it would wait for a writer for ever."""
    from voxmill.denoising.nifti import read_scan
    from voxmill.evaluation.point_columns import TruthReading
    from voxmill.evaluation.point_tables import read_points
    from voxmill.geometry import VoxelSize
    from voxmill.volumes import read_header

    path = tmp_path / "v.tif"
    os.mkfifo(path)
    for read in (
        read_json, read_header, read_scan,
        lambda pipe: read_points(pipe, VoxelSize(1, 1, 1), TruthReading()),
    ):  # fmt: skip
        with pytest.raises(VoxmillError, match=r"(a pipe|no plain file)"):
            read(path)
