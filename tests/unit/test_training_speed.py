"""The benchmark of training speed: gradients of its preallocated network, and its limits."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from training_speed import prepare, run, show

from voxmill.config.networks import MSDNetSettings


def test_preallocated_gradients_are_those_of_pytorch():
    settings = MSDNetSettings(depth=5, width=2, dilations=(1, 2, 3))
    network, forward = prepare("preallocated", settings, 1)
    batch = torch.rand(2, 1, 7, 6, 5, generator=torch.Generator().manual_seed(0))
    gradients = []
    for function in (network, forward):
        network.zero_grad()
        (function(batch) ** 2).sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for expected, found in zip(*gradients, strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert expected.abs().sum() > 0


def test_limits_are_reported():
    task = {"runner": "plain", "depth": 3, "width": 1, "size": 8, "threads": 1, "repeats": 1}
    late = run({**task, "memory_gib": 18.0}, 0.01)
    assert late == {"problem": "more than 0.01 s"}
    row = {**task, **late}
    assert "| 3 | plain | more than 0.01 s |" in show([row])


def test_a_size_that_does_not_fit():
    task = {"runner": "plain", "depth": 3, "width": 1, "size": 512, "threads": 1, "repeats": 1}
    assert run({**task, "memory_gib": 1.0}, 60) == {"problem": "out of memory (1 GiB)"}
