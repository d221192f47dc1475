"""Find cells by the best difference of Gaussians for a volume with ground truth."""

from voxmill.cells.table import write_cells
from voxmill.config.baseline import DogSettings
from voxmill.evaluation.baselines import cells_table, find_cells_oracle
from voxmill.evaluation.ground_truth import read_checked_truth
from voxmill.geometry import Box, Triple, VoxelSize
from voxmill.runtime.jobs import job, logger
from voxmill.volumes import check_source, open_volume, read_header
from voxmill.volumes.part import PartOfVolume


@job(outputs=("output_path",))
def find_baseline_cells(
    *,
    volume: dict,
    truth_path: str,
    output_path: str,
    settings: dict,
    threads: int,
    part: list[Triple] | None = None,
    box: list[Triple] | None = None,
    fingerprint: str | None = None,
) -> None:
    """Write cells.csv of the difference of Gaussians that suits this very volume best.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    truth_path : path
        What `voxmill.evaluation.check_ground_truth` wrote.
    output_path : path
    settings : dict
        Keys of `DogSettings`, and `max_distance_um`, the matching distance.
    threads : int
    part, box : pair of (3,) int, optional
        Start and stop of what is read of the volume, and of what cells are wanted in; voxels of the
        file.
    fingerprint : str, optional
        Of the volume as the run was planned.

    Raises
    ------
    VoxmillError
        If the volume is not the planned one, an input can't be read, or a setting is unknown,
        missing or out of range.
    """
    keys = dict(settings)
    max_distance_um = keys.pop("max_distance_um")
    header = read_header(**volume)
    size = VoxelSize.of(header.voxel_size_um)
    whole = Box.from_shape(header.shape)
    read = Box(*part) if part else whole
    wanted = Box(*box) if box else read
    truth = read_checked_truth(truth_path, whole, size)
    with open_volume(header) as source:
        points, scores, choice = find_cells_oracle(
            PartOfVolume(source, read),
            truth - read.start,
            DogSettings.from_dict(keys),
            size,
            max_distance_um,
            threads,
            wanted.relative_to(read.start),
        )
    check_source(header, fingerprint)
    write_cells(output_path, cells_table(points + read.start, scores, size))
    logger.info("%d cells by difference of Gaussians, %s", len(points), choice)
