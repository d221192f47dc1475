"""Full disks, folders of others and file systems without locks: told in words, nothing left."""

import errno
import fcntl
import logging
import os
import subprocess
import sys
import textwrap

import pytest

from voxmill.runtime import disk, locks
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import write_text, writing

# Each writes more than 100 kB, by the ways that voxmill has.
WRITERS = {
    "text": "write_text('out/a.txt', 'x' * 300_000)",
    "checked": "write_checked('out/a.bin', bytes(300_000))",
    "tile": "write_tile('out/a.tif', noise, (1, 1, 1), (0, 0, 0))",
    "planes": "write_planes('out/a.tif', iter(noise), noise.shape, noise.dtype)",
    "zlib": "write_planes('out/a.tif', iter(noise), noise.shape, noise.dtype, compression='zlib')",
    "nibabel": (
        "with writing('out/a.nii.gz') as scratch:\n"
        "    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), scratch)"
    ),
    "safetensors": (
        "with writing('out/a.safetensors') as scratch:\n"
        "    save_file({'a': torch.zeros(100_000)}, scratch)"
    ),
    "torch": "with writing('out/a.pt') as scratch:\n    torch.save(torch.zeros(100_000), scratch)",
    "picture": (
        "with writing('out/a.png') as scratch:\n"
        "    Image.fromarray(noise.reshape(300, -1).view('uint8')).save(scratch)"
    ),
}
SCRIPT = """
import resource, signal
import numpy as np, nibabel, torch
from PIL import Image
from safetensors.torch import save_file
from voxmill.runtime.checked import write_checked
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import write_text, writing
from voxmill.volumes.output import write_planes
from voxmill.volumes.tiles import write_tile

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
noise = np.random.default_rng(0).integers(0, 60000, (3, 200, 300)).astype(np.uint16)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for name, code in WRITERS.items():
    try:
        exec(code)
    except VoxmillError as error:
        print(name, "|", error)
    except BaseException as error:
        print(name, "| TRACEBACK", type(error), error)
    else:
        print(name, "| written")
"""


def test_every_writer_says_that_space_is_needed_and_leaves_nothing(tmp_path):
    script = f"WRITERS = {WRITERS!r}\n" + textwrap.dedent(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    said = dict(line.split(" | ", 1) for line in done.stdout.splitlines() if " | " in line)
    assert said.keys() == WRITERS.keys()
    for message in said.values():
        assert message.startswith("out/a.")
        assert "cannot be written" in message
        assert "are free in out" in message
        assert "Free space" in message
    assert "About 360.0 kB are needed" in said["tile"]
    assert "ulimit -f" in said["text"]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_fills_up_keeps_the_old_file(tmp_path, number):
    path = tmp_path / "a.txt"
    path.write_text("old")
    expected = f"{os.strerror(number)}.*4 bytes were written"
    with (
        pytest.raises(VoxmillError, match=expected) as said,
        writing(path, needed_bytes=2000) as scratch,
    ):
        scratch.write_text("half")
        raise OSError(number, os.strerror(number))
    assert "About 2.0 kB are needed" in str(said.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_up_while_the_file_is_synced(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", full)
    with pytest.raises(VoxmillError, match="No space left"):
        write_text(tmp_path / "a.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 5_000_000})
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: usage)
    expected = r"About 6\.0 MB are needed.*5\.0 MB are free"
    with pytest.raises(VoxmillError, match=expected), writing(tmp_path / "a.txt", 6_000_000):
        pytest.fail("the block must not run")
    with writing(tmp_path / "a.txt", needed_bytes=4_000_000) as scratch:
        scratch.write_text("small")
    # A file system that does not know says zero.
    usage.free = 0
    with writing(tmp_path / "a.txt", needed_bytes=4_000_000) as scratch:
        scratch.write_text("small")


def test_file_and_folder_are_synced_around_the_rename(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        events.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))))
        fsync(handle)

    def replaced(scratch, path):
        events.append(("rename", os.path.basename(path)))
        replace(scratch, path)

    monkeypatch.setattr(disk.os, "fsync", synced)
    monkeypatch.setattr(disk.os, "replace", replaced)
    write_text(tmp_path / "a.txt", "text")
    kinds = [kind for kind, _ in events]
    assert kinds == ["sync", "rename", "sync"]
    assert events[0][1].endswith(".a.txt") and events[2][1] == tmp_path.name


def test_other_errors_stay_what_they_are(tmp_path):
    for error in (ZeroDivisionError("no"), OSError(errno.EIO, "broken"), VoxmillError("ours")):
        with pytest.raises(type(error)) as found, writing(tmp_path / "a.txt"):
            raise error
        assert found.value is error
    with pytest.raises(PermissionError), writing(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "not ours", "/somewhere/else")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable_is_named(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(VoxmillError, match=r"a\.txt: this file cannot be written"):
        write_text(folder / "a.txt", "text")


def test_a_read_only_file_system_is_named(tmp_path, monkeypatch):
    def read_only(path, **keywords):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path))

    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    with pytest.raises(VoxmillError, match=r"a\.txt: this file cannot be written \(Read-only"):
        write_text(tmp_path / "sub" / "a.txt", "text")


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_gets_one_warning(tmp_path, monkeypatch, caplog, number):
    def without(handle, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)
    monkeypatch.setattr(locks, "_warned", set())
    with caplog.at_level(logging.WARNING):
        for text in ("one", "two"):
            write_text(tmp_path / "a.txt", text)
    assert (tmp_path / "a.txt").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "this file system has no locks" in warnings[0]


def test_an_unexpected_error_of_a_lock_is_not_passed_over(tmp_path, monkeypatch):
    def broken(handle, operation):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="broken"):
        write_text(tmp_path / "a.txt", "text")
