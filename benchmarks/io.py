"""How fast the plumbing is: cut, write, stitch, pyramid and read, against others on the same bytes.

    python benchmarks/io.py                        # about 1 GB, no compression
    python benchmarks/io.py --compression zstd

All ways of a row run in turn in one process, several rounds of them; figures are medians of MB/s of
voxels, and ratios to `cp` of as many bytes. Each way ends with `sync`, so that no bytes are left
for another one to write. voxmill's own files are synchronised one by one besides, and carry
checksums; the others' are not and do not. Ways:

    cp           the system's copy of a file of as many bytes
    voxmill      what the jobs call
    zarr         zarr-python 3, shards like ours
    tensorstore  the same through tensorstore
    dask         dask.array: rechunk to the shards, and store in Zarr (threads)
    tiff         one TIFF a tile, and a stitched OME-BigTIFF: the way before Zarr
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import dask.array
import numpy as np
import tensorstore
import tifffile
import zarr
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.geometry import Box
from voxmill.runtime.jobs import overlapped
from voxmill.tiles.grid import tile_name
from voxmill.volumes import open_volume, read_header, read_tile, write_planes, write_tile
from voxmill.volumes.multiscale import level_arrays
from voxmill.volumes.pyramid import pyramid_levels, write_row
from voxmill.volumes.shard_files import StoredShard

CORE = 256
HALO = 16
WINDOW = 192
SIZE_UM = (2.0, 2.0, 2.0)


class Bench:
    """The volume, its tiles, and a fresh folder for each way.

    Parameters
    ----------
    folder : Path
    edge : int
        Of the cubic volume, a multiple of `CORE`.
    compression : str
        "none" or "zstd".
    """

    def __init__(self, folder: Path, edge: int, compression: str):
        self.folder, self.edge, self.compression = folder, edge, compression
        self.shape = (edge,) * 3
        self.voxels = make_voxels(edge)
        self.bytes = self.voxels.nbytes
        self.stored: list[StoredShard] = []
        self.cores = Box.from_shape(self.shape).blocks((CORE,) * 3)
        self.source = folder / "source.tif"
        tifffile.imwrite(self.source, self.voxels, bigtiff=True, photometric="minisblack")
        self.levels = pyramid_levels(self.shape, SIZE_UM)
        self.codecs = zarr.codecs.ZstdCodec(level=3) if compression == "zstd" else None

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def arrays(self, path: Path) -> list:
        """voxmill's levels of an image."""
        core = (CORE,) * 3
        return level_arrays(path, self.levels, "uint16", core, self.compression)

    def zarr_array(self, path: Path, shape: tuple[int, ...] | None = None) -> zarr.Array:
        """An empty array of zarr-python, in shards like ours."""
        return zarr.create_array(
            path, shape=shape or self.shape, dtype="uint16", chunks=(64,) * 3,
            shards=(CORE,) * 3, compressors=self.codecs, overwrite=True,
        )  # fmt: skip


def make_voxels(edge: int) -> np.ndarray:
    """Smooth tissue with the noise of photons, uint16."""
    generator = np.random.default_rng(0)
    quarter = edge // 4
    smooth = gaussian_filter(generator.standard_normal((quarter,) * 3, np.float32), 4)
    block = generator.poisson(300 + 4000 * np.abs(smooth)).astype(np.uint16)
    return np.tile(block, (4, 4, 4))


def opened(path: Path, **how: object) -> tensorstore.TensorStore:
    """A Zarr array in tensorstore."""
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path) + "/"}}
    return tensorstore.open(spec, open=True, **how).result()


def copy(bench: Bench) -> None:
    """`cp` of the volume."""
    target = bench.folder / "copy"
    subprocess.run(["cp", "--reflink=never", bench.source, target], check=True)


def cut_voxmill(bench: Bench) -> None:
    """Each core and its halo into a tile."""
    folder = bench.fresh("cut")
    whole = Box.from_shape(bench.shape)
    with open_volume(read_header(bench.source)) as volume:

        def read(core: Box) -> np.ndarray:
            return volume.read_window(*core.grow((HALO,) * 3, within=whole))

        def write(core: Box, voxels: np.ndarray) -> None:
            path = folder / f"{tile_name(core.start)}.tif"
            write_tile(path, voxels, SIZE_UM, core.start, {"tile": "x"})

        overlapped(bench.cores, read, lambda _, voxels: voxels, write)


def cut_tiff(bench: Bench) -> None:
    """The same by tifffile alone: a memory map, a file a tile."""
    folder = bench.fresh("cut")
    whole = Box.from_shape(bench.shape)
    volume = tifffile.memmap(bench.source)
    for number, core in enumerate(bench.cores):
        window = core.grow((HALO,) * 3, within=whole)
        tifffile.imwrite(folder / f"{number}.tif", volume[window.slices])


def write_voxmill(bench: Bench) -> None:
    """Each core into its shard."""
    array = bench.arrays(bench.fresh("ours"))[0]

    def write(core: Box) -> StoredShard:
        return array.write_shard(array.index_of(core.start), bench.voxels[core.slices])

    with ThreadPoolExecutor(os.cpu_count()) as executor:
        bench.stored = list(executor.map(write, bench.cores))
    array.write_metadata()


def write_zarr(bench: Bench) -> None:
    """Each core into its shard, by zarr."""
    array = bench.zarr_array(bench.fresh("zarr"))
    for core in bench.cores:
        array[core.slices] = bench.voxels[core.slices]


def write_tensorstore(bench: Bench) -> None:
    """Each core into its shard, by tensorstore."""
    path = bench.fresh("tensorstore")
    bench.zarr_array(path)
    array = opened(path)
    for core in bench.cores:
        array[core.slices].write(bench.voxels[core.slices]).result()


def write_dask(bench: Bench) -> None:
    """The whole by dask."""
    target = bench.zarr_array(bench.fresh("dask"))
    dask.array.from_array(bench.voxels, chunks=CORE).store(target, lock=False)


def write_tiff(bench: Bench) -> None:
    """Each core into a TIFF."""
    folder = bench.fresh("tiles")
    for number, core in enumerate(bench.cores):
        path = folder / f"{number}.tif"
        write_tile(path, bench.voxels[core.slices], SIZE_UM, core.start, {"tile": "x"})


def stitch_voxmill(bench: Bench) -> None:
    """Verify every shard, and make the levels of the pyramid."""
    arrays = bench.arrays(bench.folder / "ours")
    first = arrays[0]
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        list(executor.map(lambda stored: first.verify(stored, ""), bench.stored))
    _levels(bench, arrays)


def pyramid_voxmill(bench: Bench) -> None:
    """The levels alone."""
    _levels(bench, bench.arrays(bench.folder / "ours"))


def _levels(bench: Bench, arrays: list) -> None:
    for level in arrays[1:]:
        shutil.rmtree(level.path, ignore_errors=True)
    for level, below, array in zip(bench.levels[1:], arrays, arrays[1:], strict=False):
        for row in range(array.shards[0]):
            write_row(below, array, level, row, "mean")


def pyramid_zarr(bench: Bench) -> None:
    """The levels by zarr and NumPy, a shard at a time."""
    below = zarr.open_array(bench.folder / "zarr", mode="r")
    for number, level in enumerate(bench.levels[1:]):
        array = bench.zarr_array(bench.fresh(f"zarr{number + 1}"), level.shape)
        for box in Box.from_shape(level.shape).blocks((CORE,) * 3):
            wanted = tuple(slice(2 * a, 2 * b) for a, b in zip(*box, strict=True))
            voxels = below[wanted].astype(np.uint32)
            z, y, x = (n // 2 for n in voxels.shape)
            total = voxels.reshape(z, 2, y, 2, x, 2).sum(axis=(1, 3, 5))
            array[box.slices] = ((total + 4) // 8).astype(np.uint16)
        below = array


def pyramid_tensorstore(bench: Bench) -> None:
    """The levels by tensorstore's downsampling."""
    below = opened(bench.folder / "tensorstore")
    for number, level in enumerate(bench.levels[1:]):
        path = bench.fresh(f"tensorstore{number + 1}")
        bench.zarr_array(path, level.shape)
        array = opened(path)
        half = tensorstore.downsample(below, [2, 2, 2], method="mean")
        for box in Box.from_shape(level.shape).blocks((CORE,) * 3):
            array[box.slices].write(half[box.slices].read().result()).result()
        below = array


def pyramid_dask(bench: Bench) -> None:
    """The levels by dask's coarsening."""
    below = bench.folder / "dask"
    for number, level in enumerate(bench.levels[1:]):
        path = bench.fresh(f"dask{number + 1}")
        target = bench.zarr_array(path, level.shape)
        volume = dask.array.from_zarr(str(below), chunks=CORE)
        half = dask.array.coarsen(np.mean, volume, {0: 2, 1: 2, 2: 2}).round().astype("uint16")
        half.rechunk(CORE).store(target, lock=False)
        below = path


def stitch_dask(bench: Bench) -> None:
    """Tiles as chunks of an array, stored in Zarr, and its levels."""
    tiles = bench.folder / "tiles"
    edge = bench.edge // CORE
    parts = [
        [
            [
                dask.array.from_delayed(
                    dask.delayed(tifffile.imread)(tiles / f"{(z * edge + y) * edge + x}.tif"),
                    (CORE,) * 3, "uint16",
                )
                for x in range(edge)
            ]
            for y in range(edge)
        ]
        for z in range(edge)
    ]  # fmt: skip
    dask.array.block(parts).store(bench.zarr_array(bench.fresh("dask")), lock=False)
    pyramid_dask(bench)


def stitch_tiff(bench: Bench) -> None:
    """Tiles into one OME-BigTIFF, without a pyramid."""
    tiles = bench.folder / "tiles"
    edge = bench.edge // CORE

    def planes():
        for slab in range(edge):
            names = [tiles / f"{slab * edge**2 + n}.tif" for n in range(edge**2)]
            cores = [read_tile(p, (CORE,) * 3, "uint16", {"tile": "x"}, "") for p in names]
            for z in range(CORE):
                rows = [[cores[y * edge + x][z] for x in range(edge)] for y in range(edge)]
                yield np.block(rows)

    write_planes(bench.folder / "stitched.tif", planes(), bench.shape, "uint16", SIZE_UM)


def read_with(name: str) -> Callable[[Bench], None]:
    """Windows at random places, as many voxels as the volume has."""

    def run(bench: Bench) -> None:
        slices = {
            "zarr": lambda: zarr.open_array(bench.folder / "zarr", mode="r"),
            "tensorstore": lambda: opened(bench.folder / "tensorstore"),
            "dask": lambda: dask.array.from_zarr(str(bench.folder / "dask")),
            "voxmill": lambda: open_volume(read_header(bench.folder / "ours" / "0")),
        }[name]()
        generator = np.random.default_rng(1)
        for _ in range(bench.edge**3 // WINDOW**3):
            start = generator.integers(0, bench.edge - WINDOW, 3)
            where = tuple(slice(int(a), int(a) + WINDOW) for a in start)
            if name == "voxmill":
                slices.read_window([w.start for w in where], [w.stop for w in where])
            elif name == "tensorstore":
                slices[where].read().result()
            else:
                np.asarray(slices[where])

    return run


ROWS: dict[str, dict[str, Callable[[Bench], None]]] = {
    "cut": {"cp": copy, "voxmill": cut_voxmill, "tiff": cut_tiff},
    "write": {
        "cp": copy, "voxmill": write_voxmill, "zarr": write_zarr,
        "tensorstore": write_tensorstore, "dask": write_dask, "tiff": write_tiff,
    },
    "pyramid": {
        "cp": copy, "voxmill": pyramid_voxmill, "zarr": pyramid_zarr,
        "tensorstore": pyramid_tensorstore, "dask": pyramid_dask,
    },
    "stitch": {"cp": copy, "voxmill": stitch_voxmill, "dask": stitch_dask, "tiff": stitch_tiff},
    "read": {
        "cp": copy, **{name: read_with(name) for name in ("voxmill", "zarr", "tensorstore", "dask")}
    },
}  # fmt: skip
"""By what is done; rows after `write` read what it wrote."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=768, help=f"a multiple of {CORE}")
    parser.add_argument("--compression", choices=("none", "zstd"), default="none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        bench = Bench(Path(folder), options.edge, options.compression)
        print(f"{bench.edge}^3 uint16, {bench.bytes / 1e6:.0f} MB, {options.compression}, "
              f"{os.cpu_count()} CPUs")  # fmt: skip
        print(f"{'':8}" + "".join(f"{name:>18}" for name in ROWS["write"]))
        for row, ways in ROWS.items():
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(options.rounds):
                for name, way in ways.items():
                    os.sync()
                    start = time.perf_counter()
                    way(bench)
                    os.sync()
                    seconds[name].append(time.perf_counter() - start)
            rates = {name: bench.bytes / 1e6 / statistics.median(s) for name, s in seconds.items()}
            cells = (
                f"{rates[name]:9.0f} ({rates[name] / rates['cp']:5.2f})" if name in rates else ""
                for name in ROWS["write"]
            )
            print(f"{row:8}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
