"""Several fits of one scan: they are averaged, and each has its own checkpoint."""

import dataclasses
import itertools
import os
import signal
import threading

import numpy as np
import pytest
import torch

from voxmill.config.denoising import DenoiseSettings
from voxmill.config.scans import ScanPhantomSettings
from voxmill.denoising import volume as denoising_volume
from voxmill.denoising.checkpoint import Terminated, path_of_fit
from voxmill.denoising.fitting import mirrored_axes
from voxmill.denoising.noise import add_rician
from voxmill.denoising.volume import SEED_STEP, denoise_volume
from voxmill.phantoms.make_scan import draw_scan
from voxmill.runtime.errors import VoxmillError

CPU = [torch.device("cpu")]
SETTINGS = DenoiseSettings.from_dict(
    {
        "network": {"down": [4, 4], "up": [4, 4], "skip": [2, 2]},
        "iterations": 4,
        "metrics_every": 2,
        "sigma": 25.0,
        "noise": "gaussian",
        "detail_block_vox": 0,
        "stop": {"rule": "fixed"},
    }
)
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def scans():
    clean = draw_scan(ScanPhantomSettings(shape_vox=(12, 13, 14), voxel_size_mm=8))[0]
    return add_rician(clean, 25.0, seed=1), clean


def denoise(scans, path=None, devices=CPU, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    return denoise_volume(
        scans[0], settings, devices, reference=scans[1], checkpoint_path=path, progress=False
    )


def test_the_result_of_two_fits_is_the_mean_of_both(scans):
    first, second = denoise(scans), denoise(scans, seed=SEED_STEP)
    both = denoise(scans, fits=2)
    assert not np.array_equal(first.volume, second.volume)
    # Without a stabilising transform, intensities are linear in the fitted volume.
    np.testing.assert_allclose(both.volume, (first.volume + second.volume) / 2, rtol=1e-4)
    assert both.best_iterations == (4, 4)
    assert [(row["fit"], row["iteration"]) for row in both.rows] == list(
        itertools.product((1, 2), (1, 2, 3, 4))
    )
    seconds = [row["seconds"] for row in both.rows]
    assert seconds == sorted(seconds)
    last = both.rows[-1]
    assert last["psnr"] == pytest.approx(
        denoising_volume.compare(both.volume, scans[1])["psnr"], abs=1e-3
    )


def test_finished_fits_are_not_done_again(scans, tmp_path, monkeypatch):
    expected = denoise(scans, fits=2).volume
    path = tmp_path / "fit.pt"
    run, calls = denoising_volume.run, []

    def run_once(fit, options):
        calls.append(fit.settings.seed)
        if len(calls) == 2:
            raise Terminated("ended")
        return run(fit, options)

    monkeypatch.setattr(denoising_volume, "run", run_once)
    with pytest.raises(Terminated):
        denoise(scans, path, fits=2)
    assert path.exists()
    assert not path_of_fit(path, 1).exists()
    steps, step = [], denoising_volume.Fit.step
    monkeypatch.setattr(denoising_volume.Fit, "step", lambda fit: steps.append(fit) or step(fit))
    assert np.array_equal(denoise(scans, path, fits=2).volume, expected)
    assert len(steps) == 4
    assert path_of_fit(path, 1).name == "fit.2.pt"


@pytest.mark.parametrize("each", [1, 2])
def test_fits_at_once_give_the_numbers_of_fits_one_after_the_other(scans, each):
    expected = denoise(scans, fits=3, cut="up0")
    found = denoise(scans, devices=CPU * 2 * each, fits=3, fits_at_once=2, cut="up0")
    assert np.array_equal(found.volume, expected.volume)
    assert [(row["fit"], row["iteration"]) for row in found.rows] == list(
        itertools.product((1, 2, 3), (1, 2, 3, 4))
    )
    assert found.best_iterations == expected.best_iterations
    # The third fit begins after the first two; their seconds do not add up.
    seconds = {fit: [r["seconds"] for r in found.rows if r["fit"] == fit] for fit in (1, 2, 3)}
    assert all(times == sorted(times) for times in seconds.values())
    assert seconds[3][0] >= max(seconds[1][-1], seconds[2][-1])
    # The metrics of the third fit are of the mean of all.
    assert found.rows[-1]["psnr"] == expected.rows[-1]["psnr"]


def test_each_of_the_fits_at_once_has_devices_of_its_own(scans, monkeypatch):
    cuda = [torch.device("cuda", index) for index in range(4)]
    job = denoising_volume._Job(
        scans[0], dataclasses.replace(SETTINGS, fits=2, fits_at_once=2, cut="up0"), cuda
    )
    assert [set(place.values()) for place in job.placements] == [set(cuda[:2]), set(cuda[2:])]
    assert job.placements[1]["down0"] == cuda[2] and job.placements[1]["head"] == cuda[3]
    job = denoising_volume._Job(
        scans[0], dataclasses.replace(SETTINGS, fits=4, fits_at_once=4), cuda
    )
    assert [set(place.values()) for place in job.placements] == [{device} for device in cuda]


def test_after_an_error_of_one_fit_the_others_end_with_a_checkpoint(scans, tmp_path, monkeypatch):
    path, step = tmp_path / "fit.pt", denoising_volume.Fit.step
    diverged = threading.Event()

    def step_or_diverge(fit):
        if fit.settings.seed == SEED_STEP:
            diverged.set()
            raise VoxmillError("the fit diverged")
        assert diverged.wait(60)
        return step(fit)

    monkeypatch.setattr(denoising_volume.Fit, "step", step_or_diverge)
    with pytest.raises(VoxmillError, match="the fit diverged"):
        denoise(scans, path, CPU * 2, fits=2, fits_at_once=2, iterations=100_000)
    assert path.exists() and not path_of_fit(path, 1).exists()


def test_a_signal_ends_fits_at_once_with_their_checkpoints(scans, tmp_path, monkeypatch):
    path, step = tmp_path / "fit.pt", denoising_volume.Fit.step

    def step_then_signal(fit):
        row = step(fit)
        if fit.iteration == 2 and fit.settings.seed == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return row

    monkeypatch.setattr(denoising_volume.Fit, "step", step_then_signal)
    with pytest.raises(Terminated, match="ended by a signal"):
        denoise(scans, path, CPU * 2, fits=2, fits_at_once=2, iterations=100_000)
    assert path.exists() and path_of_fit(path, 1).exists()


@pytest.mark.parametrize(
    ("begun", "ended"),
    [
        ({"devices": CPU}, {"devices": CPU * 2, "cut": "up0"}),
        ({"devices": CPU * 2, "cut": "decoder"}, {"devices": CPU}),
        ({"devices": CPU * 2, "cut": "down1"}, {"devices": CPU * 2, "cut": "head"}),
        ({"checkpointing": True}, {"channels_last": True, "deterministic": False}),
    ],
)
def test_a_fit_goes_on_with_another_placement(scans, tmp_path, monkeypatch, begun, ended):
    expected = denoise(scans, cut="decoder")
    path, step, steps = tmp_path / "fit.pt", denoising_volume.Fit.step, []

    def step_then_signal(fit):
        row = step(fit)
        steps.append(fit.iteration)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return row

    monkeypatch.setattr(denoising_volume.Fit, "step", step_then_signal)
    with pytest.raises(Terminated):
        denoise(scans, path, **begun)
    found = denoise(scans, path, **ended)
    assert steps == [1, 2, 3, 4]
    # Another layout adds in another order.
    np.testing.assert_allclose(found.volume, expected.volume, rtol=1e-4, atol=1e-2)
    with pytest.raises(Terminated):
        steps.clear()
        denoise(scans, path, **(ended | {"seed": 1}))
    assert steps == [1, 2]  # another fit begins from the beginning


def test_detail_is_restored_at_the_end(scans):
    found = denoise(scans, detail_block_vox=4)
    assert np.array_equal(found.plain, denoise(scans).volume)
    assert not np.array_equal(found.volume, found.plain)


def test_recorrupted_fits_of_gaussian_noise_know_its_level(scans):
    assert denoise(scans).domain.level > 0
    assert denoise(scans, sigma=None).domain.sigma > 0
    flat = np.zeros((12, 12, 12), np.float32)
    flat[0, 0, 0] = 1.0
    with pytest.raises(VoxmillError, match="no noise level could be estimated"):
        denoise((flat, flat), sigma=None)


def test_mirror_images_alternate_and_are_mirrored_back(scans):
    assert {tuple(mirrored_axes(number)) for number in range(8, 16)} == {
        axes for count in range(4) for axes in itertools.combinations((2, 3, 4), count)
    }
    # The volume is bright in one corner: outputs that are not mirrored back would blur it.
    scan = np.full((12, 12, 12), 100.0, np.float32)
    scan[:6, :6, :6] = 500.0
    noisy = scan + np.random.default_rng(0).normal(0, 25, scan.shape)
    found = denoise((noisy, scan), mirror=True, iterations=60, average=0.9).plain
    assert found[:5, :5, :5].mean() > 350
    assert found[7:, 7:, 7:].mean() < 180
