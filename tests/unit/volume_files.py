"""Files of every format for the tests of volumes; a writer takes a path stem and an array."""

import contextlib
import gzip

import nibabel
import numpy as np
import tifffile

from voxmill.volumes import open_volume, read_header


def tiff(path, array, **options):
    path = path.with_suffix(".tif")
    tifffile.imwrite(path, array, **({"photometric": "minisblack"} | options))
    return path


def pages(path, array, **options):
    """A TIFF as libtiff writes it: scattered pages, no description."""
    path = path.with_suffix(".tif")
    with tifffile.TiffWriter(path) as writer:
        for plane in array:
            writer.write(plane, metadata=None, contiguous=False, **options)
    return path


def plane_by_plane(path, array, **options):
    """What a loop of `writer.write(plane)` leaves: every page an image of its own."""
    path = path.with_suffix(".tif")
    with tifffile.TiffWriter(path) as writer:
        for plane in array:
            writer.write(plane, **options)
    return path


def ome(path, array, axes="ZYX", **options):
    path = path.with_suffix(".ome.tif")
    metadata = {"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeY": 750, "PhysicalSizeZ": 0.002}
    metadata |= {"PhysicalSizeYUnit": "nm", "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(path, array, metadata=metadata, photometric="minisblack", **options)
    return path


def imagej(path, array, axes="ZYX", unit="um", **options):
    path = path.with_suffix(".tif")
    metadata = {"axes": axes, "spacing": 2.0, "unit": unit}
    resolution = {"resolution": (2, 4 / 3)}
    tifffile.imwrite(path, array, imagej=True, metadata=metadata, **resolution, **options)
    return path


def folder(path, array, name="plane_{}.tif", **options):
    path.mkdir()
    for z, plane in enumerate(array):
        tifffile.imwrite(path / name.format(z), plane, **options)
    return path


def nifti(path, array, suffix=".nii", kind=nibabel.Nifti1Image, units="mm", slope=None):
    """Write `array`, whose last three axes are z, y, x; a first one becomes the file's last."""
    image = kind(array.T, np.diag([0.0005, 0.00075, 0.002, 1]))
    image.set_data_dtype(array.dtype)
    image.header.set_xyzt_units(units)
    path = path.with_suffix(suffix)
    if slope is None:
        nibabel.save(image, path)
        return path
    image.header.set_slope_inter(*slope)
    with (gzip.open if suffix.endswith("gz") else open)(path, "wb") as file:
        image.header["vox_offset"] = 352
        image.header.write_to(file)
        file.write(bytes(352 - file.tell()))
        file.write(array.tobytes())
    return path


WRITERS = {
    "tiff": tiff,
    "bigtiff": lambda p, a: tiff(p, a, bigtiff=True),
    "big-endian tiff": lambda p, a: tiff(p, a, byteorder=">"),
    "tiff zlib": lambda p, a: tiff(p, a, compression="zlib"),
    "tiff zlib big-endian": lambda p, a: tiff(p, a, compression="zlib", byteorder=">"),
    "tiff predictor": lambda p, a: tiff(p, a, compression="zlib", predictor=True),
    "tiff strips": lambda p, a: tiff(p, a, compression="lzw", rowsperstrip=4),
    "tiff tiles": lambda p, a: tiff(p, a, compression="zlib", tile=(16, 32)),
    "tiff plain tiles": lambda p, a: tiff(p, a, tile=(16, 16)),
    "tiff trailing axis": lambda p, a: tiff(p, a[..., None]),
    "tiff trailing axis zlib": lambda p, a: tiff(p, a[..., None], compression="zlib"),
    "tiff leading axis": lambda p, a: tiff(p, a[None]),
    "tiff no metadata": lambda p, a: tiff(p, a, metadata=None),
    "pages": pages,
    "pages zlib": lambda p, a: pages(p, a, compression="zlib"),
    "pages strips": lambda p, a: pages(p, a, rowsperstrip=3),
    "plane by plane": plane_by_plane,
    "plane by plane zlib": lambda p, a: plane_by_plane(p, a, compression="zlib"),
    "ome": ome,
    "ome zlib": lambda p, a: ome(p, a, compression="zlib"),
    "ome bigtiff": lambda p, a: ome(p, a, bigtiff=True),
    "ome tiles": lambda p, a: ome(p, a, tile=(32, 16), compression="lzw"),
    "imagej": imagej,
    "folder": folder,
    "folder zlib": lambda p, a: folder(p, a, compression="zlib"),
    "folder big-endian": lambda p, a: folder(p, a, byteorder=">"),
    "folder bigtiff": lambda p, a: folder(p, a, bigtiff=True),
    "nifti": nifti,
    "nifti-2": lambda p, a: nifti(p, a, kind=nibabel.Nifti2Image),
    "nifti.gz": lambda p, a: nifti(p, a, suffix=".nii.gz"),
    "nifti big-endian": lambda p, a: nifti_big_endian(p, a),
    "nifti trailing axis": lambda p, a: nifti(p, a[None]),
    "nifti leading axis": lambda p, a: nifti(p, a[..., None]),
}


def nifti_big_endian(path, array):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(array.dtype.newbyteorder(">"))
    image = nibabel.Nifti1Image(array.T, np.eye(4), header)
    path = path.with_suffix(".nii")
    nibabel.save(image, path)
    return path


@contextlib.contextmanager
def opened(folder, writers, array):
    """Open a file of every kind by its name, all with the voxels of `array`."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(open_volume(read_header(write(folder / str(index), array))))
            for index, (name, write) in enumerate(writers.items())
        }


def whole(header):
    """All voxels of a volume."""
    with open_volume(header) as volume:
        return volume.read_window((0, 0, 0), header.shape)


def small_numbers(dtype="uint16", shape=(5, 37, 43), seed=0):
    """Voxels that every type holds."""
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)
