"""One fit of a network to a noisy volume, iteration by iteration.

D. Ulyanov, A. Vedaldi, V. Lempitsky, "Deep Image Prior", 2017, https://arxiv.org/abs/1711.10925;
hidden voxels as in J. Batson and L. Royer, "Noise2Self", 2019, https://arxiv.org/abs/1901.11365;
recorrupted pairs as in T. Pang et al., "Recorrupted-to-Recorrupted", CVPR 2021.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising.precision import DTYPES, Stepper, mean_square
from voxmill.denoising.stopping import make_rule
from voxmill.networks.skip3d import Skip3D
from voxmill.runtime.errors import VoxmillError

# Uniform random input channels reach from 0 to this (as in the paper's code).
INPUT_RANGE = 0.1
# A loss this many times the first one is no fit any more.
DIVERGED = 1e3


class Fit:
    """The state of a fit; `step` is one iteration.

    Everything random is drawn from the seed and the number of the iteration, so that a fit that
    goes on from a checkpoint follows the trajectory of one that was never interrupted.

    Parameters
    ----------
    target : (z, y, x) float tensor
        The noisy volume, normalised; no side shorter than `settings.network.least_side_vox`.
    settings : DenoiseSettings
    placement : dict of str to torch.device
        Device of every unit of the network (`voxmill.denoising.devices.place_units`).
    level : float
        Standard deviation of the noise in the target; needed for recorrupted inputs alone.

    Attributes
    ----------
    iteration : int
        Iterations done.
    average, best : (z, y, x) float32 tensors
        Moving average of the outputs; the same at the best iteration of the stopping rule.
    """

    def __init__(self, target: Tensor, settings: DenoiseSettings, placement: dict, level=0.0):
        self.settings, self.level = settings, level
        self.network = Skip3D(settings.network, _generator("cpu", settings.seed, 0, 0))
        self.network.place(placement, settings.channels_last)
        self.network.checkpointed = settings.checkpointing
        units: Sequence = list(placement.values())
        self.first, self.last = units[0], units[-1]
        self.dtype = DTYPES[settings.precision]
        self.target = target.to(self.last, torch.float32)
        self.held_out = self._hold_out().to(self.last)
        self.channels = self._random_channels().to(self.first)
        optimiser = torch.optim.Adam(self.network.parameters(), settings.learning_rate)
        self.stepper = Stepper(optimiser, settings.precision, self.last.type)
        recorrupted = settings.input == "recorrupted"
        self.rule = make_rule(settings.stop, self.held_out, settings.seed, recorrupted)
        self.average = torch.zeros_like(self.target)
        self.best = torch.zeros_like(self.target)
        self.iteration = 0
        self.first_loss = math.nan

    @property
    def reason(self) -> str:
        """Why the fit has ended; empty while it has not."""
        if self.rule.reason:
            return self.rule.reason
        if self.iteration >= self.settings.iterations:
            return f"all {self.settings.iterations} iterations done"
        return ""

    @property
    def result(self) -> Tensor:
        """The denoised volume: (z, y, x) float32 tensor, normalised as the target."""
        return self.best if self.rule.best_iteration else self.average

    def step(self) -> dict:
        """One iteration.

        Returns
        -------
        dict
            iteration, loss, statistic (of the stopping rule), learning_rate, scale, skipped.

        Raises
        ------
        VoxmillError
            If the fit diverges: the loss is not finite or a thousand times the first.
        """
        number = self.iteration + 1
        rate = self._set_learning_rate(number)
        with _repeatable():
            loss, output, wanted = self.loss(number)
            value = loss.item()
            self._check(value, number)
            report = self.stepper.step(loss)
        self.iteration = number
        self._average(output, wanted)
        return {
            "iteration": number,
            "loss": value,
            "statistic": self.rule.statistic,
            "learning_rate": rate,
            "scale": report.scale,
            "skipped": int(report.skipped),
        }

    def loss(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Forward pass of an iteration: loss, output without gradient, and what was wanted."""
        looked_at = self._look_at(number)
        seen, wanted = self._pair(number)
        axes = mirrored_axes(number) if self.settings.mirror else []
        maps = self._input(number, seen, looked_at).flip(axes)
        # Mirrored back, so that loss and average are those of the scan as it is.
        output = self.network(self._laid_out(maps)).flip(axes)[0, 0]
        loss = mean_square(output, wanted, self._weight(looked_at))
        if self.settings.total_variation:
            loss = loss + self.settings.total_variation * total_variation(output)
        return loss, output.detach(), wanted

    def _average(self, output: Tensor, wanted: Tensor) -> None:
        # A plain mean at first, so that the random first output is soon forgotten.
        decay = min(self.settings.average, 1 - 1 / self.iteration)
        self.average.lerp_(output, 1 - decay)
        if self.rule.update(self.iteration, output, self.average, self.target, wanted):
            self.best.copy_(self.average)

    def _check(self, loss: float, number: int) -> None:
        if number == 1:
            self.first_loss = loss
        if not math.isfinite(loss) or loss > DIVERGED * self.first_loss:
            raise VoxmillError(
                f"the fit diverged at iteration {number}: the loss is {loss:g}, it was "
                f"{self.first_loss:g} at first. Lower `learning_rate` (it is "
                f"{self.settings.learning_rate:g}), or use bfloat16 or float32 for `precision` "
                f"(it is {self.settings.precision})."
            )

    def _set_learning_rate(self, number: int) -> float:
        rate = self.settings.learning_rate
        if self.settings.schedule == "cosine":
            share = (number - 1) / max(self.settings.iterations - 1, 1)
            rate *= 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share))
        for group in self.stepper.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def _hold_out(self) -> Tensor:
        if self.settings.stop.rule != "held_out":
            return torch.zeros(self.target.shape, dtype=torch.bool)
        drawn = torch.rand(self.target.shape, generator=_generator("cpu", self.settings.seed, 0, 1))
        return drawn < self.settings.held_out_share(drawn.numel())

    def _random_channels(self) -> Tensor:
        count = self.settings.network.inputs - (self.settings.input != "noise")
        generator = _generator("cpu", self.settings.seed, 0, 2)
        drawn = torch.rand((1, count, *self.target.shape), generator=generator)
        return (drawn * INPUT_RANGE).to(self.dtype)

    def _look_at(self, number: int) -> Tensor | None:
        """Voxels that this iteration hides and looks at; None: it looks at all."""
        if not self.settings.mask_fraction:
            return None
        generator = _generator(self.last, self.settings.seed, number, 3)
        drawn = torch.rand(self.target.shape, generator=generator, device=self.last)
        return (drawn < self.settings.mask_fraction) & ~self.held_out

    def _weight(self, looked_at: Tensor | None) -> Tensor | None:
        if looked_at is not None:
            return looked_at
        return ~self.held_out if self.settings.stop.rule == "held_out" else None

    def _pair(self, number: int) -> tuple[Tensor, Tensor]:
        """The scan as the network sees it and as the loss wants it."""
        if self.settings.input != "recorrupted":
            return self.target, self.target
        generator = _generator(self.last, self.settings.seed, number, 5)
        noise = torch.randn(self.target.shape, generator=generator, device=self.last) * self.level
        share = self.settings.recorruption
        return self.target + share * noise, self.target - noise / share

    def _input(self, number: int, seen: Tensor, looked_at: Tensor | None) -> Tensor:
        maps = self.channels
        if self.settings.input_noise:
            generator = _generator(self.first, self.settings.seed, number, 4)
            noise = torch.randn(maps.shape, generator=generator, device=self.first)
            maps = maps + (self.settings.input_noise * noise).to(maps.dtype)
        if self.settings.input != "noise":
            scan = self._hidden(seen, looked_at)[None, None]
            maps = torch.cat((scan.to(self.first, maps.dtype), maps), dim=1)
        return maps

    def _hidden(self, seen: Tensor, looked_at: Tensor | None) -> Tensor:
        """The scan without what the network must not see, lest it copies the noise there."""
        if self.settings.input == "recorrupted":
            return seen if looked_at is None else hide(seen, looked_at)
        return hide(seen, self.held_out if looked_at is None else looked_at | self.held_out)

    def _laid_out(self, maps: Tensor) -> Tensor:
        if self.settings.channels_last:
            return maps.contiguous(memory_format=torch.channels_last_3d)
        return maps

    def state_dict(self) -> dict:
        """Everything that the next iteration depends on, for a checkpoint."""
        return {
            "iteration": self.iteration,
            "first_loss": self.first_loss,
            "network": self.network.state_dict(),
            "stepper": self.stepper.state_dict(),
            "rule": self.rule.state_dict(),
            "average": self.average,
            "best": self.best,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint of a fit of the same settings and target."""
        self.iteration, self.first_loss = state["iteration"], state["first_loss"]
        self.network.load_state_dict(state["network"])
        self.stepper.load_state_dict(state["stepper"])
        self.rule.load_state_dict(state["rule"])
        self.average.copy_(state["average"])
        self.best.copy_(state["best"])


def hide(volume: Tensor, hidden: Tensor) -> Tensor:
    """Replace hidden voxels by the mean of the visible ones among their 26 neighbours.

    Parameters
    ----------
    volume : (z, y, x) float tensor
    hidden : (z, y, x) bool tensor

    Returns
    -------
    (z, y, x) float tensor
        No voxel of it depends on the value of a hidden voxel; a hidden voxel without visible
        neighbours gets the mean of all visible voxels.
    """
    visible = (~hidden).to(volume.dtype)
    pair = torch.stack((volume * visible, visible))[None]
    total, count = functional.avg_pool3d(pair, 3, stride=1, padding=1)[0]
    overall = (volume * visible).sum() / visible.sum().clamp(min=1)
    # Counts are multiples of 1/27: half of one tells none from some.
    mean = torch.where(count > 0.5 / 27, total / count.clamp(min=1 / 27), overall)
    return torch.where(hidden, mean, volume)


def mirrored_axes(number: int) -> list[int]:
    """Axes of a (batch, channel, z, y, x) map that an iteration mirrors: each set once in eight."""
    return [axis + 2 for axis in range(3) if number >> axis & 1]


def total_variation(volume: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring voxels, summed over the three axes."""
    return sum(volume.diff(dim=axis).abs().mean() for axis in range(3))


def _repeatable():
    """cuDNN's repeatable kernels, and no TF32 under the name of float32; nothing on the CPU."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def _generator(device, seed: int, iteration: int, purpose: int) -> torch.Generator | None:
    """A generator of its own for each seed, iteration and purpose (0 to 7)."""
    if torch.device(device).type == "meta":
        return None  # a plan without data draws nothing
    mixed = (seed * 1_000_003 + iteration) * 8 + purpose
    return torch.Generator(device).manual_seed(mixed % 2**63)
