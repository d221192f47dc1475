"""The state of a training and its steps; `voxmill.training.loop` runs them."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from voxmill.config.training import TrainingSettings
from voxmill.engine import autograd, fourier
from voxmill.networks import build, check_settings
from voxmill.networks.msdnet import MSDNet
from voxmill.runtime.digests import source_digest
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.finished import take_back
from voxmill.runtime.jobs import logger
from voxmill.training.augmentation import augment
from voxmill.training.checkpoints import (
    digest_of,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from voxmill.training.losses import loss_of
from voxmill.training.mistakes import find_mistakes
from voxmill.training.patches import PatchSampler
from voxmill.training.sources import Source, check_sources, default_weight, points_in
from voxmill.training.validation import validate


def forward_function(network: MSDNet, device: str, threads: int) -> Callable[[Tensor], Tensor]:
    """Choose the fastest differentiable forward pass: the Fourier engine on CPUs, else PyTorch."""
    reason = fourier.available(network, device)
    if reason is None:
        return lambda batch: autograd.fourier_forward(network, batch, threads)
    logger.info("gradients by PyTorch; the native engine is not used: %s", reason)
    return network


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Learning rate of a step: a linear rise over the first 3 % of steps, then a cosine to 0."""
    rise = max(1, round(0.03 * settings.steps))
    if step < rise:
        return settings.learning_rate * (step + 1) / rise
    share = (step - rise) / max(1, settings.steps - rise)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


class Trainer:
    """The state of a training between steps.

    Parameters
    ----------
    sources : list of Source
        Training and validation volumes.
    settings : TrainingSettings
    device : str
        "cpu" or "cuda".
    threads : int
        CPU threads.
    initial : dict of str to tensor, optional
        Weights to start from (fine-tuning).

    Attributes
    ----------
    network : MSDNet
    average, best : dict of str to tensor
        Moving average of the weights, and the average of the best validation so far.
    progress : dict
        step (steps done), history (one dict a validation), best (the best validation, or None) and
        digest (of settings and data).
    """

    def __init__(
        self,
        sources: list[Source],
        settings: TrainingSettings,
        device: str,
        threads: int,
        initial: Mapping[str, Tensor] | None = None,
    ):
        check_sources(sources, settings)
        torch.set_num_threads(threads)
        self.sources, self.settings = sources, settings
        self.device, self.threads = device, threads
        kind = settings.network["kind"]
        shape = {k: v for k, v in settings.network.items() if k != "kind"}
        self.network = cast(MSDNet, build(kind, check_settings(kind, shape), settings.seed))
        if initial is None:
            self._expect_few_cells()
        else:
            self.network.load_state_dict(initial)
        self.network.to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), settings.learning_rate)
        self.scaler = torch.amp.GradScaler(device, enabled=settings.precision == "float16")
        self.average = self._weights()
        self.best = self._weights()
        self.progress: dict[str, Any] = {"step": 0, "history": [], "best": None}
        self.progress["digest"] = self._digest(initial)
        self.sampler = PatchSampler(sources, settings)
        self.positive_weight = settings.positive_weight or default_weight(sources, settings)
        self._forward = forward_function(self.network, device, threads)
        self._losses: list[float] = []

    def _expect_few_cells(self) -> None:
        # The first probability is 2 % instead of 50 %, which saves the first steps.
        with torch.no_grad():
            self.network.final_bias.fill_(-4.0)
            self.network.final_weight.mul_(0.3)

    def _weights(self) -> dict[str, Tensor]:
        return {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}

    def _digest(self, initial: Mapping[str, Tensor] | None) -> str:
        """Hex digest of settings, data, code and initial weights that a checkpoint must have."""
        content = json.dumps(dataclasses.asdict(self.settings), sort_keys=True, default=list)
        digest = hashlib.sha256(content.encode())
        digest.update(source_digest("voxmill.training.trainer").encode())
        for source in self.sources:
            held = source.validation and tuple(source.validation)
            about = (source.name, tuple(source.region), held, source.contents)
            digest.update(repr((*about, source.voxel_size_um, source.grey.statistics)).encode())
            digest.update(source.grey.blocks.levels.tobytes())
            digest.update(np.ascontiguousarray(source.points).tobytes())
        for tensor in (initial or {}).values():
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def resume(self, path: str | Path) -> bool:
        """Restore the state of a checkpoint; returns whether there is one.

        Raises
        ------
        VoxmillError
            If the checkpoint is broken or of other settings or data.
        """
        take_back(path, lambda kept: digest_of(kept) == self.progress["digest"])
        if not has_checkpoint(path):
            return False
        average, best, progress = load_checkpoint(path, self.network, self.optimizer)
        if progress.get("digest") != self.progress["digest"]:
            raise VoxmillError(
                f"{path}: this checkpoint belongs to a training with other settings or data, "
                "or of another version of voxmill. "
                "Remove the file to train from the start, or restore the settings."
            )
        self.average, self.best, self.progress = average, best, progress
        self._losses = list(progress.get("losses", []))
        self.sampler.use_mistakes(progress.get("mistakes", []))
        logger.info("resumed at step %d", progress["step"])
        return True

    def step(self) -> float:
        """Run one optimisation step; returns the loss.

        Raises
        ------
        VoxmillError
            If the loss is not finite.
        """
        settings, number = self.settings, self.progress["step"]
        if settings.mistake_share and number == round(settings.mistakes_from * settings.steps):
            self._look_for_mistakes(number)
        rng = np.random.default_rng((settings.seed, number))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, settings)
        patches, targets = self._draw(rng)
        self.optimizer.zero_grad(set_to_none=True)
        precision = getattr(torch, settings.precision)
        with torch.autocast(self.device, precision, enabled=settings.precision != "float32"):
            logits = self._forward(patches)
        loss = loss_of(logits.float(), targets, settings, self.positive_weight)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise VoxmillError(
                f"training: the loss is {value} at step {number}. Try a lower "
                f"training.learning_rate (now {settings.learning_rate:g}), precision float32 (now "
                f"{settings.precision}), and check the volumes for extreme grey values."
            )
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._update_average(number)
        self.progress["step"] = number + 1
        self._losses.append(value)
        return value

    def _look_for_mistakes(self, number: int) -> None:
        """Find the mistakes of the averaged weights, and draw patches on them from now on."""
        rng = np.random.default_rng((self.settings.seed, number, 1))
        with self._averaged() as network:
            found = find_mistakes(
                network, self.sampler.sources, self.settings, self.device, self.threads, rng
            )
        # In the checkpoint, since a resumed training can't find them again.
        self.progress["mistakes"] = [places.tolist() for places in found]
        self.sampler.use_mistakes(self.progress["mistakes"])
        logger.info("step %d: %d mistakes in the training volumes", number, sum(map(len, found)))

    @contextmanager
    def _averaged(self) -> Iterator[MSDNet]:
        """The network with the averaged weights, in eval mode."""
        current = self._weights()
        self.network.load_state_dict(self.average)
        yield self.network.eval()
        self.network.train()
        self.network.load_state_dict(current)

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw patches (batch, 1, z, y, x) and targets (batch, 1 + outputs, z, y, x)."""
        patches, targets = [], []
        for _ in range(self.settings.batch):
            patch, target, size = self.sampler.draw(rng)
            patch, target = augment(patch, target, size, self.settings.augmentation, rng)
            patches.append(patch)
            targets.append(target)
        return (
            torch.from_numpy(np.stack(patches)[:, None]).to(self.device),
            torch.from_numpy(np.stack(targets)).to(self.device),
        )

    def _update_average(self, number: int) -> None:
        # The decay starts low, so that the average soon loses the random start.
        decay = min(self.settings.average, (1 + number) / (10 + number))
        if self.settings.average == 0:
            decay = 0.0
        with torch.no_grad():
            for key, value in self.network.state_dict().items():
                self.average[key].lerp_(value.cpu(), 1 - decay)

    def validate(self, seconds: float, threshold: float | None = None) -> dict[str, Any]:
        """Validate the averaged weights and keep them if they are the best so far.

        Weights to start from (step 0) are beaten only by more than chance: few cells tell little,
        and what they tell of the threshold is as uncertain.

        Parameters
        ----------
        seconds : float
            Time of the training so far, for the history.
        threshold : float, optional
            See `voxmill.training.validation.validate`.

        Returns
        -------
        dict
            As `voxmill.training.validation.validate`.
        """
        with self._averaged() as network:
            result = validate(
                network, self.sources, self.settings, self.device, self.threads, threshold
            )
        number = self.progress["step"]
        self.progress["history"].append(
            {
                "step": number,
                "loss": float(np.mean(self._losses)) if self._losses else None,
                "learning_rate": learning_rate(max(number - 1, 0), self.settings),
                **{k: result[k] for k in ("f1", "precision", "recall", "threshold")},
                "seconds": seconds,
            }
        )
        self._losses = []
        best = self.progress["best"]
        if best is None or result["f1"] > best["f1"] + self._chance(best):
            self.progress["best"] = {**result, "step": number}
            self.best = {k: v.clone() for k, v in self.average.items()}
        return result

    def _chance(self, best: Mapping[str, Any]) -> float:
        """By how much a training must be better than the weights to start from.

        The standard error of their F1, taken as a share of the cells. For differences between two
        networks on the same cells that is cautious, and meant to be: the training also had the
        choice of step and threshold on these cells.
        """
        if best["step"]:
            return 0.0
        cells = sum(len(points_in(s.points, s.validation)) for s in self.sources if s.validation)
        return math.sqrt(best["f1"] * (1 - best["f1"]) / cells)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint."""
        progress = {**self.progress, "losses": self._losses}
        save_checkpoint(path, self.network, self.average, self.best, self.optimizer, progress)

    def patience_over(self) -> bool:
        """Whether `patience` validations have passed without a better one."""
        if not self.settings.patience or self.progress["best"] is None:
            return False
        since = sum(row["step"] > self.progress["best"]["step"] for row in self.progress["history"])
        return since >= self.settings.patience
