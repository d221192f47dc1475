"""The native engine is compiled once; without it there is one warning and another backend."""

import ctypes
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import backends, build, fourier
from voxmill.networks import build as build_network


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder of native sources with one small library, and an empty cache."""
    folder = tmp_path / "native"
    folder.mkdir()
    (folder / "tiny.cpp").write_text('#include "tiny.hpp"\nextern "C" int answer() { return N; }\n')
    (folder / "tiny.hpp").write_text("#define N 42\n")
    monkeypatch.setattr(build, "_FOLDER", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build.load.cache_clear()
    yield folder
    build.load.cache_clear()


@pytest.fixture
def compiler():
    path = build.compiler()
    if path is None:
        pytest.skip("no compiler")
    return path


def test_compiled_once_and_again_after_a_change(sources, compiler):
    first = build.build("tiny", compiler)
    stamp = first.stat().st_mtime_ns
    assert build.build("tiny", compiler) == first
    assert first.stat().st_mtime_ns == stamp
    assert ctypes.CDLL(str(first)).answer() == 42
    (sources / "tiny.hpp").write_text("#define N 43\n")
    second = build.build("tiny", compiler)
    assert second != first
    assert ctypes.CDLL(str(second)).answer() == 43


def test_another_cpu_gets_another_library(sources, compiler, monkeypatch):
    first = build.build("tiny", compiler)
    monkeypatch.setattr(build, "cpu_flags", lambda: "another")
    assert build.build("tiny", compiler) != first


def test_at_the_same_time_one_compiles(sources, compiler, monkeypatch):
    runs = []
    real = subprocess.run

    def counted(command, **keywords):
        runs.append(command)
        return real(command, **keywords)

    monkeypatch.setattr(build.subprocess, "run", counted)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: build.build("tiny", compiler), range(4)))
    assert len(paths) == 1
    assert sum("-o" in command for command in runs) == 1


def test_without_a_compiler_one_warning_and_the_pytorch_engine(sources, monkeypatch, caplog):
    monkeypatch.setattr(build, "compiler", lambda: None)
    network = build_network("msdnet", MSDNetSettings(depth=1))
    with caplog.at_level(logging.WARNING):
        chosen = [
            backends.choose("auto", network, "cpu", "float32", (9, 9, 9)).name for _ in range(2)
        ]
    assert chosen == ["torch-fast", "torch-fast"]
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "there is no C++ compiler" in warnings[0].message


def test_a_failing_compiler_says_why(sources, compiler, caplog):
    (sources / "tiny.hpp").write_text("#error no luck today\n")
    reason = build.load("tiny")
    assert "no luck today" in reason
    assert "no luck today" in caplog.text


def test_engine_without_library(monkeypatch):
    monkeypatch.setattr(build, "load", lambda source: "there is no compiler")
    with pytest.raises(ValueError, match="native engine can't be used here: there is no compiler"):
        fourier.Engine(MSDNetSettings(depth=1), (4, 4, 4))


@pytest.mark.parametrize(
    ("chosen", "count"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7")], ids=["default", "user's"]
)
def test_threads_spin_briefly_unless_the_user_says_otherwise(compiler, chosen, count):
    """By what OpenMP itself reports after torch and the engine are loaded."""
    if sys.platform != "linux":
        pytest.skip("GCC's OpenMP on Linux")
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    kept = {key: value for key, value in os.environ.items() if key not in names}
    code = "from voxmill.engine.build import load; import torch; load('fourier')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=kept | chosen | {"OMP_DISPLAY_ENV": "verbose"},
    )
    assert f"GOMP_SPINCOUNT = '{count}'" in done.stderr


def broken(content):
    """A library with flipped bytes all over, and cut short at several places."""
    for position in range(0, len(content), len(content) // 9):
        changed = bytearray(content)
        changed[position : position + 64] = bytes(255 - byte for byte in content[position:][:64])
        yield bytes(changed)
        yield content[:position]


def test_a_damaged_library_is_compiled_again(sources, compiler, caplog):
    """Loading one ends in SIGBUS or SIGSEGV, which nothing can catch."""
    library = build.build("tiny", compiler)
    whole = library.read_bytes()
    for damaged in broken(whole):
        library.write_bytes(damaged)
        assert not build.is_whole(library)
    assert build.build("tiny", compiler) == library
    assert "compiling it again" in caplog.text
    assert build.is_whole(library)
    assert ctypes.CDLL(str(library)).answer() == 42


@pytest.mark.parametrize("damage", ["missing", "other", "empty"])
def test_a_library_without_its_digest_is_compiled_again(sources, compiler, damage):
    library = build.build("tiny", compiler)
    beside = library.with_suffix(".sha256")
    if damage == "missing":
        beside.unlink()
    else:
        beside.write_text("0" * 64 if damage == "other" else "")
    assert not build.is_whole(library)
    assert build.is_whole(build.build("tiny", compiler))


def test_a_planted_library_is_not_loaded(sources, compiler, tmp_path, monkeypatch):
    library = build.build("tiny", compiler)
    elsewhere = tmp_path / "elsewhere.so"
    library.rename(elsewhere)
    library.symlink_to(elsewhere)
    assert not build.is_whole(library)
    build.build("tiny", compiler)
    assert not library.is_symlink() and build.is_whole(library)
    # The files of a user whom nobody trusts.
    monkeypatch.setattr(build, "trusted", set)
    user = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert not build.is_whole(library)
    build.load.cache_clear()
    assert "expected a folder of yours" in build.load("tiny")


def test_a_cache_that_all_may_write_to_is_not_used(sources, compiler, tmp_path):
    folder = tmp_path / "cache" / "voxmill"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert "others may write" in build.load("tiny")
    assert list(folder.iterdir()) == []


def test_nothing_is_left_beside_library_and_digest(sources, compiler):
    library = build.build("tiny", compiler)
    found = {path.name for path in library.parent.iterdir()}
    assert found == {library.name, library.with_suffix(".sha256").name, "tiny.lock"}
