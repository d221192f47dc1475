"""What the columns of a table of points mean: axis and unit, by their names or by the user's word.

`z_vox`, `Z (px)`, `Position X`, `centroid-0` and others like them are known. A meaning that the
names do not tell is refused with the choices; nothing is guessed from the numbers.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from voxmill.evaluation.column_names import Column, column_of, words_of
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.header import VolumeHeader, to_micrometres

KNOWN = "z_vox,y_vox,x_vox or z,y,x (voxels), axis-0,axis-1,axis-2 (napari), z_um,y_um,x_um"
_TIMES = {"t", "frame", "timepoint", "time point", "ch", "channel"}
_FIJI = {"slice", "intden", "rawintden", "xm", "counter", "feret"}
_CHOICE = "`units: vox` or `units: um` beside the path of the ground truth"


@dataclass(frozen=True)
class TruthReading:
    """What is known about a ground truth beside its path; see `voxmill.config.volumes`.

    Parameters
    ----------
    columns : sequence of str or int, optional
        Names of the columns of z, y, x, or numbers from 1.
    units : str, optional
        vox or um.
    offset_vox : (3,) float, optional
        Added to the points, z, y, x.
    volume : VolumeHeader, optional
        The volume that the ground truth belongs to.
    """

    columns: Sequence[str | int] | None = None
    units: str | None = None
    offset_vox: Sequence[float] | None = None
    volume: VolumeHeader | None = None

    @property
    def by_number(self) -> bool:
        """Whether the columns are given by numbers."""
        return self.columns is not None and all(isinstance(name, int) for name in self.columns)


@dataclass(frozen=True)
class Choice:
    """The columns of a table's points.

    Parameters
    ----------
    indices : tuple of int
        Columns of z, y, x, from 0.
    scales : tuple of (float or None)
        Micrometres per unit of each; None for voxels.
    slices : bool
        Whether z counts planes from 1.
    unit_column : int or None
        Where the unit of the points is a column of its own.
    constant : tuple of int
        Columns that must have one value: time points and channels.
    also : tuple of (int, float)
        Columns of z, y, x, and micrometres per unit, that tell the same points as lengths.
    """

    indices: tuple[int, int, int]
    scales: tuple[float | None, float | None, float | None]
    slices: bool = False
    unit_column: int | None = None
    constant: tuple[int, ...] = ()
    also: tuple[tuple[int, float], ...] = ()


def choose(origin: str, names: Sequence[str], line: str, reading: TruthReading) -> Choice | None:
    """Find the columns of the points in a header; None where the line is none.

    Parameters
    ----------
    origin : str
        File, for messages.
    names : sequence of str
        Fields of a line.
    line : str
        The line itself.
    reading : TruthReading

    Raises
    ------
    VoxmillError
        If the line is one, and the meaning of its columns is unclear.
    """
    if reading.columns is not None:
        return _named(origin, names, reading)
    _refuse_shapes(origin, names)
    columns = [column for i, name in enumerate(names) if (column := column_of(i, name))]
    # Fiji calls the column of the rows' numbers " ", others "".
    fiji = line.startswith(" ") and not names[0]
    fiji = fiji or any(" ".join(words_of(name)[0]) in _FIJI for name in names)
    found = [
        (rank, triple, constant)
        for triple, constant in _triples(origin, columns)
        if (rank := _rank(triple, names, reading, fiji)) is not None
    ]
    if not found:
        if triples := [triple for triple, _ in _triples(origin, columns)]:
            raise VoxmillError(
                f"{origin}: expected columns in {reading.units}, as `units` says, found "
                f"{', '.join(names[column.index] for column in triples[0])}. Correct `units`, or "
                "name the columns with `columns`."
            )
        return None
    best = min(rank for rank, _, _ in found)
    chosen = [(triple, constant) for rank, triple, constant in found if rank == best]
    if len(chosen) > 1:
        raise VoxmillError(
            f"{origin}: expected one column for each of z, y, x, found several: "
            + "; ".join(", ".join(names[c.index] for c in triple) for triple, _ in chosen)
            + ". Choose with `columns: [name of z, of y, of x]` beside the path."
        )
    triple, constant = chosen[0]
    choice = _choice(origin, names, triple, constant, best, reading, fiji)
    lengths = [other for rank, other, _ in found if rank == 3 > best == 0]
    if len(lengths) != 1:
        return choice
    also = tuple((c.index, _scale(origin, names[c.index], c.unit) or 0.0) for c in lengths[0])
    return dataclasses.replace(choice, also=also)


def _refuse_shapes(origin: str, names: Sequence[str]) -> None:
    words = [" ".join(words_of(name)[0]) for name in names]
    if "vertex index" in words or "shape type" in words:
        raise VoxmillError(
            f"{origin}: expected points, found a layer of shapes of napari, whose rows are "
            "corners. Click the cells in a points layer."
        )


def _triples(
    origin: str, columns: Sequence[Column]
) -> list[tuple[tuple[Column, ...], tuple[int, ...]]]:
    """Complete sets of columns for z, y, x, each with the columns that must be constant."""
    groups: dict[tuple[str, str | None], list[Column]] = defaultdict(list)
    for column in columns:
        groups[column.group, column.unit].append(column)
    found: list[tuple[tuple[Column, ...], tuple[int, ...]]] = []
    for (group, _), members in groups.items():
        if group.endswith("number"):
            found += _numbered(origin, members)
            continue
        if triple := _complete(members):
            found.append((triple, ()))
    if not found:
        # Units that differ between the axes, or a Slice beside X and Y.
        for group in {column.group for column in columns}:
            members = [column for column in columns if column.group == group]
            if triple := _complete(members):
                found.append((triple, ()))
    return found


def _complete(members: Sequence[Column]) -> tuple[Column, ...] | None:
    by_axis = {axis: [m for m in members if m.axis == axis] for axis in ("z", "slice", "y", "x")}
    z = by_axis["z"] or by_axis["slice"]
    if len(z) == len(by_axis["y"]) == len(by_axis["x"]) == 1:
        return z[0], by_axis["y"][0], by_axis["x"][0]
    return None


def _numbered(
    origin: str, members: list[Column]
) -> list[tuple[tuple[Column, ...], tuple[int, ...]]]:
    members = sorted(members, key=lambda column: int(column.axis))
    if [int(column.axis) for column in members] != list(range(len(members))):
        return []
    if len(members) < 3:
        raise VoxmillError(
            f"{origin}: expected points with three axes (z, y, x), found {len(members)}: the "
            "points were set in 2D. Set them in the volume."
        )
    return [(tuple(members[-3:]), tuple(column.index for column in members[:-3]))]


def _rank(
    triple: Sequence[Column], names: Sequence[str], reading: TruthReading, fiji: bool
) -> int | None:
    """Order of preference: voxels by name, bare names, axes by number, lengths, unclear ones.

    None where the columns are in another unit than the configuration says.
    """
    units = {column.unit for column in triple if column.axis != "slice"}
    lengths = units - {"vox", None}
    if (reading.units == "vox" and lengths) or (reading.units == "um" and "vox" in units):
        return None
    if units == {"vox"}:
        return 0
    if lengths:
        return 3
    if triple[0].group == "" and not fiji:
        return 1
    return 2 if triple[0].group == "axis number" else 4


def _choice(
    origin: str, names: Sequence[str], triple: Sequence[Column], constant: tuple[int, ...],
    rank: int, reading: TruthReading, fiji: bool,
) -> Choice:  # fmt: skip
    words = [" ".join(words_of(name)[0]) for name in names]
    unit_column = words.index("unit") if rank == 4 and "unit" in words and not fiji else None
    scales = []
    for column in triple:
        unit = column.unit or reading.units
        if column.axis == "slice" or unit_column is not None or (unit is None and rank in (1, 2)):
            unit = "vox"
        scales.append(_scale(origin, names[column.index], unit, fiji))
    # Imaris calls the time point Time; elsewhere that may be when the point was set.
    times = _TIMES | ({"time"} if "trackid" in words or "collection" in words else set())
    used = {column.index for column in triple}
    times_at = tuple(i for i, word in enumerate(words) if word in times and i not in used)
    z, y, x = (column.index for column in triple)
    return Choice(
        (z, y, x), (scales[0], scales[1], scales[2]), triple[0].axis == "slice",
        unit_column, constant + times_at,
    )  # fmt: skip


def _scale(origin: str, name: str, unit: str | None, fiji: bool = False) -> float | None:
    if unit == "vox":
        return None
    if unit is None:
        raise VoxmillError(
            f"{origin}: expected a unit in the name of column {name!r}"
            + (" (Fiji writes pixels or the calibrated unit)" if fiji else "")
            + f", found none. Set {_CHOICE}, or name the columns z_vox,y_vox,x_vox or "
            "z_um,y_um,x_um."
        )
    scale = to_micrometres(unit) or to_micrometres(unit.removesuffix("s"))
    if scale is None:
        raise VoxmillError(
            f"{origin}: expected voxels or a length as the unit of column {name!r}, found "
            f"{unit!r}. Rename the column, for example to z_vox or z_um."
        )
    return scale


def _named(origin: str, names: Sequence[str], reading: TruthReading) -> Choice | None:
    """The columns that the configuration names; None where this line lacks one of them."""
    plain = [name.strip().lower() for name in names]
    indices = []
    for wanted in reading.columns or ():
        if isinstance(wanted, int):
            indices.append(wanted - 1)
        else:
            key = wanted.strip().lower()
            indices.append(plain.index(key) if plain.count(key) == 1 else len(names))
    if max(indices) >= len(names):
        return None
    if len(set(indices)) < 3:
        raise VoxmillError(
            f"{origin}: expected three different `columns`, found {list(reading.columns or ())}."
        )
    scales = [_named_scale(origin, index, names[index], reading) for index in indices]
    first = column_of(indices[0], names[indices[0]])
    slices = first is not None and first.axis == "slice"
    triple = (indices[0], indices[1], indices[2])
    return Choice(triple, (scales[0], scales[1], scales[2]), slices)


def _named_scale(origin: str, index: int, name: str, reading: TruthReading) -> float | None:
    column = column_of(index, name)
    if column is not None and column.axis == "slice":
        return None
    unit = column.unit if column else words_of(name)[1]
    if unit is not None and reading.units not in (None, "vox" if unit == "vox" else "um"):
        raise VoxmillError(
            f"{origin}: column {name!r} is not in {reading.units}, as `units` says. Correct "
            "`units` or `columns`."
        )
    bare = column is not None and column.group in ("", "axis number")
    return _scale(origin, name, unit or reading.units or ("vox" if bare else None))
