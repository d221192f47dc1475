"""Mixed precision: for each pitfall, a naive computation that fails and ours that does not."""

import pytest
import torch
from torch import nn

from voxmill.config.skip3d import Skip3DSettings
from voxmill.denoising import precision
from voxmill.denoising.precision import FIRST_SCALE, MOST_SKIPPED, Stepper, mean_square
from voxmill.networks.skip3d import Norm, Skip3D
from voxmill.runtime.errors import VoxmillError

TINY = Skip3DSettings(inputs=1, down=(2,), up=(2,), skip=(1,))


def test_update_of_1e_4_on_a_weight_of_1():
    # Float16 has 10 bits of mantissa: the next number below 1 is 1 - 2**-11 = 0.9995.
    naive = nn.Parameter(torch.ones(1, dtype=torch.float16))
    torch.optim.SGD([naive], lr=1e-4).zero_grad()
    naive.grad = torch.ones_like(naive)
    torch.optim.SGD([naive], lr=1e-4).step()
    assert naive.item() == 1.0

    network = Skip3D(TINY)
    weight = network.units["head"].weight
    nn.init.ones_(weight)
    stepper = Stepper(torch.optim.SGD(network.parameters(), lr=0.0512), "float16")
    # A loss whose gradient with respect to that weight is 2^-9, through its float16 copy.
    loss = 2**-9 * weight.to(torch.float16).float().sum()
    report = stepper.step(loss)
    assert not report.skipped
    torch.testing.assert_close(weight.data, torch.full_like(weight, 1 - 1e-4), rtol=1e-6, atol=0)


def test_sum_of_4096_sixteens():
    # The sum is 65536; the largest float16 is 65504.
    difference = torch.full((4096,), 4.0, dtype=torch.float16)
    naive = (difference * difference).sum() / 4096
    assert torch.isinf(naive)

    assert mean_square(difference, torch.zeros_like(difference)).item() == 16.0
    weight = torch.arange(4096) < 4000
    assert mean_square(difference, torch.zeros_like(difference), weight).item() == 16.0


def test_squares_that_overflow_inside_a_norm():
    values = torch.tensor([300.0, -300.0], dtype=torch.float16).repeat(2048)
    naive = values / (values * values).mean().sqrt()
    assert (naive == 0).all()  # divided by infinity

    ours = Norm(1)(values.reshape(1, 1, 16, 16, 16)).flatten()
    torch.testing.assert_close(ours.float(), values.float() / 300)


def small_gradient(kind, dtype, size=1e-9):
    """Gradient of a weight through half-precision values for a small loss; the true one is size."""
    weight = nn.Parameter(torch.ones(1))
    stepper = Stepper(torch.optim.SGD([weight], lr=0.0), kind)
    stepper.step((weight.to(dtype) * torch.tensor(1.0, dtype=dtype)).float().sum() * size)
    return weight.grad.item()


def test_small_gradients():
    # The smallest float16 is 6e-8.
    assert small_gradient("float32", torch.float16) == 0.0
    assert small_gradient("float16", torch.float16) == pytest.approx(1e-9, rel=1e-3)
    assert small_gradient("bfloat16", torch.bfloat16) == pytest.approx(1e-9, rel=1e-2)


def test_gradients_of_a_voxel_among_ten_million(monkeypatch):
    # The mean over 256 x 256 x 150 voxels divides by 10^7: many voxels have less than 1e-12.
    assert small_gradient("float16", torch.float16, 1e-12) == pytest.approx(1e-12, rel=2e-3)
    monkeypatch.setattr(precision, "FIRST_SCALE", 2.0**16)  # of `torch.amp`: 2^-24 is its least
    naive = small_gradient("float16", torch.float16, 1e-12)
    assert naive == pytest.approx(2.0**-40) and abs(naive / 1e-12 - 1) > 0.05
    assert small_gradient("float16", torch.float16, 4e-13) == 0.0


def test_an_overflowing_step_is_skipped_and_the_scale_halved():
    weight = nn.Parameter(torch.ones(1))
    stepper = Stepper(torch.optim.SGD([weight], lr=0.1), "float16")
    report = stepper.step(2**-9 * weight.half().float().sum())
    assert (report.skipped, report.scale) == (False, FIRST_SCALE)
    before = weight.item()
    # 2^24 times 2^-7 is 2^17, more than a float16 gradient holds.
    report = stepper.step(2**-7 * weight.half().float().sum())
    assert (report.skipped, report.scale) == (True, FIRST_SCALE)
    assert weight.item() == before
    report = stepper.step(2**-9 * weight.half().float().sum())
    assert (report.skipped, report.scale) == (False, FIRST_SCALE / 2)


def test_a_run_of_skipped_steps_ends_the_fit():
    weight = nn.Parameter(torch.ones(1))
    stepper = Stepper(torch.optim.SGD([weight], lr=0.1), "float16")
    with pytest.raises(VoxmillError, match=f"{MOST_SKIPPED} steps in a row overflowed"):
        for _ in range(MOST_SKIPPED + 1):
            stepper.step(torch.inf * weight.sum())


def test_float32_is_not_scaled():
    weight = nn.Parameter(torch.ones(1))
    report = Stepper(torch.optim.SGD([weight], lr=0.1), "float32").step(weight.sum())
    assert (report.skipped, report.scale) == (False, 1.0)
    assert weight.item() == pytest.approx(0.9)


def test_the_loss_without_any_voxel_is_zero():
    assert mean_square(torch.ones(3), torch.zeros(3), torch.zeros(3)).item() == 0.0
