"""The tiles of a volume in the voxels of its file, in which cells are reported."""

from collections.abc import Sequence
from dataclasses import dataclass

from voxmill.tiles.grid import Tile
from voxmill.tiles.plan import Plan


@dataclass(frozen=True)
class OwnTile(Tile):
    """A tile of a resampled volume, its boxes in the voxels of the file.

    Parameters
    ----------
    core, window : Box
        The file's voxels whose centres lie in the tile's; cores partition the file's volume.
    planned_name : str
        The tile's name in the plan.
    """

    planned_name: str

    @property
    def name(self) -> str:
        """That in the plan."""
        return self.planned_name


def own_tiles(plan: Plan) -> Sequence[Tile]:
    """All tiles of a plan in the voxels of the file, z slowest."""
    grid = plan.volume.resampling
    if grid is None:
        return plan.tiles
    return [OwnTile(grid.own_box(t.core), grid.own_box(t.window), t.name) for t in plan.tiles]
