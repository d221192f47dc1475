"""Tiles that share a job: which they are, by arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

from voxmill.runtime.errors import VoxmillError
from voxmill.tiles.grid import Grid

MOST_JOBS = 1000
"""Jobs, and input files of one job, that Snakemake handles in seconds."""


@dataclass(frozen=True)
class Batches:
    """The tiles of a grid in batches of consecutive ones; each has the name of its first tile.

    Parameters
    ----------
    grid : Grid
    size : int
        Tiles in a batch; the last one may have fewer.

    Examples
    --------
    >>> batches = Batches(Grid((1, 1, 10), (1, 1, 4)), 2)
    >>> batches.names, batches.tiles("z0000_y0000_x0000")
    (['z0000_y0000_x0000', 'z0000_y0000_x0008'], ('z0000_y0000_x0000', 'z0000_y0000_x0004'))
    >>> batches.of_tile("z0000_y0000_x0004"), batches.meeting(range(1, 3))
    ('z0000_y0000_x0000', ['z0000_y0000_x0000', 'z0000_y0000_x0008'])
    """

    grid: Grid
    size: int

    def __len__(self) -> int:
        return -(-len(self.grid) // self.size)

    @property
    def names(self) -> list[str]:
        """Names of all batches."""
        return self.meeting(range(len(self.grid)))

    def numbers(self, name: str) -> range:
        """Numbers of a batch's tiles; none where there is no such batch."""
        first = self.grid.number(name)
        if first is None or first % self.size:
            return range(0)
        return range(first, min(first + self.size, len(self.grid)))

    def tiles(self, name: str) -> tuple[str, ...]:
        """Names of a batch's tiles; none where there is no such batch."""
        return tuple(map(self.grid.name, self.numbers(name)))

    def of_tile(self, tile: str) -> str:
        """Name of the batch of a tile.

        Raises
        ------
        VoxmillError
            If the grid has no such tile.
        """
        number = self.grid.number(tile)
        if number is None:
            raise VoxmillError(
                f"tile {tile}: expected one of the {len(self.grid)} tiles from "
                f"{self.grid.name(0)} to {self.grid.name(len(self.grid) - 1)}."
            )
        return self.grid.name(number - number % self.size)

    def meeting(self, numbers: range) -> list[str]:
        """Names of the batches that hold tiles of a range of numbers."""
        first = numbers.start - numbers.start % self.size
        return [self.grid.name(number) for number in range(first, numbers.stop, self.size)]


def tiles_per_job(tiles: int, wanted: int | str) -> int:
    """How many tiles one prediction job predicts.

    Parameters
    ----------
    tiles : int
        Of the volume.
    wanted : int or "auto"
        auto: one, and where that makes more than 1000 jobs as many as make 1000 jobs of them.

    Examples
    --------
    >>> tiles_per_job(1000, "auto"), tiles_per_job(86_400, "auto"), tiles_per_job(86_400, 64)
    (1, 87, 64)
    """
    return -(-tiles // MOST_JOBS) if wanted == "auto" else int(wanted)


def tiles_per_cut(tiles: int, per_job: int) -> int:
    """How many tiles one job cuts: those of one prediction job, of several where there are many.

    Examples
    --------
    >>> tiles_per_cut(30, 8), tiles_per_cut(10_000, 1), tiles_per_cut(86_400, 64)
    (8, 10, 128)
    """
    jobs = -(-tiles // per_job)
    return per_job * -(-jobs // MOST_JOBS)


def missing(batches: Batches, present: Sequence[str] | set[str], suffix: str) -> dict[str, int]:
    """How many files of each batch are not there, for the batches that lack some.

    Parameters
    ----------
    batches : Batches
    present : set of str
        Names of files.
    suffix : str
        What follows a tile's name in that of its file.
    """
    found: dict[str, int] = {}
    for number, tile in enumerate(batches.grid.names):
        if tile + suffix not in present:
            name = batches.grid.name(number - number % batches.size)
            found[name] = found.get(name, 0) + 1
    return found
