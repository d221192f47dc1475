"""What a network has to beat on real volumes, tuned in the same way (`benchmarks/left_out.py`).

dog        : difference of Gaussians; its scale, and whether it sees raw or locally normalised grey
             values, are settings.
boosting   : candidates of that filter at a very low threshold, classified by gradient boosting
             (scikit-learn) from locally normalised grey values and filter responses at several
             scales, on the other volumes.
cellfinder : the detector of cellfinder (Tyson et al., PLoS Comput. Biol. 17(5), 2021; package
             `cellfinder` of PyPI, not among the requirements) over a small grid.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from left_out import SIZE, Run, Runs, ScoredRun, Volume
from scipy import ndimage

from voxmill.evaluation.baselines import DogSettings, find_cells_dog
from voxmill.evaluation.matching import match_points
from voxmill.training.sources import Source
from voxmill.volumes.blocks import ArrayVolume

SCALES = (0.25, 0.32, 0.4, 0.55, 0.7, 0.85, 1.0, 1.2)
# More candidates than cells by far; the number must not depend on the ground truth.
MOST_CANDIDATES = 12_000
CELLFINDER_GRID = ((1.0, 3.0), (1.0, 10.0))
"""Diameters in units of the stain's, and standard deviations above the mean; (1, 10) is the
package's default."""


def grey_values(source: Source, normalisation: dict) -> Iterator[tuple[str, np.ndarray]]:
    """Raw and locally normalised grey values of a whole volume, float32."""
    raw = source.volume.read_window((0, 0, 0), source.volume.shape).astype(np.float32)
    yield "raw", raw
    yield "local", source.grey.normaliser(normalisation)(raw, (0, 0, 0))


def _strongest(points: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.argsort(-scores, kind="stable")[:MOST_CANDIDATES]
    return points[kept], scores[kept]


def dog(
    volumes: dict[str, Volume],
    sources: dict[str, Source],
    normalisation: dict,
    kinds: Sequence[str] = ("raw", "local"),
    scales: Sequence[float] = SCALES,
) -> Runs:
    """Runs of the difference of Gaussians, on some kinds of `grey_values` and at some scales."""
    runs: Runs = {}
    for name, volume in volumes.items():
        settings = DogSettings(2 * volume.limit_vox, threshold=0.0)
        runs[name] = {}
        for kind, grey in grey_values(sources[name], normalisation):
            for scale in scales if kind in kinds else ():
                found = find_cells_dog(ArrayVolume(grey), settings, SIZE, scale)
                runs[name][f"{kind}, scale {scale}"] = ScoredRun(volume, *_strongest(*found))
    return runs


def features(grey: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Features of each candidate: smoothed grey values, filter responses, standard deviations."""
    index = np.clip(np.rint(points).astype(int), 0, np.array(grey.shape) - 1)
    at = tuple(index.T)
    columns = [grey[at]]
    smooth = [ndimage.gaussian_filter(grey, s) for s in (0.7, 1.0, 1.5, 2.2, 3.3, 5.0, 8.0)]
    columns += [s[at] for s in smooth]
    columns += [(a - b)[at] for a, b in itertools.pairwise(smooth)]
    for size in (5, 9, 15, 31):
        mean = ndimage.uniform_filter(grey, size)
        spread = np.sqrt(np.maximum(ndimage.uniform_filter(grey**2, size) - mean**2, 0))
        columns += [mean[at], spread[at], ((smooth[1] - mean) / (spread + 1e-3))[at]]
    for sigma in (1.0, 2.0):
        for axis in range(3):
            order = [0, 0, 0]
            order[axis] = 2
            columns.append(ndimage.gaussian_filter(grey, sigma, order=order)[at])
    columns.append(ndimage.maximum_filter(grey, 9)[at] - grey[at])
    columns.append(ndimage.minimum_filter(smooth[0], 9)[at])
    return np.column_stack(columns)


def boosting(
    volumes: dict[str, Volume], sources: dict[str, Source], normalisation: dict, scale: float
) -> Runs:
    """Runs of gradient boosting; each volume's classifier learnt from the others."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    data = {}
    for name, volume in volumes.items():
        grey = dict(grey_values(sources[name], normalisation))["local"]
        settings = DogSettings(2 * volume.limit_vox, threshold=0.0)
        found = find_cells_dog(ArrayVolume(grey), settings, SIZE, scale)
        points, scores = _strongest(*found)
        kept = volume.kept(points)
        points, scores = points[kept], scores[kept]
        cells = np.zeros(len(points), bool)
        cells[match_points(volume.points, points, volume.limit_vox, SIZE)[:, 1]] = True
        data[name] = points, np.column_stack([features(grey, points), scores]), cells
    runs: Runs = {}
    for name, volume in volumes.items():
        others = [of_volume for other, of_volume in data.items() if other != name]
        classifier = HistGradientBoostingClassifier(
            max_iter=200, learning_rate=0.06, l2_regularization=1.0, random_state=0
        )
        table = np.concatenate([d[1] for d in others])
        classifier.fit(table, np.concatenate([d[2] for d in others]))
        scores = classifier.predict_proba(data[name][1])[:, 1]
        runs[name] = {f"scale {scale}": ScoredRun(volume, data[name][0], scores)}
    return runs


def cellfinder(
    volumes: dict[str, Volume], sources: dict[str, Source], diameter_um: float, work: Path
) -> Runs | None:
    """Runs of cellfinder's detector, one for each point of a grid; None without the package.

    Points are kept in the folder `work`, so that another environment may hold the package.
    """
    runs: Runs = {}
    for (size, above), name in itertools.product(CELLFINDER_GRID, volumes):
        path = work / f"cellfinder-{name}-{size:g}-{above:g}.npy"
        if not path.exists():
            try:
                np.save(path, _cellfinder_points(sources[name], size * diameter_um, above))
            except ImportError:
                return None
        points = np.load(path)
        points = points[volumes[name].kept(points)]
        run = Run(volumes[name], np.zeros(1), lambda threshold, points=points: points)
        runs.setdefault(name, {})[f"diameter {size * diameter_um:g}, {above:g} sd"] = run
    return runs


def _cellfinder_points(source: Source, diameter_um: float, above: float) -> np.ndarray:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    from cellfinder.core.detect.detect import main as detect

    cells = detect(
        source.volume.read_window((0, 0, 0), source.volume.shape),
        voxel_sizes=source.voxel_size_um,
        soma_diameter=diameter_um,
        ball_xy_size=0.5 * diameter_um,
        ball_z_size=max(0.5 * diameter_um, 2 * source.voxel_size_um[0]),
        n_sds_above_mean_thresh=above,
        n_free_cpus=max(1, (os.cpu_count() or 2) - 1),
        torch_device="cpu",
    )
    return np.array([[c.z, c.y, c.x] for c in cells], dtype=float).reshape(-1, 3)
