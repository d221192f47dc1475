"""HDF5 files of every layout for the tests of volumes, written by h5py."""

import json

import h5py
import numpy as np

CHUNKS = (2, 16, 16)


def plain(path, array, name="volume", attributes=(), labels=(), **options):
    path = path.with_suffix(".h5")
    with h5py.File(path, "w") as file:
        data = file.create_dataset(name, data=array, **options)
        data.attrs.update(attributes)
        for dimension, label in zip(data.dims, labels, strict=False):
            dimension.label = label
    return path


def fiji(path, array, size_um=(2.0, 1.5, 0.5)):
    """As the HDF5 plugin of Fiji writes: element_size_um is z, y, x."""
    attributes = {"element_size_um": np.array(size_um, "float32")}
    return plain(path, array, "t0/channel0", attributes, chunks=CHUNKS, compression="gzip")


def ilastik(path, array, axes="zyxc"):
    """As ilastik exports: axistags of vigra."""
    tags = json.dumps({"axes": [{"key": axis, "typeFlags": 2} for axis in axes]})
    return plain(path, array, "exported_data", {"axistags": tags})


def letters(text):
    """Text as Imaris stores it: an array of single characters."""
    return np.frombuffer(str(text).encode(), "S1")


def imaris(path, levels, channels=1, times=1, unit="um", size=(2.0, 1.5, 0.5), pad=(3, 5, 7)):
    """Write the layout of Imaris 5.5; `levels` is a list of functions (t, c) -> array."""
    path = path.with_suffix(".ims")
    with h5py.File(path, "w") as file:
        for number, level in enumerate(levels):
            for t in range(times):
                for c in range(channels):
                    group = file.create_group(
                        f"DataSet/ResolutionLevel {number}/TimePoint {t}/Channel {c}"
                    )
                    array = level(t, c)
                    for axis, length in zip("ZYX", array.shape, strict=True):
                        group.attrs[f"ImageSize{axis}"] = letters(length)
                    padded = np.pad(array, [(0, n) for n in pad], constant_values=255)
                    chunks = tuple(min(a, b) for a, b in zip(CHUNKS, padded.shape, strict=True))
                    group.create_dataset("Data", data=padded, chunks=chunks, compression="gzip")
        info = file.create_group("DataSetInfo/Image").attrs
        shape = levels[0](0, 0).shape
        for axis, length, edge in zip((2, 1, 0), shape, size, strict=True):
            info[f"ExtMin{axis}"] = letters(10.0 * axis)
            info[f"ExtMax{axis}"] = letters(10.0 * axis + length * edge)
        for axis, length in zip("ZYX", shape, strict=True):
            info[axis] = letters(length)
        if unit:
            info["Unit"] = letters(unit)
    return path


XML = """<SpimData version="0.2"><SequenceDescription>
<ImageLoader format="bdv.hdf5"><hdf5 type="relative">v.h5</hdf5></ImageLoader>
<ViewSetups>{}</ViewSetups></SequenceDescription></SpimData>"""
SETUP = """<ViewSetup><id>{}</id><voxelSize><unit>{}</unit><size>{}</size></voxelSize>
</ViewSetup>"""


def big_data_viewer(path, levels, setups=1, times=1, unit="um", size="0.5 1.5 2.0", xml=True):
    """Write the layout of BigDataViewer; `levels` is a list of functions (t, s) -> uint16 array.

    As Java has no uint16, the voxels are stored as int16 with the same bits.
    """
    path = path.with_suffix(".h5")
    with h5py.File(path, "w") as file:
        for s in range(setups):
            factors = [[2.0**n, 2.0**n, 1.0] for n in range(len(levels))]  # x, y, z
            file[f"s{s:02}/resolutions"] = np.array(factors)
            file[f"s{s:02}/subdivisions"] = np.array([[16, 16, 2]] * len(levels), "int32")
            for t in range(times):
                for number, level in enumerate(levels):
                    file.create_dataset(
                        f"t{t:05}/s{s:02}/{number}/cells", data=level(t, s).view("int16"),
                        chunks=CHUNKS, compression="gzip",
                    )  # fmt: skip
    if xml:
        views = "".join(SETUP.format(s, unit, size) for s in range(setups))
        path.with_suffix(".xml").write_text(XML.format(views))
    return path


PLAIN = {
    "contiguous": plain,
    "gzip": lambda p, a: plain(p, a, chunks=CHUNKS, compression="gzip"),
    "shuffle, checksum": lambda p, a: plain(
        p, a, chunks=CHUNKS, compression="gzip", shuffle=True, fletcher32=True
    ),
    "lzf": lambda p, a: plain(p, a, chunks=CHUNKS, compression="lzf"),
    "big-endian": lambda p, a: plain(p, a.astype(a.dtype.newbyteorder(">"))),
    "growing": lambda p, a: plain(p, a, chunks=CHUNKS, maxshape=(None, None, None)),
    "fiji": fiji,
    "ilastik": lambda p, a: ilastik(p, a[..., None]),
    "imaris": lambda p, a: imaris(p, [lambda t, c: a]),
}
