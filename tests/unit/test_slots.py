"""GPU slots: one job a GPU, in a folder that no other user can turn against one."""

import contextlib
import os
import stat
import subprocess
import sys

import pytest

from voxmill.runtime import slots
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.owned import open_own, own_folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The default folder, elsewhere; and a name of GPUs that no other test has."""
    monkeypatch.delenv(slots.SLOTS, raising=False)
    path = tmp_path / "voxmill-gpus-1"
    monkeypatch.setattr(slots, "default_folder", lambda: path)
    return path


@pytest.fixture
def gpu(tmp_path):
    return f"test {tmp_path}"[-60:]


def taken(name):
    with contextlib.ExitStack() as stack:
        return slots.take(name, stack)


def test_a_gpu_is_taken_once_and_released(folder, gpu):
    with contextlib.ExitStack() as stack:
        assert slots.take(gpu, stack)
        assert not taken(gpu)
        assert taken(gpu + "1")
    assert taken(gpu)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_another_user_with_another_folder_does_not_get_the_same_gpu(folder, gpu, monkeypatch):
    with contextlib.ExitStack() as stack:
        assert slots.take(gpu, stack)
        other = folder.with_name("voxmill-gpus-2")
        monkeypatch.setattr(slots, "default_folder", lambda: other)
        with contextlib.ExitStack() as second:
            assert not slots.take(gpu, second)
            # What was not taken is not kept from others either.
            assert not second._exit_callbacks
    assert taken(gpu)


def test_a_killed_job_leaves_nothing_taken(folder, gpu):
    code = (
        "import contextlib, os, pathlib, signal\n"
        "from voxmill.runtime import slots\n"
        f"slots.default_folder = lambda: pathlib.Path({str(folder)!r})\n"
        f"assert slots.take({gpu!r}, contextlib.ExitStack())\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert taken(gpu)


@pytest.mark.parametrize("chosen", [False, True])
def test_a_planted_link_is_refused_and_its_target_untouched(
    folder, gpu, tmp_path, monkeypatch, chosen
):
    victim = tmp_path / "victim"
    folder.symlink_to(victim)
    if chosen:
        monkeypatch.setenv(slots.SLOTS, str(folder))
    for exists in (False, True):
        if exists:
            victim.mkdir(mode=0o750)
        with pytest.raises(VoxmillError, match="expected a folder, found a link"):
            taken(gpu)
        assert victim.exists() == exists
    assert stat.S_IMODE(victim.stat().st_mode) == 0o750
    assert list(victim.iterdir()) == []


def test_a_planted_link_or_pipe_in_place_of_a_lock_is_refused(folder, gpu, tmp_path):
    taken(gpu)
    lock = next(folder.iterdir())
    lock.unlink()
    lock.symlink_to(tmp_path / "created")
    with pytest.raises(VoxmillError, match="expected a file to lock"):
        taken(gpu)
    assert not (tmp_path / "created").exists()
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(VoxmillError, match="expected a regular file"):
        taken(gpu)


def test_a_folder_of_another_user_or_open_to_others_is_refused(folder, gpu, monkeypatch):
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(VoxmillError, match=r"others may write to this folder \(mode 777\)"):
        taken(gpu)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777
    folder.chmod(0o700)
    user = folder.stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(VoxmillError, match=f"found one of user {user - 1}"):
        taken(gpu)


def test_an_administrators_folder_serves_several_users(folder, gpu, monkeypatch):
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv(slots.SLOTS, str(folder))
    with contextlib.ExitStack() as stack:
        assert slots.take(gpu, stack)
        if os.geteuid() == 0:
            # The folder and the lock are root's; another user asks.
            monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert not taken(gpu)


def test_files_of_others_are_not_opened(tmp_path, monkeypatch):
    path = own_folder(tmp_path / "mine", "") / "a"
    path.write_text("text")
    os.close(open_own(path, os.O_RDONLY))
    user = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(VoxmillError, match="expected a regular file of yours"):
        open_own(path, os.O_RDONLY)
