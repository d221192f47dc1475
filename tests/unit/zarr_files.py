"""Zarr stores of every kind for the tests of volumes, written by zarr-python."""

import json
import warnings

import numcodecs
import zarr
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    TransposeCodec,
    ZstdCodec,
)
from zarr.codecs.numcodecs import LZ4

CHUNKS = (2, 16, 16)


def array(path, voxels, version=3, chunks=CHUNKS, name=None, **options):
    """Write one array; the chunk grid does not divide the shape."""
    chunks = (1,) * (voxels.ndim - 3) + chunks if len(chunks) < voxels.ndim else chunks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # codecs outside of the specification
        opened = zarr.create_array(
            path, name=name, shape=voxels.shape, dtype=options.pop("dtype", voxels.dtype),
            chunks=chunks, zarr_format=version, **options,
        )  # fmt: skip
        opened[...] = voxels
    return path


def _big(voxels):
    return voxels.astype(voxels.dtype.newbyteorder(">"))


ARRAYS = {
    "v2 blosc": lambda p, a: array(p, a, 2, compressors=numcodecs.Blosc("lz4")),
    "v2 zstd": lambda p, a: array(p, a, 2, compressors=numcodecs.Zstd()),
    "v2 gzip": lambda p, a: array(p, a, 2, compressors=numcodecs.GZip()),
    "v2 lz4": lambda p, a: array(p, a, 2, compressors=numcodecs.LZ4()),
    "v2 lzma": lambda p, a: array(p, a, 2, compressors=numcodecs.LZMA()),
    "v2 delta": lambda p, a: array(
        p, a, 2, filters=[numcodecs.Delta(a.dtype)], compressors=numcodecs.Zlib()
    ),
    "v2 plain": lambda p, a: array(p, a, 2, compressors=None),
    "v2 big-endian": lambda p, a: array(p, _big(a), 2, compressors=None),
    "v2 Fortran order": lambda p, a: array(p, a, 2, order="F"),
    "v2 folders": lambda p, a: array(p, a, 2, chunk_key_encoding={"name": "v2", "separator": "/"}),
    "v3 zstd": lambda p, a: array(p, a, compressors=ZstdCodec()),
    "v3 blosc": lambda p, a: array(p, a, compressors=BloscCodec(cname="zstd")),
    "v3 gzip": lambda p, a: array(p, a, compressors=GzipCodec()),
    "v3 lz4": lambda p, a: array(p, a, compressors=LZ4()),
    "v3 checksum": lambda p, a: array(p, a, compressors=[ZstdCodec(), Crc32cCodec()]),
    "v3 plain": lambda p, a: array(p, a, compressors=None),
    "v3 big-endian": lambda p, a: array(p, a, serializer=BytesCodec(endian="big")),
    "v3 transposed": lambda p, a: array(p, a, filters=[TransposeCodec(order=(2, 0, 1))]),
    "v3 flat names": lambda p, a: array(p, a, chunk_key_encoding={"name": "v2", "separator": "."}),
    "v3 sharded": lambda p, a: array(p, a, shards=(4, 32, 16)),
    "v3 sharded blosc": lambda p, a: array(p, a, shards=(4, 32, 32), compressors=BloscCodec()),
    "v3 zip": lambda p, a: zipped(p, a),
}


def zipped(path, voxels, prefix=""):
    path = path.with_suffix(".zip")
    with zarr.storage.ZipStore(path, mode="w") as store:
        array(store, voxels, name=prefix or None)
    return path


def multiscale(axes="zyx", unit="micrometer", scales=((2.0, 1.5, 0.5),), **more):
    """The attribute `multiscales` as the specification has it (0.4)."""
    kinds = {"t": "time", "c": "channel"}
    items = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    for item in items:
        if item["type"] == "space" and unit:
            item["unit"] = unit
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]}
        for i, scale in enumerate(scales)
    ]
    return {"version": "0.4", "axes": items, "datasets": datasets} | more


def image(path, levels, metadata, version=3, **options):
    """Write an OME-Zarr image, one array a level: 0.5 in Zarr v3, 0.4 in v2."""
    if version == 3:
        metadata = {key: value for key, value in metadata.items() if key != "version"}
        attributes = {"ome": {"version": "0.5", "multiscales": [metadata]}}
    else:
        attributes = {"multiscales": [metadata]}
    zarr.create_group(path, zarr_format=version, attributes=attributes)
    for i, level in enumerate(levels):
        array(path / str(i), level, version, **options)
    return path


def metadata_file(path):
    """The file with the attributes of a group or array."""
    return next(p for p in (path / "zarr.json", path / ".zattrs") if p.exists())


def edit(path, change):
    """Change a JSON file in place by a function of its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
