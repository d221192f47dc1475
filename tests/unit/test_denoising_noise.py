"""Rician noise: moments against drawn samples, the transform, the estimate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmill.denoising import noise


@pytest.mark.parametrize("signal", [0.0, 0.5, 1.0, 3.0, 10.0])
def test_moments_are_those_of_drawn_samples(signal):
    drawn = noise.add_rician(np.full(400_000, 2.0 * signal), 2.0, seed=1)
    assert noise.rician_mean(2.0 * signal, 2.0) == pytest.approx(drawn.mean(), rel=5e-3)
    assert noise.rician_std(2.0 * signal, 2.0) == pytest.approx(drawn.std(), rel=5e-3)


def test_moments_without_signal_and_with_a_large_one():
    assert noise.rician_mean(0.0) == pytest.approx(np.sqrt(np.pi / 2))
    assert noise.rician_std(0.0) == pytest.approx(np.sqrt(2 - np.pi / 2))
    assert noise.rician_mean(1e6) == pytest.approx(1e6)
    assert noise.rician_std(1e6) == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 500), st.floats(0.01, 100))
def test_bias_is_removed_exactly(snr, sigma):
    mean = noise.rician_mean(snr * sigma, sigma)
    # Near 0 the mean is flat in the signal: only the square of the signal is determined.
    assert noise.remove_bias(mean, sigma) == pytest.approx(snr * sigma, abs=0.03 * sigma)


def test_means_below_pure_noise_become_zero():
    assert noise.remove_bias(np.array([0.0, 1.2]), 1.0).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("signal", [0.0, 1.0, 2.0, 5.0, 20.0, 200.0])
def test_stabilised_noise_has_unit_deviation_and_the_inverse_no_bias(signal):
    stabiliser = noise.Stabiliser(3.0)
    drawn = noise.add_rician(np.full(200_000, 3.0 * signal), 3.0, seed=2)
    assert abs(drawn.std() / 3.0 - 1) > 0.2 or signal > 1  # the noise that needs stabilising
    stable = stabiliser.forward(drawn)
    assert stable.std() == pytest.approx(1.0, abs=0.05)
    assert stabiliser.inverse(stable.mean()) == pytest.approx(3.0 * signal, abs=0.1 * 3.0)
    # The mean of raw magnitudes, in contrast, is biased.
    if signal == 0.0:
        assert drawn.mean() > 3.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e4), min_size=2, max_size=5, unique=True))
def test_transform_rises_strictly(values):
    ordered = np.sort(np.array(values))
    transformed = noise.Stabiliser(7.0).forward(ordered)
    assert (np.diff(transformed)[np.diff(ordered) > 1e-6] > 0).all()


def spheres(side=32):
    z, y, x = np.mgrid[:side, :side, :side] - side / 2
    radius = np.sqrt(z**2 + y**2 + x**2)
    return np.where(radius < 0.42 * side, 100.0, 0.0) + np.where(radius < 0.2 * side, 60.0, 0.0)


@pytest.mark.parametrize("sigma", [3.0, 9.0, 20.0])
def test_noise_level_is_found_in_an_object_on_a_background(sigma):
    noisy = noise.add_rician(spheres(48), sigma, seed=3)
    assert noise.estimate_sigma(noisy) == pytest.approx(sigma, rel=0.1)


def test_masked_background_and_odd_sides_do_not_disturb_the_estimate():
    clean = spheres()
    noisy = np.where(clean > 0, noise.add_rician(clean, 9.0, seed=4), 0.0)[:, 1:, :31]
    assert noise.estimate_sigma(noisy) == pytest.approx(9.0, rel=0.1)


def test_pure_noise_has_its_rician_level():
    noisy = noise.add_rician(np.zeros((40, 40, 40)), 5.0, seed=5)
    # Without an object the "object" is the brighter half of the noise: no better than 25 %.
    assert noise.estimate_sigma(noisy) == pytest.approx(5.0, rel=0.25)


def test_volumes_without_noise_give_zero():
    assert noise.estimate_sigma(np.zeros((8, 8, 8))) == 0.0
    assert noise.estimate_sigma(spheres()) == 0.0


def test_seed_decides_the_noise():
    clean = spheres(8)
    assert np.array_equal(noise.add_rician(clean, 1.0, 0), noise.add_rician(clean, 1.0, 0))
    assert not np.array_equal(noise.add_rician(clean, 1.0, 0), noise.add_rician(clean, 1.0, 1))
