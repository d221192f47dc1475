"""The loop of a training: steps, validations, checkpoints, early stopping."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from voxmill.config.training import TrainingSettings
from voxmill.runtime.jobs import logger
from voxmill.training.sources import Source
from voxmill.training.trainer import Trainer


@dataclass
class TrainingResult:
    """Result of a training.

    Parameters
    ----------
    network : torch module
        With the best averaged weights, in eval mode on the CPU.
    validation : dict
        Of these weights; see `voxmill.training.validation.validate`.
    history : list of dict
        One dict a validation, with the keys of `voxmill.training.curves.COLUMNS`.
    steps : int
        Steps done.
    stopped : str
        Why the training ended.
    """

    network: torch.nn.Module
    validation: dict
    history: list
    steps: int
    stopped: str


def train(
    sources: list[Source],
    settings: TrainingSettings,
    device: str = "cpu",
    threads: int = 1,
    checkpoint_path: str | Path | None = None,
    initial: Mapping[str, torch.Tensor] | None = None,
    threshold: float | None = None,
) -> TrainingResult:
    """Train a network.

    Parameters
    ----------
    sources : list of Source
        Training and validation volumes.
    settings : TrainingSettings
    device : str
        "cpu" or "cuda".
    threads : int
        CPU threads.
    checkpoint_path : path, optional
        The training resumes from it if it exists, and writes to it.
    initial : dict of str to tensor, optional
        Weights to start from. They are validated first, and kept unless the training is better
        by more than chance (`voxmill.training.trainer.Trainer.validate`).
    threshold : float, optional
        Of the model to start from; by default the best one on the validation data.

    Returns
    -------
    TrainingResult

    Raises
    ------
    VoxmillError
        If data are unusable (`voxmill.training.sources.check_sources`), the checkpoint is of
        another training, or the loss is not finite.
    """
    trainer = Trainer(sources, settings, device, threads, initial)
    if checkpoint_path:
        trainer.resume(checkpoint_path)
    begun, progress = time.perf_counter(), trainer.progress
    if initial is not None and not progress["history"]:
        before = trainer.validate(0.0, threshold)
        logger.info("before the training: validation F1 %.4f", before["f1"])
    earlier = progress["history"][-1]["seconds"] if progress["history"] else 0.0
    stopped = "all steps done"
    bar = tqdm(
        total=settings.steps,
        initial=progress["step"],
        unit="step",
        desc="training",
        # Without a terminal, the log gets a line at each validation.
        disable=not sys.stderr.isatty(),
    )
    while progress["step"] < settings.steps:
        if trainer.patience_over():
            stopped = f"no better F1 in {settings.patience} validations"
            break
        loss = trainer.step()
        bar.update()
        step = trainer.progress["step"]
        if step % settings.validate_every == 0 or step == settings.steps:
            result = trainer.validate(earlier + time.perf_counter() - begun)
            logger.info("step %d: loss %.4f, validation F1 %.4f", step, loss, result["f1"])
            bar.set_postfix(loss=f"{loss:.4f}", f1=f"{result['f1']:.4f}")
        if checkpoint_path and (step % settings.checkpoint_every == 0 or step == settings.steps):
            trainer.save(checkpoint_path)
    bar.close()
    if trainer.progress["best"] is None:
        trainer.validate(earlier + time.perf_counter() - begun)
    trainer.network.load_state_dict(trainer.best)
    progress = trainer.progress
    if initial is not None:
        _compare(progress)
    return TrainingResult(
        trainer.network.cpu().eval(), progress["best"], progress["history"], progress["step"],
        stopped,
    )  # fmt: skip


def _compare(progress: dict) -> None:
    """Say what a training made of the model that it started from."""
    before, best = progress["history"][0]["f1"], progress["best"]
    if best["step"]:
        logger.info("validation F1 %.4f before the training, %.4f after", before, best["f1"])
        return
    logger.warning(
        "no validation was better by more than chance than the model to start from (F1 %.4f), "
        "which is kept as it is. Label more cells, above all in the validation box.",
        before,
    )
