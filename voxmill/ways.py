"""Two ways to the theoretical field of a network, what they cost, and which one is taken.

The whole network on each tile with its exact halo, or stages of layers (`voxmill.stages`).
Arithmetic alone: no I/O, no torch.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from voxmill.errors import VoxmillError
from voxmill.networks.settings import MSDNetSettings
from voxmill.stages import Stage, make_stage, make_stages, stage_settings
from voxmill.tiling import Triple

# What an evaluation costs, for the choice alone: nanoseconds a voxel, fitted to what
# `python benchmarks/layers.py` took on two AVX-512 cores, and the start of a job.
_MAP_NS = 3.1  # of a new map: there and back
_END_NS = 3.0  # of an input or output of a stage
_PAIR_NS = 0.08  # of a 3 x 3 x 3 kernel; a 1 x 1 x 1 kernel a quarter
_BYTE_NS = 1.0  # of a map read, with its checksum
_START_NS = 3e9


@dataclass(frozen=True)
class Way:
    """One way to the theoretical field, and what it costs.

    Parameters
    ----------
    stages : tuple of Stage
        More than one: layer by layer. One: the whole network with its exact halo.
    seconds : float
        By the model above; for comparison alone.
    factor : float
        Voxels that are evaluated, as a multiple of the volume's; of stages the mean over layers.
    memory_bytes : int
        Of the job that needs most; its blocks were chosen to fit.
    disk_bytes : int
        Of the maps of all stages but the last.
    """

    stages: tuple[Stage, ...]
    seconds: float = math.nan
    factor: float = math.nan
    memory_bytes: int = 0
    disk_bytes: int = 0

    @property
    def halo_vox(self) -> int:
        """Context that a tile needs on each side."""
        return max(stage.halo_vox for stage in self.stages)

    def describe(self) -> str:
        """The figures in one line."""
        kind = "exact halo" if len(self.stages) == 1 else f"{len(self.stages)} stages"
        return (
            f"{kind}: halo {self.halo_vox} voxels, work factor {self.factor:.2f}, "
            f"{self.seconds:.3g} s of the cost model, {self.memory_bytes / 1e9:.3g} GB of memory, "
            f"{self.disk_bytes / 1e9:.3g} GB of maps on disk"
        )


def fitting_cuts(
    shape: Triple, tile_shape: Triple, halo_vox: int, needed: Callable, budget_bytes: int
) -> tuple[Triple, int] | None:
    """Into how many blocks a tile must be cut to fit, longest edges first.

    Parameters
    ----------
    needed : callable
        Shape of a block with its halo -> bytes.

    Returns
    -------
    cuts : (3,) int
    bytes : int
        What its largest block needs. None instead where a single voxel does not fit.
    """
    core = [min(t, n) for t, n in zip(tile_shape, shape, strict=True)]

    def bytes_of(edge: int) -> int:
        edges = (min(c, edge) + 2 * halo_vox for c in core)
        return needed(tuple(min(e, n) for e, n in zip(edges, shape, strict=True)))

    if bytes_of(1) > budget_bytes:
        return None
    # The longest edge that fits, by bisection: `edge` does, `too_long` does not.
    edge, too_long = 1, max(core) + 1
    while too_long - edge > 1:
        middle = (edge + too_long) // 2
        edge, too_long = (middle, too_long) if bytes_of(middle) <= budget_bytes else (edge, middle)
    return tuple(-(-c // edge) for c in core), bytes_of(edge)


def evaluated_voxels(shape: Triple, tile_shape: Triple, halo_vox: int, cuts: Triple) -> int:
    """Voxels of all blocks of all tiles with their halos."""
    axes = zip(shape, tile_shape, cuts, strict=True)
    return math.prod(_along(n, t, halo_vox, c) for n, t, c in axes)


@functools.cache
def _along(n: int, tile: int, halo: int, cuts: int) -> int:
    total = 0
    for start in range(0, n, tile):
        core = min(tile, n - start)
        edges = [start + core * i // cuts for i in range(cuts + 1)]
        for a, b in itertools.pairwise(edges):
            total += min(b + halo, n) - max(a - halo, 0) if b > a else 0
    return total


@dataclass(frozen=True)
class Costs:
    """What stages of one network cost on one grid of tiles.

    Parameters
    ----------
    settings : MSDNetSettings
    shape, tile_shape : (3,) int
        The volume and the largest core, voxels.
    engine_bytes : callable
        (settings, box shape) -> peak bytes of an evaluation beyond its input.
    budget_bytes : int
        Memory that a job may use.
    """

    settings: MSDNetSettings
    shape: Triple
    tile_shape: Triple
    engine_bytes: Callable
    budget_bytes: int

    def stage(self, stage: Stage) -> tuple[float, int, int] | None:
        """Nanoseconds, voxels evaluated and bytes of memory; None where it does not fit."""
        net = stage_settings(self.settings, stage)
        last = stage.stop == self.settings.depth
        core = math.prod(min(t, n) for t, n in zip(self.tile_shape, self.shape, strict=True))
        result = 4 * net.outputs * core

        def needed(box: Triple) -> int:
            return self.engine_bytes(net, box) + 4 * net.inputs * math.prod(box) + result

        fit = fitting_cuts(self.shape, self.tile_shape, stage.halo_vox, needed, self.budget_bytes)
        if fit is None:
            return None
        cuts, memory = fit
        voxels = evaluated_voxels(self.shape, self.tile_shape, stage.halo_vox, cuts)
        written = 4 * (1 if last else net.outputs) * math.prod(self.shape)
        tiles = math.prod(-(-n // t) for n, t in zip(self.shape, self.tile_shape, strict=True))
        seconds = voxels * (_voxel_ns(net) + 4 * net.inputs * _BYTE_NS)
        return seconds + written * _BYTE_NS + tiles * _START_NS, voxels, memory

    def way(self, cuts: list[int]) -> Way | None:
        """The figures of stages with these borders; None where one of them does not fit."""
        stages = make_stages(self.settings, cuts)
        found = [self.stage(stage) for stage in stages]
        if None in found:
            return None
        volume = math.prod(self.shape)
        layers = sum(v * (s.stop - s.first) for s, (_, v, _) in zip(stages, found, strict=True))
        kept = self.settings.width * stages[-1].first
        return Way(
            stages,
            sum(ns for ns, _, _ in found) / 1e9,
            layers / self.settings.depth / volume,
            max(memory for _, _, memory in found),
            4 * kept * volume,
        )

    def cheapest_layers(self) -> Way | None:
        """The stages, two or more, of the least cost; None where no stages fit.

        A shortest path over the layers; of deep networks every so many layers are looked at.
        """
        depth = self.settings.depth
        borders = [*range(0, depth, max(1, depth // 60)), depth]
        best: dict[int, tuple[float, list[int]]] = {0: (0.0, [0])}
        for end, begin in ((b, a) for b in borders for a in borders if a < b):
            if begin not in best or (begin, end) == (0, depth):
                continue
            cost = self.stage(make_stage(self.settings, begin, end))
            if cost is None:
                continue
            total = best[begin][0] + cost[0]
            if end not in best or total < best[end][0]:
                best[end] = (total, [*best[begin][1], end])
        return self.way(best[depth][1]) if depth in best else None


def _voxel_ns(net: MSDNetSettings) -> float:
    maps = net.maps_before(net.depth)
    pairs = net.width * sum(net.maps_before(layer) for layer in range(net.depth))
    ends, kernels = net.inputs + net.outputs, pairs + net.outputs * maps / 4
    return _MAP_NS * (maps - net.inputs) + _END_NS * ends + _PAIR_NS * kernels


def choose_way(costs: Costs, wanted: str = "auto", no_layers: str | None = None) -> tuple[Way, str]:
    """The exact halo or stages of layers: the cheaper one that fits the memory.

    Parameters
    ----------
    costs : Costs
    wanted : str
        "auto", or "halo" or "layers" to force one.
    no_layers : str, optional
        Why stages can't be used here.

    Returns
    -------
    way : Way
    reason : str
        The figures of both, and why this one.

    Raises
    ------
    VoxmillError
        If what is wanted can't be used or does not fit, or nothing fits.
    """
    depth = costs.settings.depth
    if depth == 1:
        no_layers = no_layers or "the network has one layer"
    halo = costs.way([0, depth]) if wanted != "layers" else None
    layers = costs.cheapest_layers() if wanted != "halo" and not no_layers else None
    if wanted == "layers" and no_layers:
        raise VoxmillError(f"tiles.exact: expected auto or halo, found layers, but {no_layers}.")
    ways = [way for way in (halo, layers) if way is not None]
    if not ways:
        raise VoxmillError(_nothing_fits(costs, wanted))
    best = min(ways, key=lambda way: way.seconds)
    said = [way.describe() for way in ways]
    if no_layers:
        said.append(f"no stages: {no_layers}")
    elif wanted != "auto":
        said.append("as tiles.exact says")
    else:
        said += [f"{kind} does not fit" for kind, way in _named(halo, layers) if way is None]
    taken = "the exact halo" if best is halo else "stages of layers"
    return best, f"{taken} ({'; '.join(said)})"


def _named(halo, layers):
    return (("exact halo", halo), ("any cut into stages", layers))


def _nothing_fits(costs: Costs, wanted: str) -> str:
    depth = costs.settings.depth
    cuts = [0, depth] if wanted == "halo" else list(range(depth + 1))
    least = 0
    for stage in make_stages(costs.settings, cuts):
        net = stage_settings(costs.settings, stage)
        box = tuple(min(1 + 2 * stage.halo_vox, n) for n in costs.shape)
        least = max(least, costs.engine_bytes(net, box) + 4 * net.inputs * math.prod(box))
    return (
        f"tiles.exact_memory_gb: one voxel with its exact context needs {least / 1e9:.3g} GB "
        f"and a tile's result more ({'tiles.exact: ' + wanted}), there are "
        f"{costs.budget_bytes / 1e9:.3g} GB. Give jobs more memory, choose smaller tiles, or set "
        "tiles.halo_vox to auto."
    )
