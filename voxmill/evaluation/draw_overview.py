"""A figure of what the workflow found: middle planes, as the network sees them, and the cells."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxmill.cells.table import PLACE
from voxmill.geometry import Box, Triple, VoxelSize
from voxmill.networks import models
from voxmill.runtime.figures import plt, save_figure
from voxmill.runtime.jobs import job
from voxmill.volumes import check_source, open_volume, read_header
from voxmill.volumes.grey_values import read_grey_values
from voxmill.volumes.normalisation import Normaliser
from voxmill.volumes.probability import Probabilities
from voxmill.volumes.protocols import ReadableVolume

Plane = tuple[str, int, tuple[int, int]]
"""A plane's name, the axis across it, and the axes of its rows and columns."""

# Of a palette for the colour-blind (Okabe & Ito): green, yellow, vermilion, sky blue.
STATUS_COLOURS = {"TP": "#009E73", "FN": "#F0E442", "FP": "#D55E00", "found": "#56B4E9"}
STATUS_NAMES = {"TP": "matched", "FN": "missed", "FP": "without a true cell", "found": "found"}
# A window of at most this many voxels a side is shown, from the middle of the volume.
MOST_SHOWN_VOX = 512
PLANES: tuple[Plane, ...] = (("xy", 0, (1, 2)), ("xz", 1, (0, 2)), ("yz", 2, (0, 1)))


def middle_window(box: Box, most: int = MOST_SHOWN_VOX) -> Box:
    """The middle part of a volume or of a box of it, at most `most` voxels along an axis."""
    start = [a + max(0, (n - most) // 2) for a, n in zip(box.start, box.shape, strict=True)]
    return Box.from_shape([min(n, most) for n in box.shape], start)


@job(outputs=("output_path",))
def draw_overview(
    *,
    volume: dict,
    probability_path: str,
    cells_path: str,
    matches_path: str | None,
    output_path: str,
    statistics_path: str | None = None,
    weights_path: str | None = None,
    box: list[Triple] | None = None,
    fingerprint: str | None = None,
    depth_um: float = 4.0,
    reach_um: float = 6.0,
) -> None:
    """Draw the middle planes of a volume, what the network makes of them, and the cells near them.

    The grey values are shown as they are, normalised as the network takes them, and as
    probabilities.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    probability_path, cells_path : path
        Stitched probability and the cells found in it.
    matches_path : path or empty
        True and found cells with their status, where there is a ground truth.
    output_path : path
        PNG.
    statistics_path, weights_path : path, optional
        Grey values of the volume, and the network whose card tells their normalisation; without
        them the normalised planes are left out.
    box : pair of (3,) int, optional
        Start and stop of the box that the run is limited to, voxels of the file.
    fingerprint : str, optional
        Of the volume as the run was planned; another one is refused.
    depth_um : float
        Thickness of the slab around each plane whose maximum is shown.
    reach_um : float
        Cells centred within this distance of a plane are marked.
    """
    header = read_header(**volume)
    size = VoxelSize.of(header.voxel_size_um)
    points, grid = _points(cells_path, matches_path), header.resampling
    shown = Box(*box) if box else Box.from_shape(header.own_shape or header.shape)
    if grid is not None:
        shown, points[PLACE] = grid.covering(shown), grid.from_own(points[PLACE].to_numpy())
    window = middle_window(shown)
    shown_slabs = [slab(window, axis, depth_um / size.array[axis]) for _, axis, _ in PLANES]
    parts: dict[str, list[np.ndarray]] = {"volume": []}
    with open_volume(header) as source, Probabilities(probability_path) as probability:
        if statistics_path and weights_path:
            grey = read_grey_values(statistics_path, fingerprint)
            normalise = grey.normaliser(models.read_card(weights_path).normalisation)
            parts["normalised"] = _projections(source, shown_slabs, normalise)
        parts["volume"] = _projections(source, shown_slabs)
        parts["probability"] = _projections(probability, shown_slabs)
    check_source(header, fingerprint)
    origin_um = grid.origin_um if grid else np.zeros(3)
    figure = _draw(parts, points, window, size, origin_um, reach_um)
    figure.suptitle(
        f"Middle planes (maximum over {depth_um:g} µm) and the cells centred within {reach_um:g} µm"
    )
    save_figure(figure, output_path)


def _points(cells_path: str, matches_path: str | None) -> pd.DataFrame:
    if matches_path:
        return pd.read_csv(Path(matches_path))
    return pd.read_csv(Path(cells_path)).assign(status="found")


def slab(window: Box, axis: int, depth_vox: float) -> Box:
    """A slab around the middle plane of a window, across an axis."""
    middle = (window.start[axis] + window.stop[axis]) // 2
    half = max(1, round(depth_vox / 2))
    return window.with_axis(axis, middle - half, middle + half).clip(window)


def _projections(
    source: ReadableVolume, slabs: list[Box], normalise: Normaliser | None = None
) -> list[np.ndarray]:
    """Maxima over the slabs of `PLANES`, of normalised grey values where asked for."""
    images = []
    for (_, axis, _), box in zip(PLANES, slabs, strict=True):
        values = source.read_window(*box)
        if normalise is not None:
            values = normalise(values, box.start)
        images.append(values.max(axis=axis).astype(np.float32))
    return images


def limits_of(name: str, images: list[np.ndarray]) -> tuple[float, float]:
    """Values that are shown as black and white.

    From the 1st to the 99.7th percentile of all planes together, so that neither a bright speck nor
    one bright plane decides; normalised values no narrower than from 0 to 1, so that noise in an
    empty volume looks like noise, and no wider than from -1 to 4.
    """
    if name == "probability":
        return 0.0, 1.0
    values = np.concatenate([image.ravel() for image in images])
    low, high = (float(value) for value in np.percentile(values, (1, 99.7)))
    if name == "normalised":
        return float(np.clip(low, -1, 0)), float(np.clip(high, 1, 4))
    return low, max(high, low + 1)


def _draw(
    parts: dict[str, list[np.ndarray]],
    points: pd.DataFrame,
    window: Box,
    size: VoxelSize,
    origin_um: np.ndarray,
    reach_um: float,
) -> Figure:
    sizes_um = size.to_um(window.shape)
    widths = [sizes_um[columns] for _, _, (_, columns) in PLANES]
    figure, axes = plt.subplots(
        len(parts),
        3,
        figsize=(15, 0.5 + 4.5 * len(parts)),
        width_ratios=widths,
        layout="constrained",
        squeeze=False,
    )
    for row, (name, images) in enumerate(parts.items()):
        limits = limits_of(name, images)
        for column, (image, plane) in enumerate(zip(images, PLANES, strict=True)):
            panel = axes[row, column]
            _show(panel, image, plane, window, size, origin_um, limits)
            panel.set_title(f"{name}, {plane[0]}")
            _mark(panel, points, plane, window, size, origin_um, reach_um)
    found: dict[str, Any] = {}
    for panel in axes.flat:
        found |= dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    if found:
        figure.legend(
            list(found.values()), list(found), loc="outside lower center", ncols=4, frameon=False
        )
    return figure


def _show(
    panel: Axes,
    image: np.ndarray,
    plane: Plane,
    window: Box,
    size: VoxelSize,
    origin_um: np.ndarray,
    limits: tuple[float, float],
) -> None:
    rows, columns = plane[2]
    start, stop = window
    left, right, bottom, top = (
        (value - 0.5) * size.array[axis] + origin_um[axis]
        for axis, value in (
            (columns, start[columns]), (columns, stop[columns]),
            (rows, stop[rows]), (rows, start[rows]),
        )
    )  # fmt: skip
    panel.imshow(
        image, cmap="gray", vmin=limits[0], vmax=limits[1], extent=(left, right, bottom, top)
    )
    panel.set_xlabel(f"{'zyx'[columns]} (µm)")
    panel.set_ylabel(f"{'zyx'[rows]} (µm)")


def _mark(
    panel: Axes,
    points: pd.DataFrame,
    plane: Plane,
    window: Box,
    size: VoxelSize,
    origin_um: np.ndarray,
    reach_um: float,
) -> None:
    _, axis, (rows, columns) = plane
    middle_um = (window.start[axis] + window.stop[axis]) / 2 * size.array[axis]
    voxels = points[PLACE].to_numpy()
    position_um = size.to_um(voxels)
    inside = np.abs(position_um[:, axis] - middle_um) <= reach_um
    position_um += origin_um
    inside &= window.contains(voxels)
    for status, colour in STATUS_COLOURS.items():
        chosen = inside & (points["status"] == status).to_numpy()
        if chosen.any():
            panel.scatter(
                position_um[chosen, columns], position_um[chosen, rows], s=60, marker="o",
                facecolors="none", edgecolors=colour, linewidths=1.2, label=STATUS_NAMES[status],
            )  # fmt: skip
