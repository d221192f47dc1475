"""MRI scans of a configuration."""

from typing import Annotated

from pydantic import Field

from voxmill.config.base import (
    FilePath,
    Number,
    OrEmpty,
    Positive,
    Section,
    Seed,
    SettingError,
    Text,
    Whole,
    section,
    setting,
)
from voxmill.config.phantoms import Edge, check_voxels

_MOST_VOXELS = 2_000_000_000

NiftiPath = Annotated[
    FilePath,
    Field(
        pattern=r"\.nii(\.gz)?$",
        json_schema_extra={
            "expected": "a NIfTI file (.nii, .nii.gz; mri_convert and dcm2niix make one)"
        },
    ),
]

Suffix = Annotated[Text, Field(pattern=r"^[A-Za-z0-9]+$")]
_OF_PATH = ("volume", "reference", "mask")


@section("phantom")
class ScanPhantomSettings(Section):
    """What a synthetic T1-weighted scan looks like."""

    shape_vox: tuple[Edge, Edge, Edge] = (64, 72, 64)
    """Shape x, y, z as in the NIfTI file: left to right, back to front, bottom to top."""
    voxel_size_mm: Number = setting(default=2.0, gt=0, le=100)
    """Edge length of the cubic voxels."""
    noise_percent: Number = setting(default=9.0, ge=0, le=100)
    """Noise level in percent of the maximum."""
    seed: Seed = 0
    """Of the folds and of the noise."""

    def __post_init__(self) -> None:
        check_voxels(self.shape_vox, _MOST_VOXELS)


@section("scans")
class ScanSection(Section):
    """One scan: a file, a synthetic scan or a BIDS folder of scans."""

    path: NiftiPath | None = None
    """NIfTI file, 3D or 4D."""
    volume: Annotated[Whole, Field(ge=0)] | None = None
    """Which volume of a 4D file, from 0."""
    reference: NiftiPath | None = None
    """Noise-free image on the same grid, for PSNR and SSIM; the fit never sees it."""
    mask: NiftiPath | None = None
    """Brain mask on the same grid, in which PSNR and SSIM are also taken."""
    phantom: OrEmpty[ScanPhantomSettings | None] = None
    """A synthetic scan instead of a file."""
    bids: FilePath | None = None
    """A BIDS folder; all of its scans of `suffixes` are denoised and laid out as derivatives."""
    suffixes: Annotated[tuple[Suffix, ...], Field(min_length=1)] | None = None
    """Of a BIDS folder: the ends of the names to denoise, such as T1w, T2w, FLAIR or dwi; T1w when
    left out. Of series (dwi, bold) each volume is a job, and the derivative is a series again."""
    sigma: Positive | None = None
    """Noise level in the scan's units; wins over that of `denoising`."""

    def __post_init__(self) -> None:
        kinds = [key for key in ("path", "phantom", "bids") if getattr(self, key) is not None]
        if len(kinds) != 1:
            raise SettingError(
                "", f"expected one of path, phantom and bids, found {kinds or 'none of them'}"
            )
        for key, kind in (*((key, "path") for key in _OF_PATH), ("suffixes", "bids")):
            if kinds[0] != kind and getattr(self, key) is not None:
                raise SettingError(key, f"not known beside {kinds[0]}; leave it out")
