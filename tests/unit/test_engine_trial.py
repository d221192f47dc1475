"""The trial: the fastest of the right backends at real sizes, kept on the disk; on the CPU."""

import json
import logging
import types

import numpy as np
import pytest
import torch
from test_engine_backends import random_network

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import trial, trial_file
from voxmill.engine.backends import BACKENDS
from voxmill.engine.trial_file import Line, Outcome


class Fake:
    """A backend that gives the reference's numbers plus `error`, as if after some seconds."""

    def __init__(self, name, fixed=0.0, voxel_s=1e-3, error=0.0, problem=None, bytes_per_voxel=4):
        self.name, self.fixed, self.voxel_s = name, fixed, voxel_s
        self.error, self.problem, self.bytes_per_voxel = error, problem, bytes_per_voxel
        self.shapes = []

    def run(self, network, volume, device, precision, threads):
        self.shapes.append(volume.shape[1:])
        if self.problem:
            raise self.problem
        return BACKENDS["torch"].run(network, volume, "cpu", "float32", threads) + self.error

    def predict_bytes(self, settings, box_shape, precision, device):
        return self.bytes_per_voxel * int(np.prod(box_shape))


@pytest.fixture(autouse=True)
def fresh_trials_with_a_clock_of_their_own(monkeypatch, tmp_path):
    def timed(run):
        run()
        backend, volume = run.func.__self__, run.args[1]
        return backend.fixed + backend.voxel_s * volume[0].size

    monkeypatch.setattr(trial, "_outcomes", {})
    monkeypatch.setattr(trial, "_timed", timed)
    monkeypatch.setattr(trial, "EDGES", (3, 6))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def gpu(monkeypatch):
    """A card for the names of files; returns what tells about it."""
    about = types.SimpleNamespace(
        name="NVIDIA H100", multi_processor_count=132, total_memory=2**36, major=9, minor=0
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**31))
    return about


def fastest(candidates, precision="float32", shape=(40, 50, 60), depth=1, device="cpu"):
    network = random_network(depth=depth)
    return trial.fastest(candidates, Fake("reference"), network, device, precision, shape)


def test_the_fastest_is_chosen_and_its_rate_logged(caplog):
    caplog.set_level(logging.INFO)
    slow, fast = Fake("slow", voxel_s=2e-9), Fake("fast", voxel_s=1e-9)
    assert fastest([slow, fast]) is fast
    said = "backend: fast on cpu, float32, by trials of up to 6x6x6 voxels, for boxes of 40x50x60"
    assert f"{said} (slow 2 ns a voxel; fast 1 ns a voxel)" in caplog.text


def test_real_blocks_decide_and_not_the_boxes_of_the_trial():
    """With many kernels, one is slower on both boxes and four times faster on a block."""
    many = Fake("many kernels", fixed=1.0, voxel_s=1e-3)
    few = Fake("few kernels", fixed=0.0, voxel_s=4e-3)
    assert 1.0 + 1e-3 * 6**3 > 4e-3 * 6**3
    assert fastest([few, many]) is many
    assert fastest([few, many], shape=(4, 4, 4)) is few
    assert len(many.shapes) == len(few.shapes) == 2 * (1 + trial.REPEATS), "one trial for both"


def test_a_block_that_does_not_fit_is_judged_as_it_will_be_cut(monkeypatch):
    monkeypatch.setattr(trial, "free_bytes", lambda device: 4 * 40 * 50 * 60)
    # Fixed costs count eight times where only an eighth of the box fits.
    large = Fake("large", fixed=50.0, voxel_s=1e-3, bytes_per_voxel=32)
    small = Fake("small", fixed=100.0, voxel_s=1e-3)
    assert fastest([large, small]) is small
    monkeypatch.setattr(trial, "free_bytes", lambda device: 2**40)
    assert fastest([large, small]) is large


def test_one_trial_for_each_kind_of_network_whatever_the_box():
    fake = Fake("fake")
    for depth, edge in ((1, 9), (1, 5), (2, 9), (1, 7)):
        assert fastest([fake], depth=depth, shape=(edge, 3, 3)) is fake
    assert len(fake.shapes) == 2 * 2 * (1 + trial.REPEATS)


def test_one_that_fails_is_left_out_with_its_reason(caplog):
    broken = Fake("broken", problem=RuntimeError("ptxas died\nof this"))
    slow = Fake("slow", 0.05)
    assert fastest([broken, slow]) is slow
    message = "broken is left out on cpu: it failed with RuntimeError: ptxas died"
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [
        f"backend: {message}"
    ]
    assert len(broken.shapes) == 1, "not tried again on the large box"


@pytest.mark.parametrize("error", [2e-4, np.nan])
def test_one_that_is_wrong_is_left_out_with_its_reason(caplog, error):
    wrong, slow = Fake("wrong", error=error), Fake("slow", 0.05)
    assert fastest([wrong, slow]) is slow
    assert "wrong is left out on cpu: it differs from PyTorch by" in caplog.text


def test_half_precision_may_stray_further():
    rounded, slow = Fake("rounded", error=1e-2), Fake("slow", 0.05)
    assert fastest([rounded, slow], "float16") is rounded


def test_if_all_fail_the_last_one_stays():
    fakes = [Fake(name, problem=RuntimeError()) for name in ("first", "last")]
    assert fastest(fakes) is fakes[-1]


def test_the_boxes_fit_half_of_the_memory(monkeypatch):
    monkeypatch.setattr(trial, "free_bytes", lambda device: 2 * 100 * 3**3)
    small, large = Fake("small"), Fake("large", bytes_per_voxel=100)
    fastest([small, large])
    assert set(small.shapes) == set(large.shapes) == {(1, 1, 1), (3, 3, 3)}


@pytest.mark.parametrize("seconds", [(5.0, 4.0), (1.0, 10.0)])
def test_lines_through_noise_go_through_zero(seconds):
    """One that was faster on the larger box, and one that would cost less than nothing."""
    assert Line.through([10, 20], seconds) == Line(0.0, seconds[1] / 20)
    assert Line.through([7, 7], seconds) == Line(0.0, seconds[1] / 7)


# --- on the disk -------------------------------------------------------------------------------


def test_the_next_process_does_not_try_again(gpu, monkeypatch, caplog):
    fast, slow = Fake("fast"), Fake("slow", voxel_s=1.0)
    broken = Fake("broken", problem=RuntimeError("no kernel image"))
    assert fastest([broken, slow, fast], device="cuda") is fast
    tried = len(fast.shapes)
    caplog.clear()
    monkeypatch.setattr(trial, "_outcomes", {})
    assert fastest([broken, slow, fast], device="cuda", shape=(5, 6, 7)) is fast
    assert len(fast.shapes) == tried
    assert "broken is left out on cuda: it failed with RuntimeError: no kernel im" in caplog.text


def path(settings=None, precision="float32", names=("a", "b")):
    return trial_file.path_of(settings or MSDNetSettings(depth=3), "cuda", precision, names)


def test_each_card_driver_network_and_version_has_its_own_file(gpu, monkeypatch, tmp_path):
    driver = tmp_path / "version"
    monkeypatch.setattr(trial_file, "_DRIVER", driver)
    paths = [path(), path(MSDNetSettings(depth=4)), path(precision="float16"), path(names=("a",))]
    for version in ("550.54.15", "580.65.06"):
        driver.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue\n")
        assert trial_file.card("cuda")["driver"] == version
        paths.append(path())
    gpu.multi_processor_count = 14  # a slice of the same card
    paths.append(path())
    monkeypatch.setattr(trial_file, "source_digest", lambda module: "another code")
    paths.append(path())
    monkeypatch.setattr(trial_file, "_version", lambda package: "9.9")
    paths.append(path())
    assert len(set(paths)) == len(paths)
    assert trial_file.path_of(MSDNetSettings(), "cpu", "float32", ("a",)) is None


def test_versions_of_what_is_not_there(monkeypatch, tmp_path):
    assert trial_file._version("no-such-package") == ""
    monkeypatch.setattr(trial_file, "_DRIVER", tmp_path / "absent")
    assert trial_file._driver() == ""


KEPT = Outcome("6x6x6", {"a": Line(0.5, 1e-9)}, {"b": "it failed with OSError: no"})


def test_what_is_kept_is_read_again(gpu):
    trial_file.write(path(), KEPT)
    assert trial_file.read(path(), ("a", "b")) == KEPT
    assert trial_file.read(path(), ("a", "b", "c")) is None
    assert trial_file.read(None, ("a", "b")) is None


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("6x6x6", {"a": Line(0.5, 1e-9)}, {"b": "it failed: CUDA out of memory"}),
        Outcome("6x6x6", {"a": Line(0.5, 1e-9)}, {"b": "it differs from PyTorch by nan"}),
        Outcome("6x6x6", {}, {"a": "it failed", "b": "it failed"}),
    ],
)
def test_what_the_next_process_may_find_otherwise_is_not_kept(gpu, outcome):
    trial_file.write(path(), outcome)
    assert not path().exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"size": "6", "lines": {"a": {"fixed_s": 1.0}}, "problems": {}}',
        '{"size": "6", "lines": {"a": {"fixed_s": "1", "byte_s": 1.0}}, "problems": {"b": ""}}',
        '{"size": "6", "lines": {"a": {"fixed_s": 1.0, "byte_s": -1.0}}, "problems": {"b": ""}}',
        '{"size": "6", "lines": {"a": {"fixed_s": 1.0, "byte_s": NaN}}, "problems": {"b": ""}}',
        '{"size": "6", "lines": [], "problems": {}}',
    ],
)
def test_a_damaged_file_counts_as_none(gpu, text):
    path().parent.mkdir(parents=True)
    path().write_text(text)
    assert trial_file.read(path(), ("a", "b")) is None


def test_a_file_of_somebody_else_counts_as_none(gpu, monkeypatch, tmp_path):
    trial_file.write(path(), KEPT)
    target = tmp_path / "planted.json"
    path().rename(target)
    path().symlink_to(target)
    assert trial_file.read(path(), ("a", "b")) is None
    path().unlink()
    target.rename(path())
    assert trial_file.read(path(), ("a", "b")) == KEPT
    monkeypatch.setattr(trial_file, "trusted", set)
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    assert trial_file.read(path(), ("a", "b")) is None


def test_a_folder_of_somebody_else_is_not_written_to(gpu):
    path().parent.mkdir(parents=True)
    path().parent.chmod(0o777)
    trial_file.write(path(), KEPT)
    assert not path().exists()


def test_the_file_can_be_read_by_people(gpu):
    trial_file.write(path(), KEPT)
    assert json.loads(path().read_text())["lines"] == {"a": {"fixed_s": 0.5, "byte_s": 1e-9}}
