"""Measure how much context a trained network needs on a given volume.

The theoretical receptive field of a deep MS-D net (the sum of its dilations) is far larger than
the context that matters, and a halo is paid for in every tile.
"""

import numpy as np

from voxmill.config.prediction import PredictionSettings
from voxmill.config.tiles import HaloSettings
from voxmill.networks import models
from voxmill.prediction.box import on_claimed_device
from voxmill.prediction.surroundings import CONTEXTS_VOX, ContextPredictor
from voxmill.runtime.files import read_json, write_json
from voxmill.runtime.jobs import job, logger, progress
from voxmill.tiles.grid import Triple
from voxmill.volumes import open_volume, read_header


def errors_by_halo(predict_box, cores: list, radius_vox: int) -> dict:
    """Largest change of the core's probability against the full context, for each halo.

    Parameters
    ----------
    predict_box : callable
        (start, stop, context in voxels) -> (z, y, x) probability of the box.
    cores : list of (start, stop)
        Boxes in absolute voxels.
    radius_vox : int
        The context that stands for the whole volume.

    Returns
    -------
    dict of int to float
        Halo in voxels: largest absolute difference over all cores.
    """
    halos = [h for h in CONTEXTS_VOX if h < radius_vox]
    errors = dict.fromkeys(halos, 0.0)
    for core in progress(cores, len(cores), "window", "measuring the halo"):
        reference = predict_box(*core, radius_vox)
        for halo in halos:
            change = np.abs(predict_box(*core, halo) - reference).max()
            errors[halo] = max(errors[halo], float(change))
    return errors


def random_starts(shape: Triple, size: Triple, number: int, seed: int) -> np.ndarray:
    """Corners of random boxes inside a volume, (number, 3) int."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.array(shape) - size + 1, size=(number, 3))


def richest_boxes(read_box, starts: np.ndarray, size: Triple, number: int) -> list:
    """Of boxes with given corners those with the most contrast.

    Bright structure is where a network's output depends on context; empty background agrees with
    any halo.

    Parameters
    ----------
    read_box : callable
        (start, stop) -> (z, y, x) array.
    starts : (N, 3) int array
        Corners of the candidates.
    size : (3,) int
    number : int
        How many are kept.

    Returns
    -------
    list of (start, stop)
    """
    boxes = [(tuple(map(int, a)), tuple(map(int, a + np.array(size)))) for a in starts]
    spread = [float(np.std(read_box(*box))) for box in boxes]
    order = np.argsort(spread)[::-1][:number]
    return [boxes[i] for i in order]


@job
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
) -> None:
    """Write the smallest halo within the tolerance, and the error of each halo tried.

    Where no candidate holds the tolerance, the halo is the theoretical receptive radius, or the
    largest candidate where that is smaller than the radius (the log then warns).

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
    """
    settings = HaloSettings.from_dict(settings)
    prediction = PredictionSettings.from_dict(prediction)
    card, network = models.load_stored(weights_path)
    statistics = read_json(statistics_path, "statistics")
    header = read_header(**volume)
    claimed = on_claimed_device(prediction, gpus, output_path)
    with claimed as prediction, open_volume(header) as source:
        predictor = ContextPredictor(card, network, source, statistics, prediction, threads)
        radius = predictor.largest_context()
        size = tuple(min(settings.core_vox, n) for n in header.shape)
        starts = random_starts(header.shape, size, 4 * settings.windows, settings.seed)
        cores = richest_boxes(predictor.read, starts, size, settings.windows)
        errors = errors_by_halo(predictor.predict, cores, radius)
    fitting = [halo for halo, error in errors.items() if error <= settings.tolerance]
    halo = min(fitting, default=radius)
    if not fitting and radius < card.receptive_radius_vox:
        logger.warning(
            "no halo up to %d voxels keeps the tolerance of %g: taking %d; the receptive radius "
            "is %d voxels (tiles.halo_vox: exact takes it)",
            radius, settings.tolerance, radius, card.receptive_radius_vox,
        )  # fmt: skip
    logger.info("halo %d voxels at tolerance %g; errors %s", halo, settings.tolerance, errors)
    content = {"halo_vox": [halo] * 3, "tolerance": settings.tolerance, "radius_vox": radius}
    write_json(output_path, content | {"errors": {str(h): e for h, e in errors.items()}})
