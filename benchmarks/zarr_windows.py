"""Which library reads windows of a Zarr array faster: `zarr` 3 or `tensorstore`.

    python benchmarks/zarr_windows.py

Stores of about 1 GB of uint16 are made in a temporary folder, one after the other: chunks of 64^3
and 128^3 voxels, compressed by zstd or by blosc (lz4), each chunk a file or in shards of 256^3.
Windows of 192^3 and 512^3 voxels at random places are read by both libraries in turn, from a warm
cache; beside them, the reader of voxmill. Medians of wall seconds over the places. Then the wall
seconds of a process that imports a library and ends, those of one that reads a window of 192^3 as a
job does, and those of the fingerprint of an array of 100,000 chunks.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorstore
import zarr
from scipy.ndimage import gaussian_filter
from zarr.codecs import BloscCodec, ZstdCodec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.volumes import fingerprint, open_volume, read_header

ROOT = Path(__file__).resolve().parent.parent
EDGE = 768
SHARD = 256
IMPORTS = ("numpy", "zarr", "tensorstore", "voxmill.volumes", "h5py")


def make_voxels() -> np.ndarray:
    """Smooth tissue with the noise of photons, (768, 768, 768) uint16."""
    generator = np.random.default_rng(0)
    smooth = gaussian_filter(generator.standard_normal((EDGE // 4,) * 3, np.float32), 4)
    block = generator.poisson(300 + 4000 * np.abs(smooth)).astype(np.uint16)
    return np.tile(block, (4, 4, 4))


def make_store(path: Path, voxels: np.ndarray, chunk: int, codec: str, sharded: bool) -> None:
    """Write one store with `zarr`."""
    codecs = {"zstd": ZstdCodec(level=3), "blosc": BloscCodec(cname="lz4", clevel=5)}
    array = zarr.create_array(
        path, shape=voxels.shape, dtype=voxels.dtype, chunks=(chunk,) * 3,
        shards=(SHARD,) * 3 if sharded else None, compressors=codecs[codec],
    )  # fmt: skip
    array[:] = voxels


def readers(path: Path) -> dict:
    """A function `(start, stop) -> array` per library, each on an array opened anew."""

    def slices(start, stop):
        return tuple(map(slice, start, stop))

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    by_zarr = zarr.open_array(path, mode="r")
    by_tensorstore = tensorstore.open(spec, open=True, read=True).result()
    own = open_volume(read_header(path))
    return {
        "zarr": lambda start, stop: by_zarr[slices(start, stop)],
        "tensorstore": lambda start, stop: by_tensorstore[slices(start, stop)].read().result(),
        "voxmill": own.read_window,
    }


def measure(path: Path, voxels: np.ndarray, edge: int, places: int) -> dict:
    """Median seconds of a window of `edge`^3 voxels by each library."""
    libraries = readers(path)
    generator = np.random.default_rng(edge)
    seconds = {name: [] for name in libraries}
    for place in range(-1, places):  # the first one warms the cache and is not counted
        start = generator.integers(0, EDGE - edge + 1, 3)
        stop = start + edge
        names = list(libraries)
        for name in names[place % len(names) :] + names[: place % len(names)]:
            begin = time.perf_counter()
            window = libraries[name](tuple(start.tolist()), tuple(stop.tolist()))
            if place >= 0:
                seconds[name].append(time.perf_counter() - begin)
            else:
                np.testing.assert_array_equal(window, voxels[tuple(map(slice, start, stop))])
    return {name: statistics.median(times) for name, times in seconds.items()}


def job_seconds(path: Path, repeats: int) -> dict:
    """Median wall seconds of processes that import a library, or read one window with it."""
    box = "(slice(100, 292),) * 3"
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    codes = {f"import {name}": f"import {name}" for name in IMPORTS} | {
        "job zarr": f"import zarr; zarr.open_array({str(path)!r}, mode='r')[{box}]",
        "job tensorstore": "import tensorstore\n"
        f"tensorstore.open({spec!r}).result()[{box}].read().result()",
        "job voxmill": "from voxmill.volumes import *\n"
        f"open_volume(read_header({str(path)!r})).read_window((100,) * 3, (292,) * 3)",
    }
    seconds = {name: [] for name in codes}
    for _, name in itertools.product(range(repeats), codes):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", codes[name]], check=True, cwd=ROOT)
        seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times) for name, times in seconds.items()}


def fingerprint_seconds(repeats: int) -> float:
    """Median seconds of the fingerprint of an array of 47^3 = 103,823 chunk files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "array.zarr"
        zarr.create_array(path, shape=(47 * 64,) * 3, dtype="uint16", chunks=(64,) * 3)
        for z, y in itertools.product(range(47), range(47)):
            (path / f"c/{z}/{y}").mkdir(parents=True)
            for x in range(47):
                (path / f"c/{z}/{y}/{x}").write_bytes(b"0" * 100)
        seconds = []
        for _ in range(repeats):
            begin = time.perf_counter()
            fingerprint(read_header(path))
            seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def main() -> None:
    """Print a table, and the figures as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--places", type=int, default=7, help="windows a store and size")
    parser.add_argument("--jobs", type=int, default=9, help="processes a library")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    given = parser.parse_args()
    voxels = make_voxels()
    rows = []
    kinds = itertools.product((64, 128), ("zstd", "blosc"), (False, True))
    print("chunk codec sharded window   " + "  ".join(f"{n:>11}" for n in readers_names()))
    for chunk, codec, sharded in kinds:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "array.zarr"
            make_store(path, voxels, chunk, codec, sharded)
            if (chunk, codec, sharded) == (64, "zstd", False):
                jobs = job_seconds(path, given.jobs)
            for edge in (192, 512):
                found = measure(path, voxels, edge, given.places)
                row = {"chunk": chunk, "codec": codec, "sharded": sharded, "window": edge}
                rows.append(row | {"seconds": found})
                figures = "  ".join(f"{found[name]:9.3f} s" for name in readers_names())
                print(f"{chunk:5} {codec:5} {sharded!s:7} {edge:6}   {figures}", flush=True)
    mark = fingerprint_seconds(3)
    for name, seconds in jobs.items():
        print(f"{name:22} {seconds:.3f} s")
    print(f"{'fingerprint':22} {mark:.3f} s")
    if given.output:
        content = {"windows": rows, "processes_s": jobs, "fingerprint_s": mark}
        given.output.write_text(json.dumps(content, indent=1))


def readers_names() -> tuple[str, ...]:
    """The columns of the table."""
    return ("zarr", "tensorstore", "voxmill")


if __name__ == "__main__":
    main()
