"""A contact sheet of what a method got wrong: false finds and misses, the surest ones first."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxmill.cells.table import PLACE
from voxmill.geometry import Box, VoxelSize
from voxmill.runtime.figures import plt, save_figure
from voxmill.runtime.jobs import job
from voxmill.volumes import check_source, open_volume, read_header
from voxmill.volumes.probability import Probabilities
from voxmill.volumes.protocols import ReadableVolume

COLUMNS, ROWS = 10, 3
"""Of each of the two parts of the sheet."""
KINDS = {"FP": "found without a true cell, by score", "FN": "missed, by the probability there"}


@dataclass(frozen=True)
class Mistake:
    """One false find or miss.

    Parameters
    ----------
    place : (3,) float array
        Voxels, z, y, x.
    score : float
        Of a find its score; of a miss the largest probability within the matching distance.
    """

    place: np.ndarray
    score: float


@job(outputs=("output_path",))
def draw_mistakes(
    *,
    volume: dict,
    probability_path: str,
    matches_path: str,
    output_path: str,
    max_distance_um: float,
    fingerprint: str | None = None,
) -> None:
    """Draw crops of the volume around false finds and missed cells.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    probability_path : path
        Stitched probability.
    matches_path : path
        True and found cells with their status.
    output_path : path
        PNG.
    max_distance_um : float
        Matching distance; a crop reaches three times as far, and shows the maximum over planes
        within it.
    fingerprint : str, optional
        Of the volume as the run was planned; another one is refused.
    """
    header = read_header(**volume)
    size = VoxelSize.of(header.voxel_size_um)
    matches = pd.read_csv(Path(matches_path))
    if header.resampling is not None:
        matches[PLACE] = header.resampling.from_own(matches[PLACE].to_numpy(float))
    with (
        open_volume(header) as source,
        Probabilities(probability_path) as probability,
    ):
        found = {
            kind: _worst(
                matches[matches["status"] == kind], kind, probability, size, max_distance_um
            )
            for kind in KINDS
        }
        figure = _draw(found, source, size, max_distance_um, len(matches))
    check_source(header, fingerprint)
    save_figure(figure, output_path)


def _worst(
    rows: pd.DataFrame,
    kind: str,
    probability: ReadableVolume,
    size: VoxelSize,
    reach_um: float,
) -> list[Mistake]:
    """The mistakes of a kind, those of the highest scores first."""
    places = rows[PLACE].to_numpy(float)
    if kind == "FP":
        scores = rows["score"].to_numpy(float)
    else:
        scores = np.array([_largest(probability, place, size, reach_um) for place in places])
    order = np.argsort(-scores, kind="stable")
    return [Mistake(places[row], float(scores[row])) for row in order]


def _largest(
    probability: ReadableVolume, place: np.ndarray, size: VoxelSize, reach_um: float
) -> float:
    window = _around(place, reach_um / size.array).clip(Box.from_shape(probability.shape))
    return float(probability.read_window(*window).max(initial=0))


def _around(place: np.ndarray, reach_vox: np.ndarray) -> Box:
    nearest, reach = np.rint(place).astype(int), np.maximum(1, np.rint(reach_vox).astype(int))
    z, y, x = (nearest - reach).tolist()
    return Box((z, y, x), tuple((nearest + reach + 1).tolist()))


def _draw(
    found: dict[str, list[Mistake]],
    source: ReadableVolume,
    size: VoxelSize,
    reach_um: float,
    total: int,
) -> Figure:
    figure = plt.figure(figsize=(15, 10.5), layout="constrained")
    halves = figure.subfigures(2, 1, squeeze=False)[:, 0]
    for part, (kind, mistakes) in zip(halves, found.items(), strict=True):
        part.suptitle(f"{len(mistakes)} {KINDS[kind]}", x=0.005, ha="left", fontsize="medium")
        for panel in part.subplots(ROWS, COLUMNS).flat:
            panel.axis("off")
        for mistake, panel in zip(mistakes, part.axes, strict=False):
            _show(panel, mistake, source, size, reach_um)
    figure.suptitle(
        f"Mistakes, of {total} true and found cells: maximum over ±{reach_um:g} µm along z, "
        f"crops of {6 * reach_um:g} µm"
    )
    return figure


def _show(
    panel: Axes, mistake: Mistake, source: ReadableVolume, size: VoxelSize, reach_um: float
) -> None:
    reach_vox = np.array([1, 3, 3]) * reach_um / size.array
    window = _around(mistake.place, reach_vox)
    inside = window.clip(Box.from_shape(source.shape))
    crop = np.full(window.shape[1:], np.nan, np.float32)
    rows, columns = inside.relative_to(window.start).slices[1:]
    crop[rows, columns] = source.read_window(*inside).max(axis=0)
    low, high = np.nanpercentile(crop, (1, 99.5))
    _, dy, dx = size
    _, height, width = window.shape
    panel.imshow(
        crop, cmap="gray", vmin=low, vmax=max(high, low + 1),
        extent=(0, width * dx, height * dy, 0),
    )  # fmt: skip
    _, y, x = mistake.place - window.start + 0.5
    panel.add_patch(plt.Circle((x * dx, y * dy), reach_um, fill=False, color="#56B4E9", lw=0.8))
    panel.set_title(f"{mistake.score:.2f}", fontsize=8)
