"""Pictures of a denoised scan: three planes, the residual, and the curves of the fit."""

from pathlib import Path

import numpy as np
from nibabel import orientations

from voxmill.runtime.figures import plt, save_figure

# Name, axis and relative position of each plane; the sagittal one goes through a hemisphere.
PLANES = (("sagittal", 0, 0.4), ("coronal", 1, 0.5), ("axial", 2, 0.5))
# Colour-blind-safe (Okabe & Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def draw_planes(
    path: str | Path,
    volumes: dict[str, np.ndarray],
    affine: np.ndarray,
    residual: np.ndarray | None = None,
    sigma: float = 0.0,
    title: str = "",
) -> None:
    """Draw a sagittal, a coronal and an axial plane of volumes side by side.

    Parameters
    ----------
    path : path
        PNG.
    volumes : dict of str to (i, j, k) float array
        By caption; all use the grey scale of the last one.
    affine : (4, 4) array
        Voxels to millimetres (RAS). Planes are drawn upright, the right side of the head on the
        right.
    residual : (i, j, k) float array, optional
        Noisy minus denoised, drawn last with its own scale around 0. Structure in it is lost
        signal.
    sigma : float
        Noise level, the unit of the residual's scale; 0: the standard deviation of the residual.
    title : str
        Above all planes.
    """
    low, high = np.percentile(list(volumes.values())[-1], (0.5, 99.8))
    high = high if high > low else low + 1
    columns = [(caption, volume, "gray", low, high) for caption, volume in volumes.items()]
    if residual is not None:
        limit = 3 * (sigma or float(residual.std()) or 1.0)
        caption = f"residual (\u00b1{limit:.3g})"
        columns.append((caption, residual, "RdBu_r", -limit, limit))
    sizes = _canonical_sizes(affine)
    size = (2.6 * len(columns), 8.0)
    figure, axes = plt.subplots(3, len(columns), figsize=size, squeeze=False, layout="constrained")
    for column, (caption, volume, colours, bottom, top) in enumerate(columns):
        upright = _canonical(volume, affine)
        for row, (name, axis, share) in enumerate(PLANES):
            plane = upright.take(int(upright.shape[axis] * share), axis=axis).T
            across, up = (size for index, size in enumerate(sizes) if index != axis)
            axes[row][column].imshow(
                plane, origin="lower", cmap=colours, vmin=bottom, vmax=top, aspect=up / across,
                interpolation="nearest",
            )  # fmt: skip
            axes[row][column].set(xticks=[], yticks=[])
            if column == 0:
                axes[row][column].set_ylabel(name)
        axes[0][column].set_title(caption, fontsize=10)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path, dpi=100)


def draw_curves(path: str | Path, rows: list[dict], best: tuple[int, ...], rule: str) -> None:
    """Draw loss, stopping statistic and, if they were computed, PSNR and SSIM.

    Parameters
    ----------
    path : path
        PNG.
    rows : list of dict
        History of the fits, with keys of `voxmill.denoising.loop.COLUMNS`.
    best : tuple of int
        For every fit, the iteration whose average output is its result: a vertical line.
    rule : str
        The stopping rule, for the label of its statistic.
    """
    panels = [("loss", ["loss"]), (f"statistic ({rule})", ["statistic"])]
    if any("psnr" in row for row in rows):
        panels += [("PSNR (dB)", ["psnr", "psnr_mask"]), ("SSIM", ["ssim", "ssim_mask"])]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.2), squeeze=False, layout="constrained"
    )
    captions = {"psnr_mask": "in the mask", "ssim_mask": "in the mask"}
    captions |= {"psnr": "all voxels", "ssim": "all voxels"}
    for panel, (label, keys) in zip(axes[0], panels, strict=True):
        for key, colour in zip(keys, COLOURS, strict=False):
            for fit in range(1, len(best) + 1):
                points = [(r["iteration"], r[key]) for r in rows if r["fit"] == fit and key in r]
                points = [(x, y) for x, y in points if np.isfinite(y)]
                if points:
                    # Later fits are fainter and have no caption.
                    caption = captions.get(key, label) if fit == 1 else None
                    shade = 0.4 + 0.6 / fit
                    panel.plot(*zip(*points, strict=True), color=colour, alpha=shade, label=caption)
        for number, caption in zip(best, ["result"] + [None] * len(best), strict=False):
            panel.axvline(number, color="0.4", linestyle="--", linewidth=1, label=caption)
        if label == "loss" or (rule != "fixed" and label.startswith("statistic")):
            panel.set_yscale("log")
        panel.set(xlabel="iteration", ylabel=label)
        panel.legend(fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path, dpi=100)


def _canonical(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Reorder a volume so that its axes point right, to the front and up."""
    return orientations.apply_orientation(volume, orientations.io_orientation(affine))


def _canonical_sizes(affine: np.ndarray) -> list[float]:
    """Voxel sizes along the canonical axes, millimetres."""
    order = orientations.io_orientation(affine)[:, 0].astype(int)
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    ordered = np.empty(3)
    ordered[order] = sizes
    return ordered.tolist()
