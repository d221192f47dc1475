"""Evaluate a network in stages of layers, tile by tile, with exchange at the borders.

Exact for any tile: a stage's window holds the real maps of all earlier stages, and the box's own
zero boundary lies at least the sum of the stage's dilations outside of the core; at the volume's
border it is the boundary that the whole volume has. See `voxmill.stages` for what it costs.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxmill.engine.memory import predict_in_blocks
from voxmill.errors import VoxmillError
from voxmill.maps import MapFile
from voxmill.networks.settings import MSDNetSettings
from voxmill.networks.stored import StoredNetwork
from voxmill.planning import REMAKE
from voxmill.stages import Stage, make_stages, stage_settings
from voxmill.tiling import Tile, Triple, inside, plan_tiles


def stage_network(network, stage: Stage) -> StoredNetwork:
    """A stage of an MS-D network as a network of its own, with the same weights.

    Its outputs are its new maps as they are; the last stage's are the network's probabilities.

    Parameters
    ----------
    network : MSDNet or StoredNetwork
    stage : Stage
    """
    whole = StoredNetwork.of_msdnet(network)
    settings = stage_settings(whole.settings, stage)
    arrays = {
        f"{kind}.{i}": whole.arrays[f"{kind}.{stage.first + i}"]
        for kind in ("weights", "biases")
        for i in range(settings.depth)
    }
    last = stage.stop == whole.settings.depth
    if last:
        arrays |= {key: whole.arrays[key] for key in ("final_weight", "final_bias")}
    else:
        new_maps = np.eye(settings.outputs, settings.maps_before(settings.depth), settings.inputs)
        arrays["final_weight"] = new_maps.astype(np.float32)
        arrays["final_bias"] = np.zeros(settings.outputs, np.float32)
    return StoredNetwork("msdnet", settings, arrays, probabilities=last)


@dataclass(frozen=True)
class Piece:
    """Maps that one tile's stage gave: where they lie, and how a box of them is read.

    Parameters
    ----------
    start, stop : (3,) int
        The tile's core, absolute voxels.
    read : callable
        (start, stop, into): fills a (maps, z, y, x) array with a box, in voxels of the core.
    """

    start: Triple
    stop: Triple
    read: Callable


class Window:
    """All maps that a stage sees around a tile, read as boxes are asked for.

    Stands in for the (inputs, z, y, x) array of `predict_in_blocks`: a whole one would need more
    memory than a block of it.

    Parameters
    ----------
    volume : (inputs, z, y, x) float32 array
        The network's own input in the tile's window.
    origin : (3,) int
        Where the window starts, absolute voxels.
    stages : list of (int, list of Piece)
        For each earlier stage the number of its maps, and the pieces that cover the core with the
        halo.
    threads : int
        How many pieces are read at a time.
    """

    def __init__(self, volume: np.ndarray, origin: Triple, stages: list, threads: int = 1):
        self._volume, self._origin, self._stages = volume, origin, stages
        self._threads = threads
        maps = len(volume) + sum(count for count, _ in stages)
        self.shape = (maps, *volume.shape[1:])

    def __getitem__(self, box: tuple[slice, slice, slice, slice]) -> np.ndarray:
        """All maps of a box: `window[:, z0:z1, y0:y1, x0:x1]`."""
        start = tuple(part.start + o for part, o in zip(box[1:], self._origin, strict=True))
        stop = tuple(part.stop + o for part, o in zip(box[1:], self._origin, strict=True))
        edges = tuple(b - a for a, b in zip(start, stop, strict=True))
        result = np.empty((self.shape[0], *edges), np.float32)
        first, work = len(self._volume), []
        result[:first] = self._volume[(slice(None), *box[1:])]
        for count, pieces in self._stages:
            for piece in pieces:
                lower = tuple(map(max, start, piece.start))
                upper = tuple(map(min, stop, piece.stop))
                if all(a < b for a, b in zip(lower, upper, strict=True)):
                    to = result[(slice(first, first + count), *inside(lower, upper, start))]
                    place = (_minus(lower, piece.start), _minus(upper, piece.start))
                    work.append((piece.read, *place, to))
            first += count
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(lambda item: item[0](*item[1:]), work))
        return result


def _minus(a: Triple, b: Triple) -> Triple:
    return tuple(p - q for p, q in zip(a, b, strict=True))


@dataclass(frozen=True)
class StageFiles:
    """One stage of a network on the tiles of a plan, and the files of the stages before it.

    Parameters
    ----------
    cuts : tuple of int
        Borders of all stages, see `voxmill.stages.make_stages`.
    index : int
        Which stage is evaluated.
    folder : str
        Holds a folder for each stage, and in it a file of maps for each tile.
    """

    cuts: tuple[int, ...]
    index: int
    folder: str

    def stage(self, settings: MSDNetSettings) -> Stage:
        """The stage that is evaluated.

        Raises
        ------
        VoxmillError
            If the borders aren't those of the network, or there is no such stage.
        """
        stages = make_stages(settings, list(self.cuts))
        if not 0 <= self.index < len(stages):
            raise VoxmillError(f"stages: expected an index below {len(stages)}, found {self.index}")
        return stages[self.index]

    def window(
        self,
        settings: MSDNetSettings,
        plan: dict,
        box: Tile,
        volume: np.ndarray,
        model: str,
        threads: int = 1,
    ) -> Window:
        """What the stage sees around a tile.

        Parameters
        ----------
        settings : MSDNetSettings
            Of the whole network.
        plan : dict
            See `voxmill.planning.make_plan`.
        box : Tile
        volume : (inputs, z, y, x) float32 array
            The network's input in the tile's window.
        model : str
            Digest of the weights, which the maps must have been made with.
        threads : int
            See `Window`.

        Raises
        ------
        VoxmillError
            If a file is missing, broken or of another plan, model or stage, or the plan's windows
            are too small for the stage.
        """
        halo = self.stage(settings).halo_vox
        if halo > min(plan["halo_vox"]):
            raise VoxmillError(
                f"plan: expected a halo of {halo} voxels or more for this stage, found "
                f"{plan['halo_vox']}. Remove results of another configuration."
            )
        lower = [a - halo for a in box.core_start]
        upper = [b + halo for b in box.core_stop]
        near = [t for t in plan["tiles"] if _overlap(t["start"], t["stop"], lower, upper)]
        stages = []
        for stage in make_stages(settings, list(self.cuts))[: self.index]:
            count = (stage.stop - stage.first) * settings.width
            pieces = [self._piece(tile, stage, count, model) for tile in near]
            stages.append((count, pieces))
        return Window(volume, box.window_start, stages, threads)

    def _piece(self, tile: dict, stage: Stage, count: int, model: str) -> Piece:
        start, stop = tuple(tile["start"]), tuple(tile["stop"])
        path = Path(self.folder) / stage.name / f"{tile['name']}.maps"
        keys = map_keys(tile["key"], model, stage)
        return Piece(start, stop, MapFile(path, (count, *_minus(stop, start)), keys, REMAKE).read)


def map_keys(tile_key: str, model: str, stage: Stage) -> dict:
    """What a file of maps carries, so that those of two plans, models or cuts never mix."""
    return {"tile": tile_key, "model": model, "stage": stage.name}


def _overlap(start, stop, lower, upper) -> bool:
    axes = zip(start, stop, lower, upper, strict=True)
    return all(a < high and low < b for a, b, low, high in axes)


def evaluate_in_stages(
    network, volume: np.ndarray, tile_shape: Triple, cuts: list[int], **engine
) -> np.ndarray:
    """All stages over a volume that fits the memory, tile by tile: for checks and small volumes.

    Parameters
    ----------
    network : MSDNet
    volume : (inputs, z, y, x) float32 array
        Normalised intensities.
    tile_shape : (3,) int
        Largest core of a tile.
    cuts : list of int
        Borders of the stages, see `voxmill.stages.make_stages`.
    engine
        Keywords of `predict_in_blocks`, such as the backend.

    Returns
    -------
    (outputs, z, y, x) float32 array
        Probabilities, those of the whole volume at once but for rounding.
    """
    shape, done = volume.shape[1:], []
    for stage in make_stages(network.settings, list(cuts)):
        part, halo = stage_network(network, stage), (stage.halo_vox,) * 3
        result = np.empty((part.settings.outputs, *shape), np.float32)
        for tile in plan_tiles(shape, tile_shape, halo):
            view = volume[(slice(None), *inside(tile.window_start, tile.window_stop, (0, 0, 0)))]
            stages = [(len(maps), [_whole(maps)]) for maps in done]
            window = Window(view, tile.window_start, stages)
            core = predict_in_blocks(part, window, core_in_window(tile), halo, **engine)
            result[(slice(None), *inside(tile.core_start, tile.core_stop, (0, 0, 0)))] = core
        done.append(result)
    return done[-1]


def _whole(maps: np.ndarray) -> Piece:
    def read(start, stop, into):
        into[...] = maps[(slice(None), *inside(start, stop, (0, 0, 0)))]

    return Piece((0, 0, 0), maps.shape[1:], read)


def core_in_window(box: Tile) -> tuple[Triple, Triple]:
    """Start and stop of a tile's core in its window."""
    places = [(part.start, part.stop) for part in box.core_in_window]
    return tuple(zip(*places, strict=True))
