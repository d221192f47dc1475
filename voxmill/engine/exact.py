"""What `tiles.halo_vox: exact` means for one network on one volume; imports no torch."""

from voxmill.engine import fourier
from voxmill.engine.memory import SHARE
from voxmill.errors import VoxmillError
from voxmill.models import ModelCard
from voxmill.networks import check_settings
from voxmill.networks.settings import MSDNetSettings
from voxmill.stages import Stage
from voxmill.tiling import Triple
from voxmill.ways import Costs, Way, choose_way


def exact_way(
    card: ModelCard, shape: Triple, tile_shape: Triple, tiles: dict, flips: bool
) -> tuple[Way, str]:
    """The exact halo or stages of layers, and why.

    Only settings decide, not the machine: the grid of jobs must be the same wherever the
    configuration is read.

    Parameters
    ----------
    card : ModelCard
    shape, tile_shape : (3,) int
        The volume and the largest core, voxels.
    tiles : dict
        `exact` (auto, halo or layers) and `exact_memory_gb` of the configuration.
    flips : bool
        Whether the mean over mirror images is predicted.

    Raises
    ------
    VoxmillError
        If the network, the flips or the memory allow nothing of what is wanted.
    """
    settings = check_settings(card.network, card.settings)
    if not isinstance(settings, MSDNetSettings):
        why = f"stages are of MS-D networks, and {card.name} is {card.network}"
        if tiles["exact"] == "layers":
            raise VoxmillError(f"tiles.exact: expected auto or halo, found layers, but {why}.")
        halo = settings.receptive_radius_vox
        return Way((Stage(0, 1, halo),)), f"the exact halo of {halo} voxels ({why})"
    why = "prediction.flips needs the whole network on each mirror image" if flips else None
    # As `predict_in_blocks` uses of what the job has.
    budget = int(SHARE * 1e9 * tiles["exact_memory_gb"])
    costs = Costs(settings, shape, tile_shape, fourier.predict_bytes, budget)
    return choose_way(costs, tiles["exact"], why)
