"""Figures: what the workflow found, to be looked at."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from voxmill.runtime.files import writing
from voxmill.runtime.jobs import job
from voxmill.volumes import open_volume, read_header

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Found by a colour-blind-safe palette (Okabe & Ito): green, yellow, vermilion.
STATUS_COLOURS = {"TP": "#009E73", "FN": "#F0E442", "FP": "#D55E00", "found": "#56B4E9"}
STATUS_NAMES = {"TP": "matched", "FN": "missed", "FP": "without a true cell", "found": "found"}
# A window of at most this many voxels a side is shown, from the middle of the volume.
MOST_SHOWN_VOX = 512
PLANES = (("xy", 0, (1, 2)), ("xz", 1, (0, 2)), ("yz", 2, (0, 1)))


def middle_window(shape: tuple, most: int = MOST_SHOWN_VOX) -> tuple[tuple, tuple]:
    """Start and stop of the middle part of a volume, at most `most` voxels along an axis."""
    start = tuple(max(0, (n - most) // 2) for n in shape)
    return start, tuple(a + min(n, most) for a, n in zip(start, shape, strict=True))


@job
def draw_overview(
    *,
    volume: dict,
    probability_path: str,
    cells_path: str,
    matches_path: str | None,
    output_path: str,
    depth_um: float = 4.0,
    reach_um: float = 6.0,
) -> None:
    """Draw the middle planes of a volume, the probability under them, and the cells near them.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    probability_path, cells_path : path
        Stitched probability and the cells found in it.
    matches_path : path or empty
        Truth and finds with their status, where there is a truth.
    output_path : path
        PNG.
    depth_um : float
        Thickness of the slab around each plane whose maximum is shown.
    reach_um : float
        Cells centred within this distance of a plane are marked.
    """
    header = read_header(**volume)
    start, stop = middle_window(header.shape)
    points = _points(cells_path, matches_path)
    parts = {}
    for name, path in (("volume", volume), ("probability", {"path": probability_path})):
        with open_volume(read_header(**path)) as source:
            parts[name] = [
                _projection(source, start, stop, axis, depth_um / header.voxel_size_um[axis])
                for _, axis, _ in PLANES
            ]
    figure = _draw(parts, points, start, stop, header.voxel_size_um, reach_um)
    figure.suptitle(
        f"Middle planes (maximum over {depth_um:g} µm) and the cells centred within {reach_um:g} µm"
    )
    with writing(output_path) as scratch:
        # A fixed creator keeps the bytes the same from run to run.
        figure.savefig(scratch, dpi=110, metadata={"Software": "voxmill"})
    plt.close(figure)


def _points(cells_path: str, matches_path: str | None) -> pd.DataFrame:
    if matches_path:
        return pd.read_csv(Path(matches_path))
    return pd.read_csv(Path(cells_path)).assign(status="found")


def _projection(source, start: tuple, stop: tuple, axis: int, depth_vox: float) -> np.ndarray:
    lower, upper = list(start), list(stop)
    middle = (start[axis] + stop[axis]) // 2
    half = max(1, round(depth_vox / 2))
    lower[axis], upper[axis] = max(start[axis], middle - half), min(stop[axis], middle + half)
    return source.read_window(tuple(lower), tuple(upper)).max(axis=axis).astype(np.float32)


def _draw(parts: dict, points: pd.DataFrame, start, stop, voxel_size_um, reach_um: float):
    sizes_um = [(b - a) * s for a, b, s in zip(start, stop, voxel_size_um, strict=True)]
    widths = [sizes_um[columns] for _, _, (_, columns) in PLANES]
    figure, axes = plt.subplots(
        2, 3, figsize=(15, 9.5), width_ratios=widths, layout="constrained", squeeze=False
    )
    low, high = np.percentile(parts["volume"][0], (1, 99.7))
    limits = {"volume": (low, max(high, low + 1)), "probability": (0, 1)}
    for row, (name, images) in enumerate(parts.items()):
        for column, (image, plane) in enumerate(zip(images, PLANES, strict=True)):
            panel = axes[row, column]
            _show(panel, image, plane, start, stop, voxel_size_um, limits[name])
            panel.set_title(f"{name}, {plane[0]}")
            _mark(panel, points, plane, start, stop, voxel_size_um, reach_um)
    found = {}
    for panel in axes.flat:
        found |= dict(zip(*panel.get_legend_handles_labels()[::-1], strict=True))
    if found:
        figure.legend(
            found.values(), found.keys(), loc="outside lower center", ncols=4, frameon=False
        )
    return figure


def _show(panel, image, plane, start, stop, voxel_size_um, limits) -> None:
    rows, columns = plane[2]
    edges = [
        (value - 0.5) * voxel_size_um[axis]
        for axis, value in (
            (columns, start[columns]), (columns, stop[columns]),
            (rows, stop[rows]), (rows, start[rows]),
        )
    ]  # fmt: skip
    panel.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1], extent=edges)
    panel.set_xlabel(f"{'zyx'[columns]} (µm)")
    panel.set_ylabel(f"{'zyx'[rows]} (µm)")


def _mark(panel, points, plane, start, stop, voxel_size_um, reach_um) -> None:
    _, axis, (rows, columns) = plane
    middle_um = (start[axis] + stop[axis]) / 2 * voxel_size_um[axis]
    position_um = points[["z_vox", "y_vox", "x_vox"]].to_numpy() * np.array(voxel_size_um)
    inside = np.abs(position_um[:, axis] - middle_um) <= reach_um
    voxels = points[["z_vox", "y_vox", "x_vox"]].to_numpy()
    inside &= ((voxels >= np.array(start) - 0.5) & (voxels < np.array(stop) - 0.5)).all(axis=1)
    for status, colour in STATUS_COLOURS.items():
        chosen = inside & (points["status"] == status).to_numpy()
        if chosen.any():
            panel.scatter(
                position_um[chosen, columns], position_um[chosen, rows], s=60, marker="o",
                facecolors="none", edgecolors=colour, linewidths=1.2, label=STATUS_NAMES[status],
            )  # fmt: skip
