"""Labels of cells against a ground truth of labels: in all, by threshold and by size."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from voxmill.evaluation.instances import (
    BLOCK_VOX,
    THRESHOLDS,
    count_overlaps,
    labels_in_pieces,
    scores_at,
    splits_and_merges,
)
from voxmill.evaluation.surfaces import compare_pairs, quality_by_size
from voxmill.geometry import Resampling, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import write_json
from voxmill.runtime.jobs import job, logger
from voxmill.volumes import LABEL_DTYPES, open_volume, read_header
from voxmill.volumes.orientation import place
from voxmill.volumes.own_voxels import InOwnVoxels
from voxmill.volumes.protocols import ReadableVolume
from voxmill.volumes.sources import check_files

_NAMED_PIECES = 20


def instance_results(
    truth: ReadableVolume, found: ReadableVolume, size: VoxelSize, names: tuple[str, str],
    threads: int = 1, block_vox: int = BLOCK_VOX,
) -> dict[str, Any]:  # fmt: skip
    """All that is said about found objects and true ones; plain JSON values.

    Returns
    -------
    dict
        `scores` by threshold, `mean_average_precision` over them, `splits_and_merges`, `surfaces`
        of the pairs at 0.5, `by_size`, and the labels of both that are in several pieces.

    Raises
    ------
    VoxmillError
        As `count_overlaps`.
    """
    overlaps = count_overlaps(truth, found, block_vox, threads, names)
    scores = [scores_at(overlaps, threshold) for threshold in THRESHOLDS]
    precisions = [each["average_precision"] for each in scores]
    known = [each for each in precisions if each is not None]
    pairs = compare_pairs(overlaps, truth, found, size)
    pieces = [
        labels_in_pieces(each, name, block_vox, threads)
        for each, name in zip((truth, found), names, strict=True)
    ]
    for name, broken in zip(names, pieces, strict=True):
        if broken:
            logger.warning("%s: %d labels are in several pieces: %s", name, len(broken),
                           dict(list(broken.items())[:_NAMED_PIECES]))  # fmt: skip
    return {
        "true_objects": len(overlaps.truth.labels),
        "found_objects": len(overlaps.found.labels),
        "scores": scores,
        "mean_average_precision": sum(known) / len(known) if known else None,
        "splits_and_merges": splits_and_merges(overlaps),
        "surfaces": {
            "hausdorff95_um": float(pairs.hausdorff95_um.mean()) if len(pairs.rows) else None,
            "mean_surface_um": float(pairs.mean_surface_um.mean()) if len(pairs.rows) else None,
        },
        "by_size": quality_by_size(overlaps, pairs, size),
        "labels_in_pieces": [
            {"labels": len(broken), "first": [int(k) for k in list(broken)[:_NAMED_PIECES]]}
            for broken in pieces
        ],
    }


def compared(
    labels: ReadableVolume, voxel_size_um: Iterable[float], own_grid: Mapping[str, Any] | None
) -> tuple[ReadableVolume, VoxelSize]:
    """Labels in the voxels of the ground truth, and the size of these.

    Parameters
    ----------
    labels : ReadableVolume
    voxel_size_um : (3,) float
        Of the labels.
    own_grid : dict or None
        See `evaluate_instances`.
    """
    size = VoxelSize.of(voxel_size_um)
    if own_grid is None:
        return labels, size
    grid = Resampling(
        tuple(own_grid["own_shape"]), VoxelSize.of(own_grid["own_voxel_size_um"]), size
    )
    return InOwnVoxels(labels, grid), grid.own_voxel_size_um


@job(outputs=("output_path",))
def evaluate_instances(
    *,
    truth_path: str,
    truth_volume: Mapping[str, Any] | None,
    labels_path: str,
    voxel_size_um: list[float],
    output_path: str,
    own_grid: dict[str, Any] | None = None,
    fingerprint: str | None = None,
    threads: int = 1,
) -> None:
    """Compare an image of labels with a ground truth of labels.

    Parameters
    ----------
    truth_path : path
    truth_volume : dict or None
        Arguments of `voxmill.volumes.read_header` for the volume that the ground truth belongs to;
        None for a phantom.
    labels_path : path
        The `zarr.json` of the image of labels.
    voxel_size_um : (3,) float
        Of the labels.
    output_path : path
        JSON: see `instance_results`.
    own_grid : dict, optional
        Where the volume was resampled on reading: `own_shape` and `own_voxel_size_um` of its file,
        in whose voxels the two are compared.
    fingerprint : str, optional
        Of the ground truth when the run was planned; another one is refused.
    threads : int

    Raises
    ------
    VoxmillError
        If an input is missing or broken, the shapes differ, or the ground truth lies in another
        orientation than the volume.
    """
    header = read_header(truth_path, dtypes=LABEL_DTYPES)
    if truth_volume is not None and not place(header, read_header(**truth_volume)).is_identity:
        raise VoxmillError(
            f"{truth_path}: expected labels in the orientation of the volume, found another "
            "affine. Resample them to the volume."
        )
    found_header = read_header(Path(labels_path).parent, dtypes=LABEL_DTYPES)
    with open_volume(header) as truth, open_volume(found_header) as opened:
        found, size = compared(opened, voxel_size_um, own_grid)
        results = instance_results(truth, found, size, (str(truth_path), labels_path), threads)
    check_files([truth_path], [fingerprint] if fingerprint else None)
    write_json(output_path, results)
    half = next(each for each in results["scores"] if each["threshold"] == 0.5)
    logger.info(
        "%d true objects, %d found; at 0.5: AP %s, panoptic quality %s; %s",
        results["true_objects"], results["found_objects"], half["average_precision"],
        half["panoptic_quality"], results["splits_and_merges"],
    )  # fmt: skip
