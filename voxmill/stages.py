"""Layer by layer instead of a wide halo: the stages of a network.

An MS-D network is cut into stages of consecutive layers. A tile's stage needs the maps of all
earlier stages around its core as far as the stage's own dilations reach, which its neighbours have
written, so that no tile evaluates what another one does but in that margin. Pure geometry:
no I/O, no torch.
"""

import itertools
from dataclasses import dataclass

from voxmill.errors import VoxmillError
from voxmill.networks.settings import MSDNetSettings
from voxmill.tiling import Triple


@dataclass(frozen=True)
class Stage:
    """Consecutive layers that are evaluated together.

    Parameters
    ----------
    first, stop : int
        Layers, half-open.
    halo_vox : int
        The sum of their dilations: how far around a core they look.
    """

    first: int
    stop: int
    halo_vox: int

    @property
    def name(self) -> str:
        """layers010-020"""
        return f"layers{self.first:03d}-{self.stop:03d}"


def make_stages(settings: MSDNetSettings, cuts: list[int]) -> tuple[Stage, ...]:
    """Stages from their borders, for example [0, 10, 20, depth].

    Raises
    ------
    VoxmillError
        If the borders do not rise from 0 to the depth.
    """
    if len(cuts) < 2 or cuts[0] != 0 or cuts[-1] != settings.depth or sorted(set(cuts)) != cuts:
        raise VoxmillError(
            f"stages: expected borders that rise from 0 to {settings.depth}, found {cuts}"
        )
    return tuple(make_stage(settings, a, b) for a, b in itertools.pairwise(cuts))


def make_stage(settings: MSDNetSettings, first: int, stop: int) -> Stage:
    """The stage of layers [first, stop)."""
    return Stage(first, stop, sum(settings.dilation(layer) for layer in range(first, stop)))


def stage_settings(settings: MSDNetSettings, stage: Stage) -> MSDNetSettings:
    """A stage as an MS-D network of its own: all maps so far in, its new maps out.

    The last stage's outputs are the network's.
    """
    last = stage.stop == settings.depth
    layers = range(stage.first, stage.stop)
    return MSDNetSettings(
        depth=len(layers),
        width=settings.width,
        dilations=tuple(settings.dilation(layer) for layer in layers),
        inputs=settings.maps_before(stage.first),
        outputs=settings.outputs if last else len(layers) * settings.width,
    )


def neighbours(shape: Triple, tile_shape: Triple, start: Triple, halo_vox: int) -> list[Triple]:
    """Origins of the tiles whose cores lie within a halo of one tile's core, itself included.

    Parameters
    ----------
    shape, tile_shape : (3,) int
        The volume and the largest core, voxels.
    start : (3,) int
        Origin of the tile's core.
    halo_vox : int
    """
    axes = []
    for n, t, a in zip(shape, tile_shape, start, strict=True):
        first, last = max(a - halo_vox, 0), min(a + t + halo_vox, n) - 1
        axes.append(range(first // t * t, last + 1, t))
    return list(itertools.product(*axes))
