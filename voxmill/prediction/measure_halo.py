"""Measure how large a halo a trained network needs on a given volume.

The theoretical halo of a deep MS-D net (the sum of its dilations) is far larger than what matters,
and every tile pays for its halo.
"""

from collections.abc import Callable, Sequence

import numpy as np

from voxmill.config.prediction import PredictionSettings
from voxmill.config.tiles import HaloSettings
from voxmill.geometry import Box
from voxmill.networks import models
from voxmill.prediction.box import on_claimed_device
from voxmill.prediction.volume_predictor import HALOS_VOX, VolumePredictor
from voxmill.runtime.checked import write_checked_json
from voxmill.runtime.jobs import job, logger, progress
from voxmill.volumes import check_source, open_volume, read_header
from voxmill.volumes.grey_values import read_grey_values


def errors_by_halo(
    predict_box: Callable[[Box, int], np.ndarray], cores: Sequence[Box], radius_vox: int
) -> dict[int, float]:
    """Largest difference of the cores' probability from that with the largest halo, for each halo.

    Parameters
    ----------
    predict_box : callable
        (box, halo in voxels) -> (z, y, x) probability of the box.
    cores : sequence of Box
        Absolute voxels.
    radius_vox : int
        The halo that stands for the whole volume.

    Returns
    -------
    dict of int to float
        Halo in voxels: largest absolute difference over all cores.
    """
    halos = [h for h in HALOS_VOX if h < radius_vox]
    errors = dict.fromkeys(halos, 0.0)
    for core in progress(cores, len(cores), "window", "measuring the halo"):
        reference = predict_box(core, radius_vox)
        for halo in halos:
            change = np.abs(predict_box(core, halo) - reference).max()
            errors[halo] = max(errors[halo], float(change))
    return errors


def random_starts(shape: Sequence[int], size: Sequence[int], number: int, seed: int) -> np.ndarray:
    """Corners of random boxes inside a volume, (number, 3) int."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.array(shape) - np.array(size) + 1, size=(number, 3))


def richest_boxes(
    read_box: Callable[[Box], np.ndarray], starts: np.ndarray, size: Sequence[int], number: int
) -> list[Box]:
    """Of boxes with given corners those with the most contrast, the richest first.

    A network's output depends on the halo where there is bright structure; on empty background any
    halo gives the same.

    Parameters
    ----------
    read_box : callable
        Box -> (z, y, x) array.
    starts : (N, 3) int array
        Corners of the candidates.
    size : (3,) int
    number : int
        How many are kept.
    """
    boxes = [Box.from_shape(size, start) for start in starts]
    spread = [float(np.std(read_box(box))) for box in boxes]
    order = np.argsort(spread)[::-1][:number]
    return [boxes[i] for i in order]


@job(outputs=("output_path",))
def measure_halo(
    *,
    volume: dict,
    statistics_path: str,
    weights_path: str,
    output_path: str,
    settings: dict,
    prediction: dict,
    threads: int,
    gpus: int = 0,
    fingerprint: str | None = None,
) -> None:
    """Write the smallest halo within the tolerance, and the error of each halo tried.

    Where no candidate keeps to the tolerance, the halo is the theoretical one, or the largest
    candidate where that is smaller (the log then warns).

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    statistics_path, weights_path : path
    output_path : path
        JSON: `halo_vox` (3,), `tolerance`, `errors`, `radius_vox`.
    settings, prediction : dict
        See `HaloSettings` and `PredictionSettings`.
    threads : int
    gpus : int
        GPUs that the job asked for; see `voxmill.runtime.devices.claim`.
    fingerprint : str, optional
        Of the volume as the run was planned; kept with the halo.

    Raises
    ------
    VoxmillError
        If the volume is not the planned one, an input can't be read, a setting is out of range,
        or the device is absent.
    """
    checked = HaloSettings.from_dict(settings)
    card, network = models.load_stored(weights_path)
    normalise = read_grey_values(statistics_path, fingerprint).normaliser(card.normalisation)
    header = read_header(**volume)
    check_source(header, fingerprint)
    claimed = on_claimed_device(PredictionSettings.from_dict(prediction), gpus, output_path)
    with claimed as held, open_volume(header) as source:
        predictor = VolumePredictor(card, network, source, normalise, held, threads)
        radius = predictor.largest_halo()
        size = tuple(min(checked.core_vox, n) for n in header.shape)
        starts = random_starts(header.shape, size, 4 * checked.windows, checked.seed)
        cores = richest_boxes(predictor.read, starts, size, checked.windows)
        errors = errors_by_halo(predictor.predict, cores, radius)
    check_source(header, fingerprint)
    fitting = [halo for halo, error in errors.items() if error <= checked.tolerance]
    halo = min(fitting, default=radius)
    if not fitting and radius < card.receptive_radius_vox:
        logger.warning(
            "no halo up to %d voxels keeps the tolerance of %g: taking %d; the receptive radius "
            "is %d voxels (tiles.halo_vox: exact takes it)",
            radius, checked.tolerance, radius, card.receptive_radius_vox,
        )  # fmt: skip
    logger.info("halo %d voxels at tolerance %g; errors %s", halo, checked.tolerance, errors)
    content = {"halo_vox": [halo] * 3, "tolerance": checked.tolerance, "radius_vox": radius}
    content |= {"fingerprint": fingerprint}
    write_checked_json(output_path, content | {"errors": {str(h): e for h, e in errors.items()}})
