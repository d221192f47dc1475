"""Check a ground truth against its volume and write it as points."""

import numpy as np
import pandas as pd

from voxmill.evaluation.ground_truth import read_truth
from voxmill.runtime.files import writing
from voxmill.runtime.jobs import job, logger


@job
def check_ground_truth(*, truth_path, kind, shape, voxel_size_um, output_path) -> None:
    """Check a truth against its volume and write it as a table of points in voxels.

    Parameters
    ----------
    truth_path, output_path : path
    kind, shape, voxel_size_um
        As in `read_truth`.
    """
    points = read_truth(truth_path, kind, shape, voxel_size_um)
    # Rounded to four decimals a point just inside of the last face must stay inside.
    points = np.minimum(points, np.asarray(shape) - 0.5001)
    table = pd.DataFrame(points, columns=["z_vox", "y_vox", "x_vox"])
    with writing(output_path) as scratch:
        table.to_csv(scratch, index=False, float_format="%.4f", lineterminator="\n")
    logger.info("%s: %d cells", truth_path, len(points))
