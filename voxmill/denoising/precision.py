"""Mixed precision: half-precision passes under float32 master weights and a scaled loss.

P. Micikevicius et al., "Mixed precision training", 2017, https://arxiv.org/abs/1710.03740, with
`torch.amp.GradScaler`. Which operation runs in which type is said by `voxmill.networks.skip3d`:
convolutions in the type of the input, norms and the output in float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from voxmill.runtime.errors import VoxmillError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Skipped steps in a row after which the scale is so small that gradients vanish: from 2**16, the
# scale is then 2**-8.
MOST_SKIPPED = 24


@dataclass(frozen=True)
class StepReport:
    """What became of one optimiser step.

    Attributes
    ----------
    skipped : bool
        Whether it was left out because a gradient overflowed.
    scale : float
        Factor on the loss in this step.
    """

    skipped: bool
    scale: float


class Stepper:
    """Backward pass and optimiser step in one precision, with its log of scales and skips.

    Parameters
    ----------
    optimiser : torch.optim.Optimizer
        Over float32 weights.
    precision : str
        A key of `DTYPES`; float16 alone needs a scaled loss.
    device : str
        Type of the device that holds the loss, such as "cuda".
    """

    def __init__(self, optimiser: torch.optim.Optimizer, precision: str, device: str = "cpu"):
        self.optimiser = optimiser
        self.scaler = torch.amp.GradScaler(
            device, init_scale=2.0**16, growth_interval=500, enabled=precision == "float16"
        )
        self.skipped_in_a_row = 0

    def step(self, loss: Tensor) -> StepReport:
        """Follow the gradient of a float32 loss.

        Raises
        ------
        VoxmillError
            If `MOST_SKIPPED` steps in a row overflowed.
        """
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        scale = float(self.scaler.get_scale())
        self.scaler.step(self.optimiser)
        self.scaler.update()
        skipped = float(self.scaler.get_scale()) < scale
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        if self.skipped_in_a_row >= MOST_SKIPPED:
            raise VoxmillError(
                f"precision float16: {MOST_SKIPPED} steps in a row overflowed, the loss scale is "
                f"down to {scale:g}; use bfloat16 or float32, or a lower learning rate."
            )
        return StepReport(skipped, scale)

    def state_dict(self) -> dict:
        """State for a checkpoint."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a checkpoint."""
        self.optimiser.load_state_dict(state["optimiser"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.skipped_in_a_row = state["skipped_in_a_row"]


def mean_square(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of squared differences, in float32 whatever the types of the arguments.

    Parameters
    ----------
    output, target : float tensors of one shape
    weight : tensor of that shape, optional
        1 where a voxel counts, 0 elsewhere; all zero gives 0.
    """
    squares = (output.float() - target.float()).square()
    if weight is None:
        return squares.mean()
    weight = weight.float()
    return (squares * weight).sum() / weight.sum().clamp(min=1)
