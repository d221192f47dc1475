"""Stopping rules on outputs made by hand."""

import math

import pytest
import torch

from voxmill.config.denoising import StopSettings
from voxmill.denoising.stopping import make_rule

NONE = torch.zeros(2, 2, 2, dtype=torch.bool)


def feed(rule, outputs):
    """Feed outputs until the rule ends; returns the best iterations and the one that ended it."""
    best = []
    for iteration, value in enumerate(outputs, 1):
        output = torch.full((2, 2, 2), float(value))
        if rule.update(iteration, output, output, *torch.zeros(2, 2, 2, 2)):
            best.append(iteration)
        if rule.reason:
            return best, iteration
    return best, None


def variance_rule(**changes):
    settings = {"rule": "variance", "window": 3, "patience": 4, "warmup": 0, **changes}
    return make_rule(StopSettings(**settings), NONE, seed=0)


def test_variance_of_a_window_by_hand():
    rule = variance_rule()
    feed(rule, [1, 2])
    assert math.isnan(rule.statistic)
    feed(rule, [6])
    # Values 1, 2, 6: mean 3, squared distances 4, 1, 9.
    assert rule.statistic == pytest.approx(14 / 3)


def test_variance_rule_ends_after_its_patience_and_keeps_the_minimum():
    # The outputs hardly change at iterations 4 to 6 and change more and more afterwards.
    outputs = [0, 8, 12, 14, 14.1, 14.2, 15, 17, 20, 24, 29, 35]
    rule = variance_rule()
    best, end = feed(rule, outputs)
    assert best == [3, 4, 5, 6]
    assert rule.best_iteration == 6
    assert end == 6 + 4
    assert rule.reason.startswith("variance: no minimum below 0.0066")


def test_minima_in_the_warmup_do_not_count():
    best, _ = feed(variance_rule(warmup=5, patience=100), [0, 0, 0, 0, 1, 3, 5, 5])
    assert best == [6, 8]


def test_held_out_rule_uses_the_average_on_its_voxels_alone():
    held_out = NONE.clone()
    held_out[0, 0, 0] = True
    settings = StopSettings(rule="held_out", patience=2, warmup=0)
    rule = make_rule(settings, held_out, seed=0)
    target = torch.zeros(2, 2, 2)
    target[0, 0, 0] = 1.0
    noise = torch.full((2, 2, 2), 9.0)
    errors = []
    for iteration, value in enumerate([0.0, 0.5, 0.9, 1.4, 1.5], 1):
        average = torch.full((2, 2, 2), 7.0)
        average[0, 0, 0] = value
        rule.update(iteration, noise, average, target, noise)
        errors.append(rule.statistic)
    assert errors == pytest.approx([1.0, 0.25, 0.01, 0.16, 0.25])
    assert rule.best_iteration == 3
    assert "held_out: no minimum below 0.01 for 2 iterations" in rule.reason


def recorrupted_rule(held_out, window):
    settings = StopSettings(rule="held_out", patience=50, warmup=0, window=window)
    return make_rule(settings, held_out, seed=0, recorrupted=True)


def test_recorrupted_rule_by_hand():
    held_out = NONE.clone()
    held_out[0, 0, 0] = True
    rule = recorrupted_rule(held_out, window=2)
    target, elsewhere = torch.ones(2, 2, 2), torch.full((2, 2, 2), 9.0)
    statistics = []
    for values in ((0.0, 3.0, 0.5), (2.0, 0.0, 1.5), (1.0, 2.0, 7.0)):
        output, loss_target, average = (elsewhere.clone() + n for n in range(3))
        for volume, value in zip((output, loss_target, average), values, strict=True):
            volume[0, 0, 0] = value
        rule.update(len(statistics) + 1, output, average, target, loss_target)
        statistics.append(rule.statistic)
    # Twice the products: 2 (0 - 0) (1 - 3), 2 (2 - 0.5) (1 - 0) and 2 (1 - 1.5) (1 - 2) are 0, 3
    # and 1, each new one half of the mean; to it (0.5 - 1)^2, (1.5 - 1)^2, (7 - 1)^2.
    assert statistics == pytest.approx([0.25, 0.25 + 1.5, 36 + 1.25])


def test_recorrupted_rule_removes_most_of_its_noise():
    """Compared with the product with the whole output, for an output that hardly changes."""
    generator = torch.Generator().manual_seed(3)
    everything = torch.ones(20, 20, 20, dtype=torch.bool)
    target, steady = torch.rand(2, 20, 20, 20, generator=generator)
    rule = recorrupted_rule(everything, window=2)  # the mean of one to two iterations
    plain, found = [], []
    for iteration in range(1, 41):
        loss_target = target + 0.2 * torch.randn(target.shape, generator=generator)
        output = steady + 0.02 * torch.randn(target.shape, generator=generator)
        rule.update(iteration, output, steady, target, loss_target)
        product = 2 * (output * (target - loss_target)).mean().item()
        plain.append(product if iteration == 1 else (plain[-1] + product) / 2)
        found.append(rule.statistic - (steady - target).square().mean().item())
    plain, found = torch.tensor(plain[10:]), torch.tensor(found[10:])
    assert found.mean() == pytest.approx(plain.mean().item(), abs=3 * plain.std().item() / 30**0.5)
    assert found.std() < plain.std() / 5


@pytest.mark.parametrize(("keep", "lost"), [(1.0, 0.0), (0.5, 0.0), (0.2, 0.3)])
def test_recorrupted_rule_estimates_the_error_against_the_truth(keep, lost):
    """Outputs are made from the network's volume of each pair: one keeps the noise, one halves it,
    one also loses contrast of the image."""
    generator = torch.Generator().manual_seed(1)
    shape, level, share = (40, 40, 40), 0.1, 0.5
    truth = torch.rand(shape, generator=generator)
    target = truth + level * torch.randn(shape, generator=generator)
    rule = recorrupted_rule(torch.ones(shape, dtype=torch.bool), window=1000)
    average = torch.zeros(shape)
    for iteration in range(1, 21):
        extra = level * torch.randn(shape, generator=generator)
        network_scan, loss_target = target + share * extra, target - extra / share
        output = truth + keep * (network_scan - truth) + lost * (0.5 - truth)
        average = average + (output - average) / iteration
        rule.update(iteration, output, average, target, loss_target)
    error = (average - truth).square().mean().item()
    assert rule.statistic - level**2 == pytest.approx(error, rel=0.03)
    # A single output has a larger error, by the extra noise that it keeps.
    further = (output - truth).square().mean().item() - error
    assert further == pytest.approx((keep * share * level) ** 2 * 19 / 20, rel=0.25)


def test_recorrupted_rule_continues_from_its_state():
    everything = torch.ones(2, 2, 2, dtype=torch.bool)
    whole, first, second = (recorrupted_rule(everything, window=3) for _ in range(3))
    volumes = torch.rand(9, 3, 2, 2, 2, generator=torch.Generator().manual_seed(2))
    for number, (output, target, loss_target) in enumerate(volumes, 1):
        whole.update(number, output, output, target, loss_target)
        if number == 5:
            second.load_state_dict(first.state_dict())
        (first if number < 5 else second).update(number, output, output, target, loss_target)
    found, expected = second.state_dict(), whole.state_dict()
    assert torch.equal(found.pop("before"), expected.pop("before"))
    assert found == expected


def test_fixed_rule_takes_the_last():
    rule = make_rule(StopSettings(rule="fixed"), NONE, seed=0)
    assert feed(rule, [1, 5, 2]) == ([1, 2, 3], None)
    assert rule.best_iteration == 3


def test_a_rule_continues_from_its_state():
    outputs = [0, 8, 12, 14, 14.1, 14.2, 15, 17, 20, 24, 29, 35]
    whole, first, second = (variance_rule() for _ in range(3))
    expected = feed(whole, outputs)
    feed(first, outputs[:5])
    second.load_state_dict(first.state_dict())
    for iteration, value in enumerate(outputs[5:], 6):
        output = torch.full((2, 2, 2), float(value))
        second.update(iteration, output, output, output, output)
        if second.reason:
            break
    assert (second.best_iteration, iteration) == (6, expected[1])
    assert second.best == whole.best


def test_statistics_that_are_not_finite_are_never_the_minimum():
    rule = variance_rule()
    assert feed(rule, [1, math.nan, 1, 1, 1]) == ([5], None)
