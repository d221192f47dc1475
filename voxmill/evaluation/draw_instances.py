"""Found objects beside true ones: outlines on planes, and the quality of each object by size."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxmill.evaluation.evaluate_instances import compared
from voxmill.evaluation.instances import Overlaps, count_overlaps
from voxmill.geometry import Box, VoxelSize
from voxmill.runtime.figures import plt, save_figure
from voxmill.runtime.files import read_json
from voxmill.runtime.jobs import job
from voxmill.volumes import LABEL_DTYPES, open_volume, read_header
from voxmill.volumes.protocols import ReadableVolume

PLANES = (1 / 4, 1 / 2, 3 / 4)
"""Where planes across z are shown, as shares of the depth; one across y goes through the middle."""
MOST_VOX = 400
"""Most voxels along an edge of a plane: the middle of larger ones is shown."""
COLOURS = {"true": "#56B4E9", "found": "#E69F00"}


@job(outputs=("output_path",))
def draw_instances(
    *,
    volume: Mapping[str, Any],
    truth_path: str,
    labels_path: str,
    instances_path: str,
    output_path: str,
    voxel_size_um: list[float],
    own_grid: dict[str, Any] | None = None,
    threads: int = 1,
) -> None:
    """Draw outlines of true and found objects on planes, and their overlap by size.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`, in the voxels of the file.
    truth_path, labels_path : path
        Labels: the ground truth, and the `zarr.json` of what was found.
    instances_path : path
        What `evaluate_instances` wrote.
    output_path : path
        PNG.
    voxel_size_um, own_grid
        As of `evaluate_instances`.
    threads : int
    """
    results = read_json(instances_path, "evaluation of labels")
    paths = truth_path, str(Path(labels_path).parent)
    with (
        open_volume(read_header(**volume)) as source,
        open_volume(read_header(paths[0], dtypes=LABEL_DTYPES)) as truth,
        open_volume(read_header(paths[1], dtypes=LABEL_DTYPES)) as opened,
    ):
        found, size = compared(opened, voxel_size_um, own_grid)
        overlaps = count_overlaps(truth, found, threads=threads, names=(truth_path, labels_path))
        figure = _draw(source, truth, found, size, overlaps, results)
    save_figure(figure, output_path)


def planes_of(shape: tuple[int, int, int]) -> list[Box]:
    """The planes that are shown: boxes of one voxel across z, the last one across y."""
    spans = [(max(0, (n - MOST_VOX) // 2), min(n, MOST_VOX)) for n in shape]
    boxes = []
    for axis, share in [(0, share) for share in PLANES] + [(1, 1 / 2)]:
        (z, depth), (y, height), (x, width) = (
            (int(share * n), 1) if k == axis else span
            for k, (n, span) in enumerate(zip(shape, spans, strict=True))
        )
        boxes.append(Box.from_shape((depth, height, width), (z, y, x)))
    return boxes


def best_overlaps(overlaps: Overlaps) -> np.ndarray:
    """(K,) largest intersection over union that each true object has with any found one."""
    best = np.zeros(len(overlaps.truth.labels))
    np.maximum.at(best, overlaps.rows, overlaps.ratios)
    return best


def _draw(
    source: ReadableVolume,
    truth: ReadableVolume,
    found: ReadableVolume,
    size: VoxelSize,
    overlaps: Overlaps,
    results: Mapping[str, Any],
) -> Figure:
    figure, panels = plt.subplots(2, 4, figsize=(16, 8.5), layout="constrained")
    z, y, x = source.shape
    boxes = planes_of((z, y, x))
    for panel, box in zip(panels[0], boxes, strict=True):
        _show_plane(panel, box, source, truth, found, size)
    grid = panels[1, 0].get_gridspec()
    for panel in panels[1]:
        panel.remove()
    _show_objects(figure.add_subplot(grid[1, :2]), overlaps, size)
    _show_classes(figure.add_subplot(grid[1, 2:]), results["by_size"])
    half = next(each for each in results["scores"] if each["threshold"] == 0.5)
    counts = results["splits_and_merges"]
    figure.suptitle(
        f"{results['true_objects']} true objects, {results['found_objects']} found; at an overlap "
        f"of 0.5: average precision {_text(half['average_precision'])}, panoptic quality "
        f"{_text(half['panoptic_quality'])}; {counts['split_objects']} split, "
        f"{counts['merged_objects']} merged"
    )
    return figure


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _show_plane(
    panel: Axes,
    box: Box,
    source: ReadableVolume,
    truth: ReadableVolume,
    found: ReadableVolume,
    size: VoxelSize,
) -> None:
    edges, across = size.array, box.shape.index(1)
    grey, true, got = (
        np.take(volume.read_window(*box), 0, axis=across) for volume in (source, truth, found)
    )
    axes = [axis for axis in range(3) if axis != across]
    first = [box.start[axis] * edges[axis] for axis in axes]
    last = [box.stop[axis] * edges[axis] for axis in axes]
    extent = (first[1], last[1], last[0], first[0])
    low, high = np.percentile(grey, (1, 99.5))
    panel.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1), extent=extent)
    for labels, colour in ((true, COLOURS["true"]), (got, COLOURS["found"])):
        _outline(panel, labels, extent, colour)
    where = box.start[across] * edges[across]
    panel.set_title(f"{'zyx'[across]} = {where:.4g} µm", fontsize="medium")


def _outline(
    panel: Axes, labels: np.ndarray, extent: tuple[float, float, float, float], colour: str
) -> None:
    """Draw the borders between pixels of two labels, as lines along the pixels' edges."""
    left, right, bottom, top = extent
    rows, columns = labels.shape
    down, along = (bottom - top) / rows, (right - left) / columns
    y, x = np.nonzero(labels[1:] != labels[:-1])
    level, first, last = top + (y + 1) * down, left + x * along, left + (x + 1) * along
    panel.hlines(level, first, last, colors=colour, linewidths=0.8)
    y, x = np.nonzero(labels[:, 1:] != labels[:, :-1])
    level, first, last = left + (x + 1) * along, top + y * down, top + (y + 1) * down
    panel.vlines(level, first, last, colors=colour, linewidths=0.8)


def _show_objects(panel: Axes, overlaps: Overlaps, size: VoxelSize) -> None:
    """Each true object: its volume and its best overlap."""
    panel.set_xlabel("volume of the true object, µm³")
    panel.set_ylabel("largest overlap (IoU) with a found one")
    panel.set_ylim(-0.02, 1.02)
    panel.axhline(0.5, color="0.7", lw=0.8)
    if len(overlaps.truth.labels):
        panel.set_xscale("log")
    volumes = overlaps.truth.counts * size.volume_um3
    panel.plot(volumes, best_overlaps(overlaps), ".", color=COLOURS["true"])
    panel.plot([], [], color=COLOURS["true"], label="outline of true objects")
    panel.plot([], [], color=COLOURS["found"], label="outline of found objects")
    panel.legend(loc="lower right", fontsize="small")


def _show_classes(panel: Axes, classes: list[dict[str, Any]]) -> None:
    """Classes of size: share of objects that are matched, and how well."""
    places = np.arange(len(classes))
    panel.bar(
        places - 0.2, [row["matched_share"] for row in classes], 0.4,
        color="0.6", label="matched at 0.5",
    )  # fmt: skip
    panel.bar(
        places + 0.2, [row["mean_overlap"] or 0.0 for row in classes], 0.4,
        color=COLOURS["found"], label="mean overlap of these",
    )  # fmt: skip
    for place, row in enumerate(classes):
        if (error := row["volume_error"]) is not None:
            panel.text(place, 1.03, f"volume {error:+.0%}", ha="center", fontsize="small")
    names = [
        f"{_volume(row['from_um3'])} to {_volume(row['to_um3'])} µm³\n{row['true_objects']} objects"
        for row in classes
    ]
    panel.set_xticks(places, names, fontsize="small")
    panel.set_ylim(0, 1.25)
    panel.legend(loc="upper right", fontsize="small", ncols=2)


def _volume(um3: float) -> str:
    return f"{um3:.0f}" if um3 >= 100 else f"{um3:.3g}"
