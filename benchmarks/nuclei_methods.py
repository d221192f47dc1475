"""Ways to make objects of one network's maps: ours, and the post-processing of others.

Every method takes the maps of one network: the probability of the mask, and how far inside of its
object a voxel is. StarDist's needs distances along rays, which are read off the maps: a ray ends
where the mask does, or in the valley before the inside rises again. Cellpose's needs a flow field:
the direction in which the inside rises. Others' packages are in `requirements-nuclei.txt`.
"""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from voxmill.cells.find_cells import cells_of_volume
from voxmill.cells.outlines import outline_block
from voxmill.cells.seeds import Seeds
from voxmill.cells.table import PLACE
from voxmill.config.cells import CellSettings
from voxmill.config.objects import ObjectSettings
from voxmill.geometry import Box, VoxelSize
from voxmill.networks.heads import HEADS, MASKS, cell_map
from voxmill.volumes.blocks import ArrayVolume

Maps = dict[str, np.ndarray]
RAYS = 64
# How much the inside must rise again before a ray has crossed a valley.
RISE = 0.08


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to make objects of maps.

    Parameters
    ----------
    run : callable
        Maps, voxel size and one choice of settings to labels.
    grid : dict of str to tuple
        Settings that are tried; those with the best mean on phantoms are taken.
    """

    run: Callable[..., np.ndarray]
    grid: dict[str, tuple]

    def choices(self) -> list[dict]:
        """Every combination of the grid."""
        return [dict(zip(self.grid, each)) for each in itertools.product(*self.grid.values())]  # noqa: B905


def mask_of(maps: Maps) -> np.ndarray:
    return next(maps[name] for name in MASKS if name in maps)


def inside_of(maps: Maps) -> np.ndarray:
    name = next(name for name in maps if name in HEADS)
    return HEADS[name](maps[name])


def ours(maps: Maps, size: VoxelSize, radius_um: float = 4.0, **settings) -> np.ndarray:
    """What `snakemake segment` does: summits of the map of cells, labels, outlines."""
    joined = cell_map(tuple(maps), np.stack(list(maps.values())))
    table = cells_of_volume(ArrayVolume(joined), CellSettings(**settings), size)
    seeds = Seeds(table[PLACE].to_numpy(float), table["id"].to_numpy())
    whole = Box.from_shape(joined.shape)
    chosen = ObjectSettings(largest_radius_um=radius_um)
    return outline_block(joined, (0, 0, 0), whole, whole, seeds, size, chosen)


def watershed_of_inside(maps: Maps, size: VoxelSize, height: float) -> np.ndarray:
    mask, inside = mask_of(maps) >= 0.5, inside_of(maps)
    smooth = ndimage.gaussian_filter(np.where(mask, inside, 0), 1)
    return watershed(-smooth, label(h_maxima(smooth, height)), mask=mask)


def watershed_of_distance(maps: Maps, size: VoxelSize, height_um: float) -> np.ndarray:
    """Without the map that parts objects: the distance to the mask's border."""
    mask = mask_of(maps) >= 0.5
    far = ndimage.distance_transform_edt(mask, sampling=tuple(size))
    return watershed(-far, label(h_maxima(far, height_um)), mask=mask)


def components(maps: Maps, size: VoxelSize) -> np.ndarray:
    return label(mask_of(maps) >= 0.5, connectivity=1)


def cellpose(maps: Maps, size: VoxelSize, min_size: int) -> np.ndarray:
    """Cellpose's dynamics (Stringer et al., Nature Methods 18, 2021) on flows from our map."""
    import torch
    from cellpose.dynamics import compute_masks

    inside = ndimage.gaussian_filter(inside_of(maps), 1.5 * min(size) / size.array)
    flow = np.stack(np.gradient(inside)).astype(np.float32)
    flow /= np.linalg.norm(flow, axis=0) + 1e-9
    mask = np.clip(mask_of(maps), 1e-6, 1 - 1e-6)
    found = compute_masks(
        5 * flow, np.log(mask / (1 - mask)), niter=100, do_3D=True, min_size=min_size,
        device=torch.device("cpu"),
    )  # fmt: skip
    return np.asarray(found[0] if isinstance(found, tuple) else found)


def ray_lengths(mask, inside, points, vertices, most: int) -> np.ndarray:
    """Lengths (points, rays) to where the mask ends or the inside has its valley."""
    running = np.full((len(points), len(vertices)), 2.0)
    length = np.zeros(running.shape, np.float32)
    going = np.ones(running.shape, bool)
    for step in np.arange(1, most + 1):
        at = np.rint(points[:, None] + step * vertices).astype(int)
        within = ((at >= 0) & (at < mask.shape)).all(axis=-1)
        at = np.clip(at, 0, np.array(mask.shape) - 1)
        values = inside[tuple(np.moveaxis(at, -1, 0))]
        going &= within & mask[tuple(np.moveaxis(at, -1, 0))] & (values <= running + RISE)
        lower = going & (values <= running)
        running[lower] = values[lower]
        length[lower] = step
        if not going.any():
            break
    return length + 0.5


def stardist(maps: Maps, size: VoxelSize, least: float, overlap: float) -> np.ndarray:
    """StarDist 3D's non-maximum suppression (Weigert et al., WACV 2020) on rays of our maps."""
    from stardist.geometry import polyhedron_to_label
    from stardist.nms import non_maximum_suppression_3d_sparse
    from stardist.rays3d import Rays_GoldenSpiral

    mask = mask_of(maps) >= 0.5
    inside = ndimage.gaussian_filter(inside_of(maps), 1.5 * min(size) / size.array)
    rays = Rays_GoldenSpiral(RAYS, anisotropy=tuple(size.array / size.array.min()))
    points = np.argwhere(mask & (inside >= least))
    points = points[(points % (1, 3, 3) == 0).all(axis=1)]
    if not len(points):
        return np.zeros(mask.shape, np.uint32)
    lengths = ray_lengths(mask, inside, points, rays.vertices, 60)
    scores = inside[tuple(points.T)]
    kept, scores, lengths, _ = non_maximum_suppression_3d_sparse(
        lengths, scores, points, rays, nms_thresh=overlap, verbose=False
    )
    return polyhedron_to_label(lengths, kept, rays, mask.shape, prob=scores, verbose=False)


METHODS = {
    "voxmill": Method(
        ours,
        {
            "min_distance_um": (1.2, 1.6, 2.0),
            "smoothing_um": (0.3,),
            "threshold": (0.55, 0.6, 0.65),
        },
    ),
    "StarDist's suppression": Method(stardist, {"least": (0.2, 0.5), "overlap": (0.4,)}),
    "Cellpose's dynamics": Method(cellpose, {"min_size": (15, 100, 400)}),
    "watershed of the learnt map": Method(watershed_of_inside, {"height": (0.05, 0.1, 0.15, 0.2)}),
    "watershed of the distance": Method(watershed_of_distance, {"height_um": (0.1, 0.2, 0.3, 0.4)}),
    "connected components": Method(components, {}),
}
