"""What a volume looks like to a network, and whether its training volumes looked like that."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from voxmill.config.model_range import Seen
from voxmill.config.normalisation import Normalisation
from voxmill.geometry import Box
from voxmill.volumes.grey_maps import make_maps
from voxmill.volumes.grey_values import GreyValues
from voxmill.volumes.normalisation import check_normalisation

MOST_BEYOND = 0.2
"""Share of the tissue that may look unlike the training volumes; a twentieth of them does."""
MOST_CROWDED = 1.5
"""So many times denser than the densest training volume cells may be."""


def block_values(grey: GreyValues, normalisation: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Normalised background and contrast of the blocks of tissue, each (N,) float.

    Background is the median of a block, contrast its 95th percentile less its median.
    """
    settings, tissue = Normalisation.from_dict(normalisation), grey.tissue.blocks
    median, high = grey.blocks.level(50.0), grey.blocks.level(95.0)
    zero: Any
    one: Any
    if settings.kind == "local":
        maps = make_maps(grey.blocks, settings, tissue)
        zero, one = maps.background, maps.contrast
    else:
        low, top, _ = check_normalisation(grey.statistics, settings.plain())
        zero, one = low, top - low
    background, contrast = (median - zero) / one, (high - median) / one
    return {"background": background[tissue], "contrast": contrast[tissue]}


def seen_in(
    grey: GreyValues,
    normalisation: Mapping[str, Any],
    cells: int | None = None,
    region: Box | None = None,
) -> dict[str, Any]:
    """What a training volume looks like, as a model's card keeps it (`Seen`).

    Parameters
    ----------
    grey : GreyValues
    normalisation : dict
        Of the card.
    cells : int, optional
        Cells in the region.
    region : Box, optional
        Where all cells are known; the whole volume by default.
    """
    found: dict[str, Any] = {
        name: [round(float(p), 4) for p in np.percentile(values, (5, 95))]
        for name, values in block_values(grey, normalisation).items()
    }
    if cells is not None:
        found["density_per_mm3"] = [round(density_per_mm3(grey, cells, region), 1)] * 2
    return found


def joined(seen: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What several volumes look like together.

    >>> joined([{"contrast": [1, 3]}, {"contrast": [2, 5], "background": [0, 1]}])
    {'contrast': [1, 5], 'background': [0, 1]}
    """
    result: dict[str, Any] = {}
    for one in seen:
        for name, (low, high) in one.items():
            before = result.get(name, (low, high))
            result[name] = [min(low, before[0]), max(high, before[1])]
    return result


def density_per_mm3(grey: GreyValues, cells: int, region: Box | None = None) -> float:
    """Cells per cubic millimetre of tissue; voxels of unknown size count as micrometres."""
    box = region or Box.from_shape(grey.blocks.shape)
    edges_um = np.divide(grey.blocks.edge_um, grey.blocks.edge_vox)
    tissue_mm3 = grey.tissue.share(box) * box.size * float(np.prod(edges_um)) * 1e-9
    return cells / max(tissue_mm3, 1e-12)


def unlike(
    seen: Mapping[str, Any],
    grey: GreyValues,
    normalisation: Mapping[str, Any],
    cells: int | None = None,
) -> list[str]:
    """Sentences on what of a volume the model has not seen in its training.

    Parameters
    ----------
    seen : dict
        Of the model's card; empty where it doesn't say.
    grey : GreyValues
    normalisation : dict
        Of the card.
    cells : int, optional
        Cells that the model found.
    """
    checked = Seen.from_dict(seen)
    values = block_values(grey, normalisation)
    words = {"background": ("dark", "bright"), "contrast": ("dim", "full of contrast")}
    found = []
    for name, adjectives in words.items():
        if (limits := getattr(checked, name)) is None:
            continue
        low, high = limits
        beyond = (values[name] < low).mean(), (values[name] > high).mean()
        for share, adjective, side in zip(beyond, adjectives, ("below", "above"), strict=True):
            if share > MOST_BEYOND:
                found.append(
                    f"the model has seen nothing this {adjective}: {share:.0%} of the tissue has a "
                    f"normalised {name} {side} that of its training volumes ({low:g} to {high:g})"
                )
    if cells is not None and checked.density_per_mm3 is not None:
        found += _crowded(density_per_mm3(grey, cells), checked.density_per_mm3)
    return found


def _crowded(density: float, seen: Sequence[float]) -> list[str]:
    if density <= MOST_CROWDED * seen[1]:
        return []
    return [
        f"the model has seen nothing this crowded: {density:.0f} cells found per cubic millimetre "
        f"of tissue, at most {seen[1]:.0f} in its training volumes"
    ]
