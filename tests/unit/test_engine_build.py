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
