"""Reduced precision finds the cells of float32 with the shipped model."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from voxmill.networks import models

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("precision", ROOT / "benchmarks" / "precision.py")
precision = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(precision)

MODEL = ROOT / "models" / "phantom.safetensors"


def test_the_native_engine_in_shared16_finds_the_cells_of_float32(monkeypatch):
    _, network = models.load(MODEL)
    if ("fourier", "shared16") not in precision.reduced(network):
        pytest.skip("the native engine does not run here")
    monkeypatch.setattr(precision, "reduced", lambda network: [("fourier", "shared16")])
    (row,) = precision.judge(MODEL, [7101], (40, 96, 96), 1)
    assert row["cells"] > 20
    assert row["f1"] >= precision.F1_LIMIT
    assert 0 < row["mean"] < row["largest"] < 0.1


def test_comparison_counts_cells_gained_and_lost():
    card = models.read_card(MODEL)
    reference, found = np.zeros((2, 30, 60, 60), np.float32)
    for z, y, x in ((8, 15, 15), (8, 45, 45), (22, 15, 45)):
        reference[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = 0.99
    found[:20] = reference[:20]
    row = precision.compare(reference, found, card, (2.5, 1.6, 1.6))
    assert (row["cells"], row["found"], row["pairs"]) == (3, 2, 2)
    assert row["f1"] == pytest.approx(0.8)
    assert row["largest"] == pytest.approx(0.99)
