"""When to stop a Deep Image Prior: it fits the scan first and the scan's noise later.

A rule is fed every iteration and keeps the smallest value of its statistic; the result of the fit
is the average output at that iteration.
"""

import math

import torch
from torch import Tensor

from voxmill.config.denoising import StopSettings

# Voxels over which the moving variance is taken: a sample, so that a window of 100 outputs of a
# whole scan need not be kept.
SAMPLE_VOXELS = 20_000


class _Rule:
    """Keeps the best iteration and counts the iterations since."""

    def __init__(self, settings: StopSettings):
        self.settings = settings
        self.statistic = math.nan
        self.best = math.inf
        self.best_iteration = 0
        self.reason = ""

    def update(self, iteration: int, output: Tensor, average: Tensor, target, wanted) -> bool:
        """Look at one iteration; returns whether it is the best so far.

        Parameters
        ----------
        iteration : int
            From 1.
        output, average, target, wanted : (z, y, x) float32 tensors on one device
            Of this iteration; its average with the earlier ones; the noisy volume; what the loss
            of this iteration wanted of it.
        """
        self.statistic = self._measure(output, average, target, wanted)
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
        """State for a checkpoint."""
        keys = ("statistic", "best", "best_iteration", "reason")
        return {key: getattr(self, key) for key in keys}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint."""
        for key, value in state.items():
            setattr(self, key, value)


class VarianceRule(_Rule):
    """Windowed moving variance of the outputs.

    H. Wang et al., "Early stopping for Deep Image Prior", 2021, https://arxiv.org/abs/2112.06074:
    the mean squared distance of the last `window` outputs from their mean falls while the image
    forms and rises when the noise comes in.

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

    def _measure(self, output: Tensor, average: Tensor, target: Tensor, wanted: Tensor) -> float:
        sample = self.sample.to(output.device)
        self.window[self.seen % len(self.window)] = output.flatten()[sample].cpu()
        self.seen += 1
        if self.seen < len(self.window):
            return math.nan
        return self.window.var(dim=0, correction=0).mean().item()

    def state_dict(self) -> dict:
        return {**super().state_dict(), "window": self.window.clone(), "seen": self.seen}


class HeldOutRule(_Rule):
    """Error of the average output on voxels that neither the loss nor the network sees.

    Their noise is independent of the other voxels', so fitting noise makes this error grow.

    Parameters
    ----------
    settings : StopSettings
    held_out : (z, y, x) bool tensor
    """

    def __init__(self, settings: StopSettings, held_out: Tensor):
        super().__init__(settings)
        self.voxels = held_out.flatten().nonzero()[:, 0]

    def _measure(self, output: Tensor, average: Tensor, target: Tensor, wanted: Tensor) -> float:
        voxels = self.voxels.to(average.device)
        difference = average.flatten()[voxels] - target.flatten()[voxels]
        return difference.square().mean().item()


class RecorruptedRule(HeldOutRule):
    """Error of the average output on recorrupted pairs, at voxels that the loss never looks at.

    The network sees these voxels as all others: what it would have to guess from neighbours says
    little where noise is low. So the average strays from the noisy volume less than from the true
    one, by twice its product with the noise. As the noises of the two volumes of a pair are
    independent (T. Pang et al., "Recorrupted-to-Recorrupted", CVPR 2021), that product has the
    expectation of the output's with the noise that the second volume of its pair got, which is
    known. What the average of the outputs before adds to the latter is taken off, for its
    expectation is zero: what is left is the divergence of S. Ramani et al., "Monte-Carlo SURE",
    IEEE Trans. Image Process. 17 (2008). Its mean is taken over about `window` iterations.
    """

    def __init__(self, settings: StopSettings, held_out: Tensor):
        super().__init__(settings, held_out)
        self.optimism, self.seen = 0.0, 0
        self.before = torch.zeros(len(self.voxels))

    def _measure(self, output: Tensor, average: Tensor, target: Tensor, wanted: Tensor) -> float:
        voxels = self.voxels.to(output.device)
        output, average, target, wanted = (
            v.flatten()[voxels] for v in (output, average, target, wanted)
        )
        product = (output - self.before.to(output.device)) * (target - wanted)
        self.before = average
        self.seen += 1
        self.optimism += (2 * product.mean().item() - self.optimism) / min(
            self.seen, self.settings.window
        )
        return (average - target).square().mean().item() + self.optimism

    def state_dict(self) -> dict:
        state = {"optimism": self.optimism, "seen": self.seen, "before": self.before}
        return {**super().state_dict(), **state}


class FixedRule(_Rule):
    """Every iteration is better than the one before."""

    def _measure(self, output: Tensor, average: Tensor, target: Tensor, wanted: Tensor) -> float:
        return math.nan

    def update(self, iteration: int, output: Tensor, average: Tensor, target, wanted) -> bool:
        self.best_iteration = iteration
        return True


def make_rule(settings: StopSettings, held_out: Tensor, seed: int, recorrupted=False) -> _Rule:
    """The stopping rule that the settings ask for.

    Parameters
    ----------
    settings : StopSettings
    held_out : (z, y, x) bool tensor
        Voxels that the loss leaves out (none but for the rule `held_out`).
    seed : int
    recorrupted : bool
        Whether what the loss wants has another noise than what the network sees.
    """
    if settings.rule == "variance":
        return VarianceRule(settings, held_out.numel(), seed)
    if settings.rule == "held_out" and recorrupted:
        return RecorruptedRule(settings, held_out)
    if settings.rule == "held_out":
        return HeldOutRule(settings, held_out)
    return FixedRule(settings)
