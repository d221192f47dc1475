"""Check a ground truth against its volume and write it as points."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from voxmill.cells.table import PLACE
from voxmill.evaluation.ground_truth import read_truth
from voxmill.runtime.files import writing
from voxmill.runtime.jobs import job, logger
from voxmill.volumes import read_header
from voxmill.volumes.sources import check_files


@job(outputs=("output_path",))
def check_ground_truth(
    *,
    truth_path: str,
    kind: str | None,
    shape: Sequence[int],
    voxel_size_um: Iterable[float],
    output_path: str,
    reading: Mapping[str, Any] | None = None,
    volume: Mapping[str, Any] | None = None,
    fingerprint: str | None = None,
) -> None:
    """Check a ground truth against its volume and write it as a table of points in voxels.

    Parameters
    ----------
    truth_path, output_path : path
        The ground truth, and the CSV with columns z_vox, y_vox, x_vox.
    kind, shape, voxel_size_um
        As in `voxmill.evaluation.ground_truth.read_truth`; so are the errors.
    reading : mapping, optional
        Its `columns`, `units` and `offset_vox`.
    volume : mapping, optional
        Arguments of `voxmill.volumes.read_header` for the volume.
    fingerprint : str, optional
        Of the ground truth when the run was planned; another one is refused.
    """
    header = read_header(**volume) if volume else None
    points = read_truth(truth_path, kind, shape, voxel_size_um, volume=header, **(reading or {}))
    check_files([truth_path], [fingerprint] if fingerprint else None)
    # A point just inside of the last face must stay inside when it is rounded to four decimals.
    points = np.minimum(points, np.asarray(shape) - 0.5001)
    table = pd.DataFrame(points, columns=PLACE)
    if twice := int(table.duplicated().sum()):
        logger.warning(
            "%s: %d of %d points are at the very place of another one: each counts as a cell. "
            "Remove rows that stand twice.", truth_path, twice, len(points),
        )  # fmt: skip
    with writing(output_path) as scratch:
        table.to_csv(scratch, index=False, float_format="%.4f", lineterminator="\n")
    logger.info("%s: %d cells", truth_path, len(points))
