"""One fit of a network to a noisy volume, iteration by iteration.

D. Ulyanov, A. Vedaldi, V. Lempitsky, "Deep Image Prior", 2017, https://arxiv.org/abs/1711.10925;
hidden voxels as in J. Batson and L. Royer, "Noise2Self", 2019, https://arxiv.org/abs/1901.11365;
recorrupted pairs as in T. Pang et al., "Recorrupted-to-Recorrupted", CVPR 2021.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising.precision import DTYPES, Stepper, kernels, mean_square
from voxmill.denoising.stopping import make_rule
from voxmill.networks.skip3d import Skip3D
from voxmill.runtime.errors import VoxmillError

# Random input channels are uniform from 0 to this, as in the paper's code.
INPUT_RANGE = 0.1
# A fit diverges when its loss is this many times the first one.
DIVERGED = 1e3


class Fit:
    """The state of a fit; `step` is one iteration.

    All random numbers depend on the seed and the number of the iteration alone, so that a fit
    resumed from a checkpoint gives the numbers of one that was never interrupted.

    Parameters
    ----------
    target : (z, y, x) float tensor
        The noisy volume, normalised; no side shorter than `settings.network.least_side_vox`.
    settings : DenoiseSettings
    placement : dict of str to torch.device
        Device of every unit of the network (`voxmill.denoising.placement.place_units`).
    level : float
        Standard deviation of the noise in the target; only recorrupted inputs need it.

    Attributes
    ----------
    iteration : int
        Iterations done.
    average, best : (z, y, x) float32 tensors
        Moving average of the outputs; that average at the best iteration of the stopping rule.
    """

    def __init__(
        self,
        target: Tensor,
        settings: DenoiseSettings,
        placement: dict[str, torch.device],
        level: float = 0.0,
    ):
        self.settings, self.level = settings, level
        self.network = Skip3D(settings.network, _generator("cpu", settings.seed, 0, 0))
        self.network.place(placement, settings.channels_last)
        self.network.checkpointed = settings.checkpointing
        devices = list(placement.values())
        self.first, self.last = devices[0], devices[-1]
        self.dtype = DTYPES[settings.precision]
        self.target = target.to(self.last, torch.float32)
        self.held_out = self._held_out_voxels().to(self.last)
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
        """Run one iteration.

        Returns
        -------
        dict
            iteration, loss, statistic (of the stopping rule), learning_rate, scale, skipped.

        Raises
        ------
        VoxmillError
            If the fit diverges: the loss is not finite or more than `DIVERGED` times the first.
        """
        number = self.iteration + 1
        rate = self._set_learning_rate(number)
        with kernels(self.settings.deterministic):
            loss, output, loss_target = self.loss(number)
            value = loss.item()
            self._check_loss(value, number)
            report = self.stepper.step(loss)
        self.iteration = number
        self._update_average(output, loss_target)
        return {
            "iteration": number,
            "loss": value,
            "statistic": self.rule.statistic,
            "learning_rate": rate,
            "scale": report.scale,
            "skipped": int(report.skipped),
        }

    def loss(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Run the forward pass of an iteration.

        Returns
        -------
        loss : () float32 tensor
            With its gradient.
        output, loss_target : (z, y, x) float32 tensors
            The output without gradient, and the volume with which the loss compares it.
        """
        scored = self._scored_voxels(number)
        network_scan, loss_target = self._pair(number)
        axes = mirrored_axes(number) if self.settings.mirror else []
        channels = self._input(number, network_scan, scored).flip(axes)
        # The output is mirrored back, so that loss and average have the orientation of the scan.
        output = self.network(self._laid_out(channels)).flip(axes)[0, 0]
        loss = mean_square(output, loss_target, self._weight(scored))
        if self.settings.total_variation:
            loss = loss + self.settings.total_variation * total_variation(output)
        return loss, output.detach(), loss_target

    def _update_average(self, output: Tensor, loss_target: Tensor) -> None:
        # The average starts as a plain mean, so that the random first output soon loses its weight.
        decay = min(self.settings.average, 1 - 1 / self.iteration)
        self.average.lerp_(output, 1 - decay)
        if self.rule.update(self.iteration, output, self.average, self.target, loss_target):
            self.best.copy_(self.average)

    def _check_loss(self, loss: float, number: int) -> None:
        if number == 1:
            self.first_loss = loss
        if not math.isfinite(loss) or loss > DIVERGED * self.first_loss:
            raise VoxmillError(
                f"the fit diverged at iteration {number}: the loss is {loss:g}, it was "
                f"{self.first_loss:g} at the first iteration. Lower `learning_rate` (it is "
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

    def _held_out_voxels(self) -> Tensor:
        if self.settings.stop.rule != "held_out":
            return torch.zeros(self.target.shape, dtype=torch.bool)
        drawn = torch.rand(self.target.shape, generator=_generator("cpu", self.settings.seed, 0, 1))
        return drawn < self.settings.held_out_share(drawn.numel())

    def _random_channels(self) -> Tensor:
        count = self.settings.network.inputs - (self.settings.input != "noise")
        generator = _generator("cpu", self.settings.seed, 0, 2)
        drawn = torch.rand((1, count, *self.target.shape), generator=generator)
        return (drawn * INPUT_RANGE).to(self.dtype)

    def _scored_voxels(self, number: int) -> Tensor | None:
        """Voxels that this iteration hides from the network and that its loss uses; None: all."""
        if not self.settings.mask_fraction:
            return None
        generator = _generator(self.last, self.settings.seed, number, 3)
        drawn = torch.rand(self.target.shape, generator=generator, device=self.last)
        return (drawn < self.settings.mask_fraction) & ~self.held_out

    def _weight(self, scored: Tensor | None) -> Tensor | None:
        """Weight of each voxel in the loss; None: all count."""
        if scored is not None:
            return scored
        return ~self.held_out if self.settings.stop.rule == "held_out" else None

    def _pair(self, number: int) -> tuple[Tensor, Tensor]:
        """The scan that the network gets, and the one with which the loss compares its output."""
        if self.settings.input != "recorrupted":
            return self.target, self.target
        generator = _generator(self.last, self.settings.seed, number, 5)
        noise = torch.randn(self.target.shape, generator=generator, device=self.last) * self.level
        share = self.settings.recorruption
        return self.target + share * noise, self.target - noise / share

    def _input(self, number: int, network_scan: Tensor, scored: Tensor | None) -> Tensor:
        """Input channels of the network: (1, inputs, z, y, x) tensor."""
        channels = self.channels
        if self.settings.input_noise:
            generator = _generator(self.first, self.settings.seed, number, 4)
            noise = torch.randn(channels.shape, generator=generator, device=self.first)
            channels = channels + (self.settings.input_noise * noise).to(channels.dtype)
        if self.settings.input != "noise":
            scan = self._hidden(network_scan, scored)[None, None]
            channels = torch.cat((scan.to(self.first, channels.dtype), channels), dim=1)
        return channels

    def _hidden(self, network_scan: Tensor, scored: Tensor | None) -> Tensor:
        """The scan without the voxels whose noise the network could otherwise copy."""
        if self.settings.input == "recorrupted":
            return network_scan if scored is None else hide(network_scan, scored)
        return hide(network_scan, self.held_out if scored is None else scored | self.held_out)

    def _laid_out(self, channels: Tensor) -> Tensor:
        if self.settings.channels_last:
            return channels.contiguous(memory_format=torch.channels_last_3d)
        return channels

    def state_dict(self) -> dict:
        """Return everything that the next iteration depends on, for a checkpoint."""
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
        """Restore a checkpoint of a fit with the same settings and target."""
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
        None of its voxels depends on the value of a hidden voxel. A hidden voxel without visible
        neighbours gets the mean of all visible voxels.
    """
    visible = (~hidden).to(volume.dtype)
    pair = torch.stack((volume * visible, visible))[None]
    total, count = functional.avg_pool3d(pair, 3, stride=1, padding=1)[0]
    overall = (volume * visible).sum() / visible.sum().clamp(min=1)
    # Counts are multiples of 1/27, so half of that separates none from some.
    mean = torch.where(count > 0.5 / 27, total / count.clamp(min=1 / 27), overall)
    return torch.where(hidden, mean, volume)


def mirrored_axes(number: int) -> list[int]:
    """Axes of a (batch, channel, z, y, x) tensor to mirror; each set comes once in 8 iterations."""
    return [axis + 2 for axis in range(3) if number >> axis & 1]


def total_variation(volume: Tensor) -> Tensor:
    """Compute the mean absolute difference of neighbouring voxels, summed over the three axes."""
    z, y, x = (volume.diff(dim=axis).abs().mean() for axis in range(3))
    return z + y + x


def _generator(
    device: torch.device | str, seed: int, iteration: int, purpose: int
) -> torch.Generator | None:
    """Make the generator of a seed, an iteration and a purpose (0 to 7)."""
    if torch.device(device).type == "meta":
        return None  # tensors without data draw no numbers
    mixed = (seed * 1_000_003 + iteration) * 8 + purpose
    return torch.Generator(device).manual_seed(mixed % 2**63)
