"""How the stores beside this file were written: by ome-zarr 0.18.0 and ngff-zarr 0.50.0.

Both need other versions of packages than this repository pins, so their files are kept here and
not written by the tests. Run each function in an environment of its own, then zip the folders.
"""

import numpy as np


def by_ome_zarr(folder):
    """Channels c, z, y, x = 2, 4, 6, 8 of counting numbers; a second level of half the y and x."""
    import zarr
    from ome_zarr.format import FormatV04, FormatV05
    from ome_zarr.writer import write_image

    voxels = np.arange(2 * 4 * 6 * 8, dtype="uint16").reshape(2, 4, 6, 8)
    for name, form, version in (("04", FormatV04(), 2), ("05", FormatV05(), 3)):
        path = f"{folder}/ome_zarr_py_{name}.zarr"
        root = zarr.open_group(path, mode="w", zarr_format=version)
        write_image(
            voxels, root, axes="czyx", fmt=form, scale_factors=[2],
            scale={"c": 1.0, "z": 2.0, "y": 0.5, "x": 0.25},
            axes_units=dict.fromkeys("zyx", "micrometer"),
        )  # fmt: skip


def by_ngff_zarr(folder):
    """One channel, z, y, x = 4, 6, 8 of counting numbers; sizes in nanometres."""
    import ngff_zarr

    voxels = np.arange(4 * 6 * 8, dtype="uint16").reshape(4, 6, 8)
    image = ngff_zarr.to_ngff_image(
        voxels, dims=["z", "y", "x"], scale={"z": 2000.0, "y": 500.0, "x": 250.0},
        translation={"z": 10.0, "y": 0.0, "x": 5.0},
        axes_units=dict.fromkeys("zyx", "nanometer"),
    )  # fmt: skip
    pyramid = ngff_zarr.to_multiscales(image, scale_factors=[2], chunks=4)
    for version, name in (("0.4", "04"), ("0.5", "05")):
        ngff_zarr.to_ngff_zarr(f"{folder}/ngff_zarr_{name}.zarr", pyramid, version=version)
