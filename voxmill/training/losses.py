"""The loss of a training step."""

from torch import Tensor
from torch.nn import functional

from voxmill.config.training import TrainingSettings
from voxmill.networks.heads import HEADS, MASKS
from voxmill.training.sources import MASK_WEIGHT


def loss_of(
    logits: Tensor, targets: Tensor, settings: TrainingSettings, positive_weight: float
) -> Tensor:
    """Cross-entropy with soft targets, summed over the output maps.

    Parameters
    ----------
    logits : (batch, outputs, z, y, x) tensor
    targets : (batch, 1 + outputs, z, y, x) tensor
        As `voxmill.training.patches.PatchSampler.draw` gives them.
    settings : TrainingSettings
    positive_weight : float
        See `TrainingSettings.positive_weight`.
    """
    counts, names = targets[:, 0], settings.output_names
    masks = [number for number, name in enumerate(names) if name in MASKS]
    loss = _entropy(logits[:, 0], targets[:, 1], counts * (1 + positive_weight * targets[:, 1]))
    for number, name in enumerate(names[1:], start=1):
        weight = counts
        if name in HEADS:
            # What it says outside of objects is looked at only where the mask is wrong.
            weight = counts * (1 + MASK_WEIGHT * targets[:, 1 + masks[0]])
        entropy = _entropy(logits[:, number], targets[:, 1 + number], weight)
        loss = loss + settings.foreground_weight * entropy
    return loss


def _entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    entropy = functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    return entropy / weight.sum()
