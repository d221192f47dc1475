"""What jobs know of predicted tiles: their array, the identity of each shard, lists of shards.

{network}/probability.ome.zarr/0/c/{z}/{y}/{x}   the shard of a tile: its core
{network}/predictions/{tile}.json                what the shard was made from, and its checksum
{network}/slabs/{slab}.json                      shards of one row along z, after a check
{network}/levels/{level}/{row}.json              the same of a level of the pyramid
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxmill.geometry import Triple
from voxmill.runtime.checked import read_checked_json, write_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.tiles.grid import tile_name
from voxmill.tiles.plan import REMAKE, Plan
from voxmill.tiles.records import Record
from voxmill.volumes.multiscale import level_arrays
from voxmill.volumes.pyramid import Level, pyramid_levels
from voxmill.volumes.shard_files import StoredShard, names_in, shard_key, shards_in
from voxmill.volumes.sharded import ShardedArray

REMAKE_LIST = "Delete its list of shards and run again: they are checked or made anew."
REMAKE_ROW = "Delete the file and run again: these shards are checked or made anew."


@dataclass(frozen=True)
class PlannedImage:
    """The image that tiles of a volume become: a network's predictions, or labels.

    Parameters
    ----------
    levels : list of Level
    arrays : list of ShardedArray
        One a level; the shards of the first are the tiles' cores.
    """

    levels: list[Level]
    arrays: list[ShardedArray]

    @classmethod
    def planned(cls, path: str | Path, plan: Plan, storage: Mapping[str, str]) -> "PlannedImage":
        """The image at a path.

        Parameters
        ----------
        path : path
            The folder, such as `probability.ome.zarr`.
        plan : Plan
        storage : dict
            `dtype` and `compression` of the stored voxels.
        """
        levels = pyramid_levels(plan.volume.shape, plan.volume.voxel_size_um)
        dtype, compression = storage["dtype"], storage["compression"]
        return cls(levels, level_arrays(path, levels, dtype, plan.tile_shape_vox, compression))


@dataclass(frozen=True)
class PredictedTile:
    """A tile's shard and what it was made from.

    Parameters
    ----------
    name : str
        The tile's.
    identity : dict
        JSON values that decide the shard's bytes: the tile's key, digests of model, statistics,
        tile, code and array, the settings.
    stored : StoredShard
    """

    name: str
    identity: dict[str, Any]
    stored: StoredShard

    def to_json(self) -> dict[str, Any]:
        """The tile as plain JSON values."""
        return {
            "name": self.name,
            "identity": self.identity,
            "shard": asdict(self.stored),
            "empty": self.stored.is_empty,
        }

    def write(self, path: str | Path) -> None:
        """Write what is known of the tile; the same content gives the same bytes."""
        write_checked_json(path, self.to_json())


def read_predicted(path: str | Path) -> PredictedTile:
    """Read what `PredictedTile.write` wrote.

    Raises
    ------
    VoxmillError
        If the file is missing, damaged or no such file.
    """
    content = read_checked_json(path, "prediction", REMAKE)
    record = Record(content, str(path), REMAKE)
    return PredictedTile(
        record.text("name"), record.object("identity").content, _stored(record.object("shard"))
    )


def check_identity(
    tile: PredictedTile, expected: Mapping[str, Any], path: str | Path
) -> PredictedTile:
    """Refuse a prediction that was made from anything else; `expected` may leave keys out.

    Raises
    ------
    VoxmillError
        Names the first key that differs.
    """
    for key, value in expected.items():
        if (found := tile.identity.get(key)) != value:
            raise VoxmillError(f"{path}: expected {key} {value}, found {found}. {REMAKE}")
    return tile


def write_row_manifest(
    path: str | Path, array: ShardedArray, shards: Iterable[StoredShard]
) -> None:
    """Write the list of shards of one row along z.

    Parameters
    ----------
    path : path
    array : ShardedArray
        Whose shards they are.
    shards : iterable of StoredShard
    """
    # Snakemake looks at a small file's content, not at its date: checksums belong into it.
    write_checked_json(path, {"array": array.digest, "shards": [asdict(s) for s in shards]})


def read_row_manifest(
    path: str | Path, arrays: Iterable[ShardedArray]
) -> tuple[ShardedArray, list[StoredShard]]:
    """Read the list of shards of one row along z; returns the array that they are of, and them.

    Parameters
    ----------
    path : path
    arrays : iterable of ShardedArray
        Of which it is one.

    Raises
    ------
    VoxmillError
        If the file is missing, damaged, or of another array.
    """
    content = read_checked_json(path, "list of shards", REMAKE_ROW)
    record = Record(content, str(path), REMAKE_ROW)
    shards = [_stored(entry) for entry in record.objects("shards")]
    digest = record.text("array")
    of = {array.digest: array for array in arrays}
    if digest not in of:
        raise record.error(f"array: expected {' or '.join(of)}, found {digest}")
    return of[digest], shards


def check_complete(array: ShardedArray, shards: Iterable[StoredShard], pilot: bool) -> None:
    """Refuse a level with a shard too few; remove files of shards that it has not.

    Parameters
    ----------
    array : ShardedArray
    shards : iterable of StoredShard
        Those that lists tell of.
    pilot : bool
        Whether they are those of a part: what lies outside of it is left as it is.

    Raises
    ------
    VoxmillError
        If a shard of the array is in no list, or one that is has no file.
    """
    listed = {shard.key: shard for shard in shards}
    there = shards_in(Path(array.path))
    wanted = {shard_key(i) for row in range(array.shards[0]) for i in array.indices(row)}
    if pilot:
        wanted = set(listed)
    filled = {key for key, shard in listed.items() if not shard.is_empty}
    missing = sorted((wanted - set(listed)) | (filled - there))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise VoxmillError(
            f"{array.path}: expected {len(wanted)} shards, found none of {missing[0]}{more}. "
            f"{REMAKE_LIST}"
        )
    # Those of an older grid go.
    for key in there & set(listed) if pilot else there:
        if key not in listed or listed[key].is_empty:
            Path(array.path, key).unlink(missing_ok=True)


def _stored(record: Record) -> StoredShard:
    return StoredShard(record.text("key"), record.number("bytes"), record.text("sha256"))


def lost_tiles(folder: str | Path, starts: Sequence[Triple], core_vox: Triple) -> list[str]:
    """Names of tiles whose prediction is known but whose shard is gone, in order.

    Folders are listed, no tile is looked at on its own, but for those without a shard: they may be
    empty, which their own files say.

    Parameters
    ----------
    folder : path
        Of a network's results on a volume.
    starts : sequence of (3,) int
        First voxels of the cores.
    core_vox : (3,) int
        The largest core.
    """
    known = names_in(Path(folder, "predictions"))
    shards = shards_in(Path(folder, "probability.ome.zarr", "0"))
    lost = []
    for start in starts:
        z, y, x = (a // n for a, n in zip(start, core_vox, strict=True))
        name = tile_name(start)
        if f"{name}.json" in known and shard_key((z, y, x)) not in shards:
            path = Path(folder, "predictions", f"{name}.json")
            if not _is_known_as_empty(path):
                lost.append(name)
    return lost


def _is_known_as_empty(path: Path) -> bool:
    try:
        return read_predicted(path).stored.is_empty
    except VoxmillError:
        return False


def forget(folder: str | Path, name: str, batch: str | None = None) -> None:
    """Remove what says that a tile is predicted, so that Snakemake predicts it again.

    Parameters
    ----------
    folder : path
        Of a network's results on a volume.
    name : str
        The tile's.
    batch : str, optional
        Name of the job that predicted it with others; that job keeps what is whole.
    """
    vouching = [
        Path(folder, "probability.ome.zarr", "zarr.json"),
        Path(folder, "predictions", f"{name}.json"),
        # Of a layer in several slabs all are checked anew: it costs little.
        *Path(folder, "slabs").glob(f"{name.partition('_')[0]}[._]*json"),
    ]
    if batch is not None:
        vouching.append(Path(folder, "batches", f"{batch}.json"))
    for path in vouching:
        path.unlink(missing_ok=True)
