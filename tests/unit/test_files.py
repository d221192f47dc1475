"""Outputs are whole or absent, and have one writer at a time."""

import errno
import os
import subprocess
import sys

import pytest

from voxmill.runtime import locks
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json, remove_leftovers, sha256, write_json, writing


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


def killed(path):
    """A writer that is killed in the middle leaves a scratch file and a folder beside it."""
    code = (
        "import os, signal\n"
        "from voxmill.runtime.files import scratch_folder, writing\n"
        f"with writing({str(path)!r}) as scratch:\n"
        "    scratch.write_text('half')\n"
        "    scratch_folder(scratch).mkdir()\n"
        "    (scratch_folder(scratch) / 'piece').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    left = sorted(p.name for p in path.parent.iterdir() if f".{path.name}" in p.name)
    assert len(left) == 3 and left[0] == f".{path.name}.lock" and not path.exists()


def test_what_a_killed_writer_left_goes_when_its_file_is_made_anew(tmp_path):
    path = tmp_path / "a.txt"
    killed(path)
    killed(path)  # the second one has removed what the first one left
    with writing(path) as scratch:
        scratch.write_text("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_is_removed_and_what_living_ones_have_stays(tmp_path):
    (tmp_path / ".of-a-user-7.txt").touch()
    (tmp_path / ".b.lock").write_text("../.of-a-user-7.txt")
    for name in ("a.txt", "sub.zarr/0/c/7"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        killed(tmp_path / name)
    with writing(tmp_path / "lives") as scratch:
        scratch.write_text("whole")
        removed = remove_leftovers(tmp_path)
        assert {p.parent.relative_to(tmp_path).as_posix() for p in removed} == {".", "sub.zarr/0/c"}
        assert len(removed) == 4
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"lives", ".of-a-user-7.txt"}


def test_without_locks_nothing_of_another_writer_is_removed(tmp_path, monkeypatch):
    def flock(handle, flags):
        raise OSError(errno.ENOLCK, "No locks available")

    path = tmp_path / "a.txt"
    with writing(path) as first:
        first.write_text("first")
        monkeypatch.setattr("fcntl.flock", flock)
        monkeypatch.setattr(locks, "_warned", set())
        (tmp_path / ".a.txt.lock").write_text(".other-7.a.txt")
        (tmp_path / ".other-7.a.txt").touch()
        assert remove_leftovers(tmp_path) == []
        with writing(tmp_path / "b.txt") as scratch:
            scratch.touch()
    assert path.read_text() == "first"
    assert (tmp_path / ".other-7.a.txt").exists()


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
