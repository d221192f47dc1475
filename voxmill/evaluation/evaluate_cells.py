"""Cells against ground truth: in all, tile by tile and point by point."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from voxmill.cells.table import PLACE, read_cells
from voxmill.config.evaluation import EvaluationSettings
from voxmill.evaluation.ground_truth import check_inside, read_checked_truth
from voxmill.evaluation.matches import Frame, Matches, match_cells, tile_of_points
from voxmill.evaluation.matching import check_distance, check_points
from voxmill.evaluation.metrics import METRICS, scores_of
from voxmill.geometry import Box, VoxelSize
from voxmill.networks.models import read_card
from voxmill.runtime.files import write_json, writing
from voxmill.runtime.jobs import job, logger
from voxmill.tiles.grid import Tile
from voxmill.tiles.own_tiles import own_tiles
from voxmill.tiles.plan import read_plan
from voxmill.volumes.appearance import unlike
from voxmill.volumes.grey_values import read_grey_values

STATUS = ("TP", "FP", "FN")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Parameters
    ----------
    results : dict
        Settings, and every metric of `voxmill.evaluation.metrics.METRICS` by its name; plain JSON
        values.
    tiles : pandas.DataFrame
        First the row "all", then a row for each tile in the region. A point belongs to the tile
        whose core holds its nearest voxel; `n_truth` and `n_found` are the points of the tile that
        count. A true positive counts in the row of its true point. The rows of the tiles add up
        to the first row.
    matches : pandas.DataFrame
        A row for each true positive (at the found place, with the true one beside it), false
        positive and false negative, in absolute coordinates.
    """

    results: dict
    tiles: pd.DataFrame
    matches: pd.DataFrame


def evaluate(
    truth: np.ndarray,
    cells: pd.DataFrame,
    settings: EvaluationSettings,
    voxel_size_um: Iterable[float],
    volume_shape: Sequence[int],
    tiles: Sequence[Tile] = (),
) -> Evaluation:
    """Compare cells with the ground truth.

    Parameters
    ----------
    truth : (N, 3) float array
        True centroids in voxels, z, y, x, absolute.
    cells : pandas.DataFrame
        With the columns id, z_vox, y_vox, x_vox and score, as `voxmill.cells.table.read_cells`
        gives.
    settings : EvaluationSettings
        See `voxmill.evaluation.matches.Matches` for what counts at the edge of a region of
        interest.
    voxel_size_um : (3,) float
    volume_shape : (3,) int
    tiles : sequence of Tile
        Every tile of the volume; their cores form a grid. Without them there are no rows of tiles
        and no seams.

    Raises
    ------
    VoxmillError
        If the region is impossible, or a coordinate of a point is missing or not finite.
    """
    size = VoxelSize.of(voxel_size_um)
    check_distance(settings.max_distance_um)
    whole = Box.from_shape(volume_shape)
    region = Box.parse(settings.region, whole.shape) if settings.region else whole
    frame = Frame(whole.shape, size, region, tiles)
    found = check_points(cells[["z_vox", "y_vox", "x_vox"]].to_numpy(float), "cells")
    scores = cells["score"].to_numpy(float)
    matches = match_cells(
        check_points(truth, "truth"), found, scores, frame, settings.max_distance_um
    )
    results = {"settings": asdict(settings), "volume_shape": list(whole.shape)}
    results |= {"voxel_size_um": list(size), "region": region.to_lists()}
    results |= {name: metric(matches, settings) for name, metric in METRICS.items()}
    return Evaluation(results, _tile_table(matches), _match_table(matches, cells["id"].to_numpy()))


def _tile_table(matches: Matches) -> pd.DataFrame:
    frame = matches.frame
    places, kinds = matches.events
    found = np.concatenate(
        [matches.found[matches.true_positives[:, 1]], matches.found[matches.false_positives]]
    )
    rows = [_tile_row("all", frame.region, np.bincount(kinds, minlength=3), len(found))]
    tile_of_event = tile_of_points(places, frame.tiles)
    tile_of_found = tile_of_points(found, frame.tiles)
    n_tiles = len(frame.tiles)
    counts = np.zeros((n_tiles + 1, 3), dtype=int)  # the last row takes points in no tile
    np.add.at(counts, (tile_of_event, kinds), 1)
    n_found = np.bincount(tile_of_found[tile_of_found >= 0], minlength=n_tiles)
    for k, tile in enumerate(frame.tiles):
        # A pair's found point may lie in a tile beside the region.
        if tile.core.overlaps(frame.region) or n_found[k]:
            rows.append(_tile_row(tile.name, tile.core, counts[k], n_found[k]))
    return pd.DataFrame(rows)


def _tile_row(name: str, box: Box, counts: np.ndarray, n_found: int) -> dict:
    tp, fp, fn = (int(n) for n in counts)
    corners = {
        f"{axis}_{end}": value
        for end, corner in zip(("start", "stop"), box, strict=True)
        for axis, value in zip("zyx", corner, strict=True)
    }
    return (
        {"tile": name}
        | corners
        | {"n_truth": tp + fn, "n_found": int(n_found)}
        | scores_of(tp, fp, fn)
    )


def _match_table(matches: Matches, cell_ids: np.ndarray) -> pd.DataFrame:
    """A row for each event, sorted by z, y, x; rows of the ground truth count from 1."""
    nothing = np.full((max(len(matches.truth), len(matches.found), 1), 3), np.nan)
    rows, columns = matches.true_positives.T
    false, missed = matches.false_positives, matches.false_negatives
    places = np.concatenate([matches.found[columns], matches.found[false], matches.truth[missed]])
    true_places = np.concatenate(
        [matches.truth[rows], nothing[: len(false)], matches.truth[missed]]
    )
    table = pd.DataFrame({"status": np.repeat(STATUS, matches.counts)})
    table[["z_vox", "y_vox", "x_vox"]] = places
    table[["z_um", "y_um", "x_um"]] = matches.frame.voxel_size_um.to_um(places)
    table[["truth_z_vox", "truth_y_vox", "truth_x_vox"]] = true_places
    absent, unscored = nothing[: len(missed), 0], nothing[: len(false), 0]
    table["distance_um"] = np.concatenate([matches.distances_um, unscored, absent])
    found_rows = np.concatenate([columns, false])
    table["score"] = np.concatenate([matches.scores[found_rows], absent])
    table["cell_id"] = pd.array([*cell_ids[found_rows].tolist(), *[None] * len(missed)], "Int64")
    table["truth_row"] = pd.array(
        [*(rows + 1).tolist(), *[None] * len(false), *(missed + 1).tolist()], "Int64"
    )
    names = np.array([*(tile.name for tile in matches.frame.tiles), ""], dtype=object)
    table["tile"] = names[tile_of_points(places, matches.frame.tiles)]
    return table.sort_values(["z_vox", "y_vox", "x_vox", "status"], ignore_index=True)


@job(outputs=("json_path", "csv_path", "matches_path"))
def evaluate_cells(
    *,
    plan_path: str,
    truth_path: str,
    cells_path: str,
    json_path: str,
    csv_path: str,
    matches_path: str,
    settings: dict,
    statistics_path: str | None = None,
    weights_path: str | None = None,
    pilot: bool = False,
) -> None:
    """Compare a table of cells with a table of true points.

    Parameters
    ----------
    plan_path : path
        Plan of the volume: shape, voxel size, tiles; all are taken in the voxels of the file.
    truth_path : path
        Points in voxels, as `voxmill.evaluation.check_ground_truth` writes them.
    cells_path : path
    json_path, csv_path, matches_path : path
        Outputs: all metrics, a row for each tile, a row for each true or found cell.
    settings : dict
        See `EvaluationSettings`.
    statistics_path, weights_path : path, optional
        Grey values of the volume, and the model that found the cells: the evaluation then says
        the share of tissue, and what the model has not seen in its training.
    pilot : bool
        Whether cells were looked for in a part alone: then nothing is said about their density.

    Raises
    ------
    VoxmillError
        If an input is missing or broken, a point lies outside of the volume, or a setting is
        unknown or out of range.
    """
    plan = read_plan(plan_path)
    volume = plan.volume
    shape = volume.own_shape or volume.shape
    size = VoxelSize.of(volume.own_voxel_size_um or volume.voxel_size_um)
    frame = Box.from_shape(shape)
    truth, cells = read_checked_truth(truth_path, frame, size), read_cells(cells_path)
    check_inside(cells_path, cells[PLACE].to_numpy(float), frame, size)
    checked = EvaluationSettings.from_dict(settings)
    result = evaluate(truth, cells, checked, size, shape, own_tiles(plan))
    if statistics_path and weights_path:
        number = None if pilot else len(cells)
        result.results.update(_model_range(statistics_path, weights_path, number))
    write_json(json_path, result.results)
    _write_csv(csv_path, result.tiles, "%.6f")
    _write_csv(matches_path, result.matches, "%.4f")
    logger.info("%s against %s\n%s", cells_path, truth_path, table({"cells": result.results}))


def _model_range(statistics_path: str, weights_path: str, cells: int | None) -> dict:
    """Share of tissue, and what the model has not seen, for the results and the log."""
    grey, card = read_grey_values(statistics_path), read_card(weights_path)
    found = unlike(card.seen, grey, card.normalisation, cells)
    for sentence in found:
        logger.warning("%s", sentence)
    return {"tissue": grey.statistics["tissue"], "unlike_training": found}


def _write_csv(path: str | Path, rows: pd.DataFrame, float_format: str) -> None:
    with writing(path) as scratch:
        rows.to_csv(scratch, index=False, float_format=float_format, lineterminator="\n")


TABLE_COLUMNS = (
    ("true", "n_truth", "d"),
    ("found", "n_found", "d"),
    ("precision", "precision", ".3f"),
    ("recall", "recall", ".3f"),
    ("F1", "f1", ".3f"),
    ("AP", "average_precision", ".3f"),
    ("error (um)", "localisation_error_um", ".2f"),
    ("count", "count_error", "+d"),
)


def table_rows(evaluations: dict[str, dict]) -> list[list[str]]:
    """Evaluations side by side: a head, and a row for each method; "-" where one is undefined.

    Parameters
    ----------
    evaluations : dict of str to dict
        `Evaluation.results`, or what was read from evaluation.json, by the method's name.
    """
    lines = [
        ["method", *(title for title, _, _ in TABLE_COLUMNS), "F1 95 %", "F1 seams / interior"]
    ]
    for name, results in evaluations.items():
        line = [name, *(_text(results[key], form) for _, key, form in TABLE_COLUMNS)]
        interval, seams = results["f1_interval"], results["seams"]
        line.append(f"{interval['low']:.3f}-{interval['high']:.3f}" if interval else "-")
        parts = (
            [_text(seams[part]["f1"], ".3f") for part in ("near", "interior")] if seams else ["-"]
        )
        lines.append([*line, " / ".join(parts)])
    return lines


def table(evaluations: dict[str, dict]) -> str:
    """The rows of `table_rows` as plain text in columns."""
    lines = table_rows(evaluations)
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
