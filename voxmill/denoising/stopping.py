"""When to stop a Deep Image Prior: it fits the scan first and the scan's noise later.

A rule sees every iteration and finds the one with the smallest value of its statistic; the result
of the fit is the average output at that iteration.
"""

import abc
import math

import torch
from torch import Tensor

from voxmill.config.denoising import StopSettings

# Voxels of the moving variance: a sample, so that the window of 100 outputs fits into memory.
SAMPLE_VOXELS = 20_000


class StoppingRule(abc.ABC):
    """Finds the best iteration and ends the fit some iterations after it.

    Attributes
    ----------
    statistic : float
        Of the last iteration; nan if it has none.
    best : float
        The smallest statistic after the warm-up.
    best_iteration : int
        Its iteration, from 1; 0 if there is none yet.
    reason : str
        Why the fit ends; empty while it goes on.
    """

    def __init__(self, settings: StopSettings):
        self.settings = settings
        self.statistic = math.nan
        self.best = math.inf
        self.best_iteration = 0
        self.reason = ""

    def update(
        self, iteration: int, output: Tensor, average: Tensor, target: Tensor, loss_target: Tensor
    ) -> bool:
        """Take in one iteration; returns whether it is the best so far.

        Parameters
        ----------
        iteration : int
            From 1.
        output, average, target, loss_target : (z, y, x) float32 tensors on one device
            The output of this iteration, the average of the outputs so far, the noisy volume, and
            the volume with which the loss of this iteration compares the output.
        """
        self.statistic = self._measure(output, average, target, loss_target)
        if iteration <= self.settings.warmup or not math.isfinite(self.statistic):
            return False
        if self.statistic < self.best:
            self.best, self.best_iteration = self.statistic, iteration
            return True
        if iteration - self.best_iteration >= self.settings.patience and self.best_iteration:
            self.reason = (
                f"{self.settings.rule}: no minimum below {self.best:.6g} for "
                f"{self.settings.patience} iterations"
            )
        return False

    def state_dict(self) -> dict:
        """Return the state for a checkpoint."""
        keys = ("statistic", "best", "best_iteration", "reason")
        return {key: getattr(self, key) for key in keys}

    def load_state_dict(self, state: dict) -> None:
        """Restore the state of a checkpoint."""
        for key, value in state.items():
            setattr(self, key, value)

    @abc.abstractmethod
    def _measure(
        self, output: Tensor, average: Tensor, target: Tensor, loss_target: Tensor
    ) -> float:
        """Compute the statistic of an iteration; nan if it has none. Arguments as `update`."""


class VarianceRule(StoppingRule):
    """Windowed moving variance of the outputs.

    H. Wang et al., "Early stopping for Deep Image Prior", 2021, https://arxiv.org/abs/2112.06074:
    the mean squared distance of the last `window` outputs from their mean falls while the fit
    learns the image, and rises when it begins to learn the noise.

    Parameters
    ----------
    settings : StopSettings
    voxels : int
        Number of voxels in the volume.
    seed : int
        Chooses the sample of them.
    """

    def __init__(self, settings: StopSettings, voxels: int, seed: int):
        super().__init__(settings)
        generator = torch.Generator().manual_seed(seed)
        count = min(voxels, SAMPLE_VOXELS)
        self.sample = torch.randperm(voxels, generator=generator)[:count]
        self.window = torch.zeros(settings.window, count)
        self.seen = 0

    def _measure(
        self, output: Tensor, average: Tensor, target: Tensor, loss_target: Tensor
    ) -> float:
        sample = self.sample.to(output.device)
        self.window[self.seen % len(self.window)] = output.flatten()[sample].cpu()
        self.seen += 1
        if self.seen < len(self.window):
            return math.nan
        return self.window.var(dim=0, correction=0).mean().item()

    def state_dict(self) -> dict:
        """Return the state for a checkpoint."""
        return {**super().state_dict(), "window": self.window.clone(), "seen": self.seen}


class HeldOutRule(StoppingRule):
    """Error of the average output on voxels that neither the loss nor the network sees.

    Their noise is independent of that of other voxels, so this error grows once noise is fitted.

    Parameters
    ----------
    settings : StopSettings
    held_out : (z, y, x) bool tensor
    """

    def __init__(self, settings: StopSettings, held_out: Tensor):
        super().__init__(settings)
        self.voxels = held_out.flatten().nonzero()[:, 0]

    def _measure(
        self, output: Tensor, average: Tensor, target: Tensor, loss_target: Tensor
    ) -> float:
        voxels = self.voxels.to(average.device)
        difference = average.flatten()[voxels] - target.flatten()[voxels]
        return difference.square().mean().item()


class RecorruptedRule(HeldOutRule):
    """Error of the average output on recorrupted pairs, at voxels that the loss never uses.

    The network sees these voxels like all others: guessing them from their neighbours would tell
    little where noise is low. Therefore the average lies closer to the noisy volume than to the
    true one, by twice its product with the noise. The noises of the two volumes of a pair are
    independent (T. Pang et al., "Recorrupted-to-Recorrupted", CVPR 2021), so the product has the
    same expectation as the product of the output with the noise of the second volume, which is
    known. The average of the earlier outputs is subtracted from the output first: its product with
    that noise has the expectation zero. The result is the divergence of S. Ramani et al.,
    "Monte-Carlo SURE", IEEE Trans. Image Process. 17 (2008); its mean is taken over about `window`
    iterations.

    Parameters
    ----------
    settings : StopSettings
    held_out : (z, y, x) bool tensor
    """

    def __init__(self, settings: StopSettings, held_out: Tensor):
        super().__init__(settings, held_out)
        self.optimism, self.seen = 0.0, 0
        self.before = torch.zeros(len(self.voxels))

    def _measure(
        self, output: Tensor, average: Tensor, target: Tensor, loss_target: Tensor
    ) -> float:
        voxels = self.voxels.to(output.device)
        output, average, target, loss_target = (
            v.flatten()[voxels] for v in (output, average, target, loss_target)
        )
        product = (output - self.before.to(output.device)) * (target - loss_target)
        self.before = average
        self.seen += 1
        self.optimism += (2 * product.mean().item() - self.optimism) / min(
            self.seen, self.settings.window
        )
        return (average - target).square().mean().item() + self.optimism

    def state_dict(self) -> dict:
        """Return the state for a checkpoint."""
        state = {"optimism": self.optimism, "seen": self.seen, "before": self.before}
        return {**super().state_dict(), **state}


class FixedRule(StoppingRule):
    """The last iteration is the result: each counts as better than the one before."""

    def _measure(
        self, output: Tensor, average: Tensor, target: Tensor, loss_target: Tensor
    ) -> float:
        return math.nan

    def update(
        self, iteration: int, output: Tensor, average: Tensor, target: Tensor, loss_target: Tensor
    ) -> bool:
        """Take in one iteration, which is the best so far."""
        self.best_iteration = iteration
        return True


def make_rule(
    settings: StopSettings, held_out: Tensor, seed: int, recorrupted: bool = False
) -> StoppingRule:
    """Make the stopping rule that the settings ask for.

    Parameters
    ----------
    settings : StopSettings
    held_out : (z, y, x) bool tensor
        Voxels that the loss leaves out; all false unless the rule is `held_out`.
    seed : int
        Of the sample of voxels of the rule `variance`.
    recorrupted : bool
        Whether the network and the loss get volumes with different noise (`input: recorrupted`).
    """
    if settings.rule == "variance":
        return VarianceRule(settings, held_out.numel(), seed)
    if settings.rule == "held_out" and recorrupted:
        return RecorruptedRule(settings, held_out)
    if settings.rule == "held_out":
        return HeldOutRule(settings, held_out)
    return FixedRule(settings)
