"""Mixed precision: half-precision passes under float32 master weights and a scaled loss.

P. Micikevicius et al., "Mixed precision training", 2017, https://arxiv.org/abs/1710.03740, with
`torch.amp.GradScaler`. `voxmill.networks.skip3d` decides which operation runs in which type:
convolutions in the type of the input, norms and the output in float32.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from voxmill.runtime.errors import VoxmillError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# The mean over 10 million voxels makes each voxel's gradient so small that float16 rounds a part of
# them to zero at the usual 2**16 (`benchmarks/loss_scale.py`). Steps that overflow halve it.
FIRST_SCALE = 2.0**24
# After this many skipped steps in a row the scale has fallen to 2**-8, and gradients vanish.
MOST_SKIPPED = 32


@dataclass(frozen=True)
class StepReport:
    """Result of one optimiser step.

    Attributes
    ----------
    skipped : bool
        Whether the step was left out because a gradient overflowed.
    scale : float
        Factor on the loss in this step.
    """

    skipped: bool
    scale: float


class Stepper:
    """Backward pass and optimiser step in one precision; counts skipped steps.

    Parameters
    ----------
    optimiser : torch.optim.Optimizer
        Over float32 weights.
    precision : str
        A key of `DTYPES`; only float16 uses a scaled loss.
    device : str
        Type of the device that holds the loss, such as "cuda".
    """

    def __init__(self, optimiser: torch.optim.Optimizer, precision: str, device: str = "cpu"):
        self.optimiser = optimiser
        self.scaler = torch.amp.GradScaler(
            device, init_scale=FIRST_SCALE, growth_interval=500, enabled=precision == "float16"
        )
        self.skipped_in_a_row = 0

    def step(self, loss: Tensor) -> StepReport:
        """Take one step along the gradient of a float32 loss.

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
                f"precision float16: {MOST_SKIPPED} steps in a row overflowed and the loss scale "
                f"fell to {scale:g}; use bfloat16 or float32, or a lower learning rate."
            )
        return StepReport(skipped, scale)

    def state_dict(self) -> dict:
        """Return the state for a checkpoint."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore the state of a checkpoint."""
        self.optimiser.load_state_dict(state["optimiser"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.skipped_in_a_row = state["skipped_in_a_row"]


def mean_square(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the mean of squared differences in float32 for arguments of any type.

    Parameters
    ----------
    output, target : float tensors of one shape
    weight : tensor of that shape, optional
        1 where a voxel counts, 0 elsewhere; the result is 0 if no voxel counts.
    """
    squares = (output.float() - target.float()).square()
    if weight is None:
        return squares.mean()
    weight = weight.float()
    return (squares * weight).sum() / weight.sum().clamp(min=1)


def kernels(deterministic: bool) -> AbstractContextManager:
    """Choose kernels of cuDNN that repeat bit for bit, or the fastest; no TF32 for float32.

    It has no effect on the CPU. The choice holds for the whole process: fits in several threads
    need one around all of them, so that none of them takes it back while another one computes.
    """
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=not deterministic, deterministic=deterministic, allow_tf32=False
    )
