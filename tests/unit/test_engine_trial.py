"""The trial: the fastest backend among the right ones, with reasons; here on the CPU."""

import logging

import numpy as np
import pytest
from test_engine_backends import random_network

from voxmill.engine import trial
from voxmill.engine.backends import BACKENDS


class Fake:
    """A backend that gives the reference's numbers plus `error`, as if after `seconds`."""

    def __init__(self, name, seconds=0.0, error=0.0, problem=None, bytes_per_voxel=4):
        self.name, self.seconds, self.error, self.problem = name, seconds, error, problem
        self.bytes_per_voxel = bytes_per_voxel
        self.shapes = []

    def run(self, network, volume, device, precision, threads):
        self.shapes.append(volume.shape[1:])
        if self.problem:
            raise self.problem
        return BACKENDS["torch"].run(network, volume, device, "float32", threads) + self.error

    def predict_bytes(self, settings, box_shape, precision):
        return self.bytes_per_voxel * int(np.prod(box_shape))


@pytest.fixture(autouse=True)
def fresh_trials_with_a_clock_of_their_own(monkeypatch):
    def timed(run):
        run()
        return run.func.__self__.seconds

    monkeypatch.setattr(trial, "_chosen", {})
    monkeypatch.setattr(trial, "_timed", timed)


def fastest(candidates, precision="float32", shape=(4, 5, 6), depth=1):
    network = random_network(depth=depth)
    return trial.fastest(candidates, BACKENDS["torch"], network, "cpu", precision, shape)


def test_the_fastest_is_chosen_and_its_seconds_logged(caplog):
    caplog.set_level(logging.INFO)
    slow, fast = Fake("slow", 0.2), Fake("fast")
    assert fastest([slow, fast]) is fast
    assert (
        "backend: fast on cpu, float32, after a trial on 4x5x6 voxels (slow 0.2 s; fast 0 s)"
        in caplog.text
    )


def test_one_trial_for_each_kind_of_network():
    fake = Fake("fake")
    for depth in (1, 1, 2, 1):
        assert fastest([fake], depth=depth) is fake
    assert len(fake.shapes) == 2 * (1 + trial.REPEATS)


def test_one_that_fails_is_left_out_with_its_reason(caplog):
    broken = Fake("broken", problem=RuntimeError("ptxas died\nof this"))
    slow = Fake("slow", 0.05)
    assert fastest([broken, slow]) is slow
    message = "broken is left out on cpu: it failed with RuntimeError: ptxas died"
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [
        f"backend: {message}"
    ]


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


def test_the_box_has_an_edge_of_its_own_and_fits_the_memory(monkeypatch):
    monkeypatch.setattr(trial, "EDGE", 8)
    monkeypatch.setattr(trial, "free_bytes", lambda device: 2 * 100 * 4 * 4 * 3)
    small, large = Fake("small"), Fake("large", bytes_per_voxel=100)
    fastest([small, large], shape=(30, 20, 3))
    assert set(small.shapes) == set(large.shapes) == {(4, 4, 3)}
