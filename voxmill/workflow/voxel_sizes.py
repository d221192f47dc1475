"""The voxel size that a volume is read at: its own, or the one that its models were trained at."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxmill.geometry import VoxelSize
from voxmill.networks.models import ModelCard
from voxmill.runtime.errors import VoxmillError

ALIKE = 0.05
"""Share of an edge by which two voxel sizes may differ and still be one for a network."""


def reading_size(
    key: str,
    section: Mapping[str, Any],
    own_um: VoxelSize,
    cards: Mapping[str, ModelCard],
) -> VoxelSize | None:
    """The voxel size that a volume is to be resampled to; None where it is read as it is.

    Parameters
    ----------
    key : str
        The volume's place in the configuration, for messages.
    section : mapping
        The volume's section.
    own_um : VoxelSize
        The volume's.
    cards : mapping of str to ModelCard
        Of the networks that run on the volume.

    Raises
    ------
    VoxmillError
        If a model was trained at another voxel size and the section does not say what to do, if its
        card does not tell the size of its cells where this is needed, or if two models want the
        volume at different voxel sizes.
    """
    if section["model_voxel_size"] == "ignore":
        return None
    diameter_um = section.get("cell_diameter_um")
    wanted = {name: wanted_um(key, name, card, diameter_um) for name, card in cards.items()}
    known = {name: size for name, size in wanted.items() if size is not None}
    others = {name: size for name, size in known.items() if not alike(size, own_um)}
    if not others:
        return None
    first, target = next(iter(others.items()))
    if diameter_um is None and section["model_voxel_size"] == "refuse":
        raise VoxmillError(
            f"{key}.model_voxel_size: network {first} was trained at voxels of {shown(target)} "
            f"(z, y, x), those of this volume are {shown(own_um)}. If that is wrong, correct the "
            "volume's `voxel_size_um`. Else choose: `model_voxel_size: rescale` reads the volume "
            "at the model's voxel size and reports cells in its own voxels; `ignore` takes it as "
            "it is, and cells then look to the network larger or smaller than it has learnt."
        )
    for name, size in known.items():
        if not alike(size, target):
            raise VoxmillError(
                f"{key}.networks: network {first} wants this volume at voxels of {shown(target)} "
                f"(z, y, x), network {name} at {shown(size)}: one volume is resampled to one size. "
                "Give the volume twice, under two names, each with its own `networks`."
            )
    return target


def wanted_um(
    key: str, network: str, card: ModelCard, diameter_um: float | None
) -> VoxelSize | None:
    """The voxel size at which a network sees cells as it has learnt them; None if nothing tells.

    Parameters
    ----------
    key, network : str
        The volume's place in the configuration and the network's name, for messages.
    card : ModelCard
    diameter_um : float or None
        Diameter of the cells in the volume, where the configuration tells it.

    Raises
    ------
    VoxmillError
        If the card or the configuration lacks the diameter of the cells, and it is needed.
    """
    learnt_vox = learnt_diameter_vox(card)
    if diameter_um is not None:
        if learnt_vox is None:
            raise VoxmillError(
                f"{key}.cell_diameter_um: the model card of network {network} does not tell how "
                "large the cells are that it has learnt (cell_diameter_vox, or voxel_size_um and "
                "cell_diameter_um). Leave the diameter out, or add what is missing to the card."
            )
        return VoxelSize.of(diameter_um / learnt_vox)
    if card.cell_diameter_vox is not None:
        sizes = " x ".join(f"{edge:g}" for edge in np.atleast_1d(card.cell_diameter_vox))
        raise VoxmillError(
            f"{key}.cell_diameter_um: network {network} finds cells of a diameter of {sizes} "
            "voxels, to which the volume is resampled: give the typical diameter of the cells in "
            "this volume in micrometres. `model_voxel_size: ignore` takes the volume as it is."
        )
    return None if card.voxel_size_um is None else VoxelSize.of(card.voxel_size_um)


def counted_size(
    key: str,
    section: Mapping[str, Any],
    read_um: VoxelSize,
    cards: Mapping[str, ModelCard],
) -> tuple[float, float, float] | None:
    """What a voxel counts as in the lengths of a volume's models (normalisation, blocks).

    Where the diameter of the cells is told, it is to the voxel size as the diameter of the card,
    for which these lengths were chosen, is to this: the networks see cells of the card's diameter.

    Parameters
    ----------
    key : str
        The volume's place in the configuration, for messages.
    section : mapping
        The volume's section.
    read_um : VoxelSize
        That the volume is read at.
    cards : mapping of str to ModelCard
        Of the networks that run on the volume.

    Returns
    -------
    (3,) float or None
        None: its size, as no diameter or no card tells another.

    Raises
    ------
    VoxmillError
        If the models want lengths to count differently.
    """
    diameter_um = section.get("cell_diameter_um")
    if diameter_um is None:
        return None
    counted = {
        name: VoxelSize.of(read_um.array * card.cell_diameter_um / diameter_um)
        for name, card in cards.items()
        if card.cell_diameter_um is not None
    }
    if not counted:
        return None
    first, size = next(iter(counted.items()))
    for name, other in counted.items():
        if not alike(other, size):
            raise VoxmillError(
                f"{key}.networks: the lengths of network {first} are for cells of "
                f"{cards[first].cell_diameter_um:g} um, those of network {name} for cells of "
                f"{cards[name].cell_diameter_um:g} um, and grey values are measured once. Give "
                "the volume twice, under two names, each with its own `networks`."
            )
    z, y, x = size
    return z, y, x


def learnt_diameter_vox(card: ModelCard) -> np.ndarray | None:
    """Diameter (z, y, x) of the cells that a model has learnt, in voxels; None if nothing tells."""
    if card.cell_diameter_vox is not None:
        return np.broadcast_to(np.asarray(card.cell_diameter_vox, float), 3)
    if card.voxel_size_um is None or card.cell_diameter_um is None:
        return None
    return card.cell_diameter_um / VoxelSize.of(card.voxel_size_um).array


def scaled_detector(
    detector: Mapping[str, Any], card: ModelCard, diameter_um: float | None
) -> dict[str, Any]:
    """A card's detector for cells of another diameter than the card's.

    Its lengths suit cells of the card's `cell_diameter_um`; they grow with the diameter, and
    volumes with its third power.

    Examples
    --------
    >>> card = ModelCard("m", "msdnet", {}, cell_diameter_um=8)
    >>> scaled_detector({"min_distance_um": 4, "min_volume_um3": 10}, card, 16)
    {'min_distance_um': 8.0, 'min_volume_um3': 80.0}
    """
    if diameter_um is None or card.cell_diameter_um is None:
        return dict(detector)
    ratio = diameter_um / card.cell_diameter_um
    powers = {"_um": 1, "_um3": 3}
    return {
        key: value * ratio ** powers[suffix] if suffix in powers else value
        for key, value in detector.items()
        for suffix in [key[key.rfind("_um") :] if "_um" in key else ""]
    }


def doubts(networks: Sequence[str], cards: Mapping[str, ModelCard], source: str) -> list[str]:
    """Warnings about models whose cards don't tell the voxel size they were trained at."""
    return [
        f"{source}: networks.{name}: the model card tells no voxel size, so that nothing tells "
        "whether cells are as large, in voxels, as those that the model has learnt. Add "
        "voxel_size_um to the card."
        for name in networks
        if cards[name].voxel_size_um is None and cards[name].cell_diameter_vox is None
    ]


def alike(size: VoxelSize, other: VoxelSize) -> bool:
    """Whether two voxel sizes differ by no more than `ALIKE` along any axis.

    >>> alike(VoxelSize(2, 1, 1), VoxelSize(2, 1, 1.05))
    True
    >>> alike(VoxelSize(2, 1, 1), VoxelSize(2, 1, 1.06))
    False
    """
    a, b = size.array, other.array
    return bool((np.abs(a - b) <= ALIKE * np.minimum(a, b) * (1 + 1e-9)).all())


def shown(size: VoxelSize) -> str:
    """A voxel size as messages show it."""
    return " x ".join(f"{edge:g}" for edge in size) + " um"
