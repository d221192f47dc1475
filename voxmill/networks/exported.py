"""Any network as a program of `torch.export`, in place of one of voxmill's.

The program maps a float32 batch (batch, inputs, z, y, x) to logits (batch, outputs, z, y, x) of
the same edges, and must have been exported with dynamic z, y and x. A `.pt2` file can hold pickled
parts: load only programs whose source you trust.
"""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxmill.config.networks import ExportedSettings
from voxmill.runtime.errors import VoxmillError


class Exported(nn.Module):
    """A program with the interface of voxmill's networks.

    Parameters
    ----------
    settings : ExportedSettings
    path : path
        The `.pt2` file.

    Raises
    ------
    VoxmillError
        If the file is not a program of `torch.export`.
    """

    def __init__(self, settings: ExportedSettings, path: str | Path) -> None:
        super().__init__()
        self.settings, self.path = settings, str(path)
        try:
            self.program = torch.export.load(self.path).module()
        except Exception as error:
            raise VoxmillError(
                f"{path}: expected a program saved by torch.export.save, found: {error}"
            ) from None

    def eval(self) -> Self:
        """The network itself: the mode of a program was fixed when it was exported."""
        return self

    def forward(self, volume: Tensor) -> Tensor:
        """Logits of a batch of any edges.

        Raises
        ------
        VoxmillError
            If the program refuses the shape, or its result has another one than declared.
        """
        multiple = self.settings.shape_multiple
        edges = volume.shape[2:]
        pad = [end for n in reversed(edges) for end in (0, -n % multiple)]
        padded = functional.pad(volume, pad)
        try:
            logits: Tensor = self.program(padded)
        except (RuntimeError, AssertionError) as error:
            if "memory" in str(error).lower():
                raise
            raise VoxmillError(
                f"{self.path}: the program can't evaluate a batch {tuple(padded.shape)}: {error}. "
                "Export it with dynamic z, y and x, and declare their shape_multiple."
            ) from None
        expected = (volume.shape[0], self.settings.outputs, *padded.shape[2:])
        if tuple(logits.shape) != expected:
            raise VoxmillError(
                f"{self.path}: expected logits of shape {expected}, found {tuple(logits.shape)}"
            )
        z, y, x = edges
        cropped: Tensor = logits[..., :z, :y, :x]
        return cropped
