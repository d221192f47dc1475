"""Data that the repository does not carry: where they lie, where they can be had, their licence."""

from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

LIGHTSHEET_SOURCE = (
    "microglia_*.tif and cfos_*.tif with masks and centroids, from the DELiVR training set "
    "(Kaltenecker et al., Nature Methods 2024; github.com/erturklab/delivr_cfos; MIT licence), "
    "each put together from eight blocks of 100 x 100 x 100 voxels"
)
MRI_SOURCE = (
    "ixi002_t1.nii.gz, subject 002 of the IXI data set (brain-development.org; CC BY-SA 3.0), "
    "skull stripped with a margin"
)
