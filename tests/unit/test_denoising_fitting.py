"""One fit: what it learns, which voxels it uses, and how it resumes."""

import dataclasses
import math
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising import checkpoint
from voxmill.denoising.fitting import Fit, hide, total_variation
from voxmill.denoising.loop import COLUMNS, RunOptions, run
from voxmill.denoising.placement import place_units, unit_names
from voxmill.runtime.errors import VoxmillError

TINY = DenoiseSettings.from_dict(
    {
        "network": {"inputs": 4, "down": [6, 6], "up": [6, 6], "skip": [3, 3]},
        "input": "noise",
        "iterations": 12,
        "checkpoint_every": 5,
        "metrics_every": 4,
        "stop": {"rule": "fixed"},
    }
)
STOP = dataclasses.replace(TINY.stop, rule="held_out", warmup=0)
SCAN = {"input": "scan", "mask_fraction": 0.3}
CPU = torch.device("cpu")
# With tiny operations, threads wait for each other longer than they compute.
torch.set_num_threads(1)


def cube():
    volume = torch.full((8, 8, 8), 0.2)
    volume[2:6, 2:6, 2:6] = 0.8
    return volume


def noisy():
    return cube() + 0.1 * torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(5))


def make(target=None, **changes):
    chosen = dataclasses.replace(TINY, **changes)
    target = noisy() if target is None else target
    return Fit(target, chosen, place_units(unit_names(chosen), [CPU]), level=0.1)


def options(path=None, **changes):
    return RunOptions(checkpoint_path=path, identity="this", progress=False, **changes)


def test_a_fit_is_closer_to_the_truth_than_the_noisy_volume():
    fit = make(iterations=40, average=0.9)
    rows = run(fit, options())
    assert rows[-1]["loss"] < 0.2 * rows[0]["loss"]
    error = (fit.result - cube()).square().mean()
    assert error < 0.7 * (noisy() - cube()).square().mean()
    assert fit.reason == "all 40 iterations done"


@pytest.mark.parametrize("deterministic", [True, False])
def test_kernels_repeat_where_the_settings_ask_for_it(monkeypatch, deterministic):
    fit, chosen = make(deterministic=deterministic), []
    loss, before = fit.loss, torch.backends.cudnn.deterministic

    def watched(number):
        cudnn = torch.backends.cudnn
        chosen.append((cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32))
        return loss(number)

    monkeypatch.setattr(fit, "loss", watched)
    fit.step()
    assert chosen == [(deterministic, not deterministic, False)]
    assert torch.backends.cudnn.deterministic == before


def test_average_begins_as_a_plain_mean():
    fit, outputs = make(average=0.99), []
    for number in (1, 2, 3):
        with torch.no_grad():
            outputs.append(fit.loss(number)[1])
        fit.step()
    torch.testing.assert_close(fit.average, torch.stack(outputs).mean(0))


def test_held_out_voxels_do_not_change_the_fit():
    first = make(stop=STOP)
    other = noisy()
    other[first.held_out] = 0.5
    assert 0 < first.held_out.sum() < 100
    second = make(other, stop=STOP)
    for _ in range(3):
        assert first.step()["loss"] == second.step()["loss"]
    assert torch.equal(first.average, second.average)
    assert first.rule.statistic != second.rule.statistic


def test_the_network_sees_held_out_voxels_of_a_recorrupted_pair_but_the_loss_does_not():
    first = make(stop=STOP, input="recorrupted")
    other = noisy()
    other[first.held_out] += 0.1
    second = make(other, stop=STOP, input="recorrupted")
    (loss, output, _), (changed_loss, changed, _) = first.loss(1), second.loss(1)
    assert not torch.equal(output, changed)
    # The loss equals this mean over the other voxels of the same output.
    weight = ~first.held_out
    difference = (changed - second._pair(1)[1])[weight]
    assert changed_loss.item() == pytest.approx(difference.square().mean().item())
    assert loss.item() != changed_loss.item()


@pytest.mark.parametrize("stop", [TINY.stop, STOP])
def test_hidden_voxels_cannot_be_copied(stop):
    fit = make(stop=stop, **SCAN)
    scored = fit._scored_voxels(1)
    other = noisy()
    other[scored | fit.held_out] = 0.5
    output = fit.loss(1)[1]
    fit.target = other
    torch.testing.assert_close(fit.loss(1)[1], output)
    assert not torch.equal(fit._scored_voxels(2), scored)
    assert not (scored & fit.held_out).any()


def test_recorrupted_pair_has_independent_noise_and_the_scan_as_its_mean():
    fit = make(torch.full((40, 40, 40), 0.5), input="recorrupted", recorruption=0.5)
    network_scan, loss_target = fit._pair(1)
    assert (network_scan - 0.5).std().item() == pytest.approx(0.05, rel=0.02)
    assert (loss_target - 0.5).std().item() == pytest.approx(0.2, rel=0.02)
    # The covariance is the variance of the scan's own noise, here 0, minus level^2.
    products = (network_scan - 0.5) * (loss_target - 0.5)
    assert products.mean().item() == pytest.approx(-0.01, rel=0.02)
    assert fit.step()["loss"] > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_hidden_values_do_not_change_the_result(seed, share):
    generator = torch.Generator().manual_seed(seed)
    volume = torch.rand(5, 4, 6, generator=generator)
    hidden = torch.rand(5, 4, 6, generator=generator) < share
    shown = hide(volume, hidden)
    assert torch.equal(shown[~hidden], volume[~hidden])
    changed = torch.where(hidden, volume + 100.0, volume)
    torch.testing.assert_close(hide(changed, hidden), shown, rtol=1e-4, atol=1e-4)


def test_hidden_voxel_by_hand():
    volume = torch.arange(27.0).reshape(3, 3, 3)
    hidden = torch.zeros(3, 3, 3, dtype=torch.bool)
    hidden[0, 0, 0] = True
    # Its 7 visible neighbours: 1, 3, 4, 9, 10, 12, 13.
    assert hide(volume, hidden)[0, 0, 0].item() == pytest.approx(52 / 7)
    hidden[:2, :2, :2] = True
    # No visible neighbour: the mean of the 19 visible voxels.
    expected = volume[~hidden].mean().item()
    assert hide(volume, hidden)[0, 0, 0].item() == pytest.approx(expected)


def test_total_variation_by_hand():
    volume = torch.zeros(2, 2, 2)
    volume[0, 0, 0] = 4.0
    # One difference of 4 among the 4 along each axis.
    assert total_variation(volume).item() == 3.0
    plain, smooth = make(iterations=60), make(iterations=60, total_variation=1.0)
    run(plain, options())
    run(smooth, options())
    assert total_variation(smooth.result) < total_variation(plain.result)


def test_cosine_schedule():
    fit = make(schedule="cosine", learning_rate=0.01, iterations=11)
    rates = [row["learning_rate"] for row in run(fit, options())]
    assert rates[0] == pytest.approx(0.01)
    assert rates[5] == pytest.approx(0.01 * 0.525)
    assert rates[-1] == pytest.approx(0.0005)


VARIANTS = {
    "plain": {},
    "held out": {"stop": STOP},
    "variance": {"stop": dataclasses.replace(TINY.stop, rule="variance", window=3, warmup=0)},
    "hidden and noisy": {**SCAN, "input_noise": 0.03, "schedule": "cosine"},
    "recorrupted": {"input": "recorrupted", "total_variation": 0.1},
    "bfloat16": {"precision": "bfloat16", "checkpointing": True, "channels_last": True},
    "float16": {"precision": "float16"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop_after", [3, 5, 7])
def test_a_resumed_fit_gives_the_numbers_of_an_uninterrupted_one(tmp_path, variant, stop_after):
    changes = VARIANTS[variant]
    whole = make(**changes)
    expected = run(whole, options())
    path = tmp_path / "fit.pt"

    # A first process that a signal ends ...
    first = make(**changes)
    step = first.step

    def step_then_signal():
        row = step()
        if first.iteration == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return row

    first.step = step_then_signal
    with pytest.raises(checkpoint.Terminated, match=f"after iteration {stop_after}") as ended:
        run(first, options(path, preview=None))
    assert ended.value.code == 143
    # ... and a second one that resumes it.
    second = make(**changes)
    rows = run(second, options(path))
    without_time = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    expected = [{k: v for k, v in row.items() if k != "seconds"} for row in expected]
    assert str(without_time) == str(expected)  # as text, so that nan equals nan
    assert torch.equal(second.result, whole.result)
    assert torch.equal(second.average, whole.average)
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)


def test_a_killed_fit_resumes_from_its_last_checkpoint(tmp_path):
    path = tmp_path / "fit.pt"
    first = make()
    step = first.step

    def step_then_die():
        if first.iteration == 8:
            raise KeyboardInterrupt
        return step()

    first.step = step_then_die
    with pytest.raises(KeyboardInterrupt):
        run(first, options(path))
    second = make()
    assert len(checkpoint.resume(path, second, "this")) == 5
    assert second.iteration == 5
    whole = make()
    run(whole, options())
    run(second, options(path))
    assert torch.equal(second.result, whole.result)


def test_a_finished_fit_is_not_repeated(tmp_path):
    path = tmp_path / "fit.pt"
    first = make()
    rows = run(first, options(path))
    second = make()
    second.step = None
    assert str(run(second, options(path))) == str(rows)
    assert torch.equal(second.result, first.result)


def test_checkpoints_of_another_fit_or_cut_short_are_ignored(tmp_path, caplog):
    path = tmp_path / "fit.pt"
    run(make(), options(path))
    assert checkpoint.resume(path, make(), "other") == []
    assert "of other settings or another scan" in caplog.text
    path.write_bytes(path.read_bytes()[:1000])
    assert checkpoint.resume(path, make(), "this") == []
    assert "no readable checkpoint" in caplog.text
    assert checkpoint.resume(tmp_path / "none.pt", make(), "this") == []


def test_fingerprint_depends_on_every_part():
    base = {"scan": np.zeros(3), "settings": {"a": 1}}
    found = {
        checkpoint.fingerprint(**base),
        checkpoint.fingerprint(**{**base, "scan": np.ones(3)}),
        checkpoint.fingerprint(**{**base, "scan": np.zeros((3, 1))}),
        checkpoint.fingerprint(**{**base, "settings": {"a": 2}}),
    }
    assert len(found) == 4
    assert checkpoint.fingerprint(**base) in found


def test_signals_have_their_usual_effect_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with checkpoint.termination() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_history_has_a_row_per_iteration_and_metrics_at_intervals():
    previews = []
    fit = make(preview_every=5, iterations=11)
    rows = run(
        fit,
        options(
            metrics=lambda average: {"psnr": average.mean().item()},
            preview=lambda average, number: previews.append(number),
        ),
    )
    assert [row["iteration"] for row in rows] == list(range(1, 12))
    assert set().union(*rows) <= set(COLUMNS)
    assert [row["iteration"] for row in rows if "psnr" in row] == [4, 8, 11]
    assert previews == [5, 10]


def test_a_diverging_fit_reports_its_iteration():
    fit = make(network=dataclasses.replace(TINY.network, sigmoid=False))
    fit.step()
    with torch.no_grad():
        fit.network.units["head"].weight.fill_(math.inf)
    with pytest.raises(VoxmillError, match=r"diverged at iteration 2: the loss is (nan|inf)"):
        fit.step()
    fit = make(network=dataclasses.replace(TINY.network, sigmoid=False))
    fit.step()
    with torch.no_grad():
        fit.network.units["head"].bias.fill_(1e4)
    with pytest.raises(VoxmillError, match=r"diverged at iteration 2: .*Lower `learning_rate`"):
        fit.step()


def test_stopping_rule_ends_the_fit_and_chooses_its_result():
    stop = dataclasses.replace(STOP, patience=3, fraction=0.1)
    fit = make(torch.rand(8, 8, 8), stop=stop, iterations=2000, average=0.0, learning_rate=0.05)
    kept = {}
    while not fit.reason:
        fit.step()
        kept[fit.iteration] = fit.average.clone()
    assert fit.reason.startswith("held_out: no minimum below")
    assert fit.rule.best_iteration == fit.iteration - 3
    assert torch.equal(fit.result, kept[fit.rule.best_iteration])
