"""What reading TIFF headers and windows costs: voxmill, tifffile's other ways, and tags by hand.

    python benchmarks/tiff_headers.py

The inputs are made in a temporary folder: a folder of planes, a BigTIFF of many small pages,
and BigTIFFs of a few large pages in strips and tiles, all with zlib except the folder. Each way
runs in fresh processes, interleaved with the others, with the files in the page cache: medians of
wall seconds and CPU seconds without imports, and of the growth of the peak memory. "Tags by hand"
reads the five tags that planes must agree in with `struct`; it is what voxmill did before it used
tifffile for that. The rows of `aszarr` need zarr, which voxmill does not use (`pip install zarr`).
"""

import argparse
import importlib
import importlib.util
import io
import json
import os
import platform
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.volumes import VolumeHeader, open_volume, read_header

ROOT = Path(__file__).resolve().parent.parent
SMALL, LARGE = 64, 2048
PLANES, BOX = 32, 40
LARGE_PLANES, LARGE_BOX = 8, 200


def make_inputs(folder: Path, planes: int, pages: int) -> None:
    """Write all inputs; uint16 noise that zlib packs to about half."""
    random = np.random.default_rng(0)
    small = random.integers(90, 600, (SMALL, SMALL), dtype=np.uint16)
    (folder / "planes").mkdir()
    for z in range(planes):
        tifffile.imwrite(folder / "planes" / f"z{z:06d}.tif", small)
    with tifffile.TiffWriter(folder / "pages.tif", bigtiff=True) as writer:
        for _ in range(pages):
            writer.write(small, metadata=None, compression="zlib")
    large = random.integers(90, 600, (LARGE_PLANES * 2, LARGE, LARGE), dtype=np.uint16)
    options = {"tiles": {"tile": (256, 256)}, "strips": {"rowsperstrip": 2}}
    for name, option in options.items():
        with tifffile.TiffWriter(folder / f"large_{name}.tif", bigtiff=True) as writer:
            for plane in large:
                writer.write(plane, metadata=None, compression="zlib", **option)


def tags_by_hand(path: Path) -> int:
    """Compare five tags of all pages of a little-endian TIFF; the number of pages."""
    wanted, found, position_of = {256, 257, 258, 277, 339}, set(), set()
    with open(path, "rb", buffering=4096) as file:
        head = file.read(16)
        big = head[2] == 43
        entry, pointer = struct.Struct("<HHQ8s" if big else "<HHI4s"), "<Q" if big else "<I"
        count = struct.Struct("<Q" if big else "<H")
        (position,) = struct.unpack_from(pointer, head, 8 if big else 4)
        while position and position not in position_of:
            position_of.add(position)
            file.seek(position)
            (tags,) = count.unpack(file.read(count.size))
            table = file.read(tags * entry.size + struct.calcsize(pointer))
            rows = entry.iter_unpack(table[: tags * entry.size])
            found.add(tuple(struct.unpack_from("<H", r[3])[0] for r in rows if r[0] in wanted))
            (position,) = struct.unpack(pointer, table[tags * entry.size :])
    assert len(found) == 1
    return len(position_of)


def folder_by_hand(path: Path) -> int:
    """Compare the tags of all planes of a folder."""
    return sum(tags_by_hand(path / name) for name in sorted(os.listdir(path)))


def pages_parsed(path: Path, frames: bool) -> int:
    """Iterate over all pages as tifffile reads them: whole, or as frames with few tags."""
    with tifffile.TiffFile(path) as tif:
        tif.pages.useframes = frames
        return sum(1 for _ in tif.pages)


def series_and_hand(path: Path) -> int:
    """The series for the shape, and the tags by hand for the rest: what voxmill did before."""
    with tifffile.TiffFile(path) as tif:
        return len(tif.series[0]) + tags_by_hand(path)


def series_alone(path: Path) -> int:
    """The series of tifffile, which compares four pages."""
    with tifffile.TiffFile(path) as tif:
        return len(tif.series[0])


def zarr_array(tif: tifffile.TiffFile):
    """The first series as a zarr array; nothing is read before it is sliced."""
    import zarr

    return zarr.open_array(tif.series[0].aszarr(), mode="r")


def zarr_alone(path: Path) -> int:
    """Open the first series as a zarr array."""
    with tifffile.TiffFile(path) as tif:
        return zarr_array(tif).shape[0]


def middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A box of a few planes in the middle of a volume."""
    planes, box = (PLANES, BOX) if shape[1] == SMALL else (LARGE_PLANES, LARGE_BOX)
    sizes = (min(planes, shape[0]), box, box)
    starts = [(n - size) // 2 for n, size in zip(shape, sizes, strict=True)]
    return tuple(slice(a, a + n) for a, n in zip(starts, sizes, strict=True))


def window_of_voxmill(path: Path, header: VolumeHeader) -> int:
    """Open a volume whose header is known, and read the box."""
    with open_volume(header) as volume:
        box = middle(volume.shape)
        start, stop = zip(*((s.start, s.stop) for s in box), strict=True)
        return int(volume.read_window(start, stop).sum())


def window_of_whole_pages(path: Path) -> int:
    """Decode whole pages with `TiffPage.asarray`, and cut the box out of them."""
    with tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        z, y, x = middle(series.shape)
        return sum(int(series[i].asarray(maxworkers=1)[y, x].sum()) for i in range(z.start, z.stop))


def window_of_zarr(path: Path) -> int:
    """Slice the zarr array."""
    with tifffile.TiffFile(path) as tif:
        array = zarr_array(tif)
        return int(array[middle(array.shape)].sum())


def window_of_planes(path: Path) -> int:
    """The box from `imread` of the planes of a folder."""
    names = sorted(os.listdir(path))
    z, y, x = middle((len(names), SMALL, SMALL))
    return sum(int(tifffile.imread(path / name)[y, x].sum()) for name in names[z])


OPENING = {
    "voxmill, read_header": lambda path: read_header(path).shape[0],
    "tifffile, pages parsed": lambda path: pages_parsed(path, False),
    "tifffile, pages as frames": lambda path: pages_parsed(path, True),
    "tifffile, series alone": series_alone,
    "tifffile, aszarr": zarr_alone,
    "series and tags by hand": series_and_hand,
}
WINDOW = {
    "voxmill, read_window": window_of_voxmill,
    "tifffile, whole pages": window_of_whole_pages,
    "tifffile, aszarr": window_of_zarr,
}
MEASUREMENTS: dict[str, tuple[str, dict[str, Callable]]] = {
    "header of the folder": (
        "planes",
        {"voxmill, read_header": OPENING["voxmill, read_header"], "tags by hand": folder_by_hand},
    ),
    "window of the folder": (
        "planes",
        {"voxmill, read_window": window_of_voxmill, "tifffile, imread": window_of_planes},
    ),
    "header of the pages": ("pages.tif", OPENING),
    "window of the pages": ("pages.tif", WINDOW),
    "window of large pages, tiles": ("large_tiles.tif", WINDOW),
    "window of large pages, strips": ("large_strips.tif", WINDOW),
}


def measure_one(folder: Path, what: str, way: str) -> dict:
    """Seconds and growth of the peak memory of one call, in this process."""
    name, ways = MEASUREMENTS[what]
    path, function = folder / name, ways[way]
    given = ()
    if function is window_of_voxmill:  # reading the header is no part of this
        code = "import dataclasses, json, sys; from voxmill.volumes import read_header; "
        code += "print(json.dumps(dataclasses.asdict(read_header(sys.argv[1]))))"
        given = (VolumeHeader(**json.loads(run(["-c", code, str(path)]))),)
    import_what_is_lazy("aszarr" in way)
    before = memory_kib("VmRSS")
    start, start_cpu = time.perf_counter(), time.process_time()
    result = function(path, *given)
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    mib = (memory_kib("VmHWM") - before) / 1024
    return {"wall_s": wall_s, "cpu_s": cpu_s, "mib": mib, "result": result}


def import_what_is_lazy(with_zarr: bool) -> None:
    """Decode a few pixels, so that the import of the codecs is not measured; import zarr."""
    if with_zarr:
        importlib.import_module("tifffile.zarr")
        importlib.import_module("zarr")
    for compression in (None, "zlib"):
        file = io.BytesIO()
        tifffile.imwrite(file, np.zeros((8, 8), np.uint16), compression=compression)
        file.seek(0)
        with tifffile.TiffFile(file) as tif:
            list(tif.pages.first.segments())


def memory_kib(what: str) -> int:
    """This process' memory now (VmRSS) or at its peak (VmHWM); Linux alone."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+)", status)[1])


def run(arguments: list[str]) -> str:
    """Standard output of Python with these arguments."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    }
    command = [sys.executable, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return done.stdout


def measure_all(folder: Path, repeats: int) -> None:
    """Print a line per measurement and way."""
    has_zarr = importlib.util.find_spec("zarr") is not None
    print("| what | way | wall s | CPU s | MiB |\n|---|---|---|---|---|")
    for what, (_, ways) in MEASUREMENTS.items():
        chosen = [way for way in ways if has_zarr or "aszarr" not in way]
        found: dict[str, list[dict]] = {way: [] for way in chosen}
        for _ in range(repeats):
            for way in chosen:
                arguments = [__file__, "--one", str(folder), what, way]
                found[way].append(json.loads(run(arguments)))
        if "window" in what:
            assert len({r["result"] for rows in found.values() for r in rows}) == 1, what
        for way, rows in found.items():
            wall_s, cpu_s, mib = (
                statistics.median(r[key] for r in rows) for key in ("wall_s", "cpu_s", "mib")
            )
            print(f"| {what} | {way} | {wall_s:.3f} | {cpu_s:.3f} | {mib:.0f} |", flush=True)


def processor() -> str:
    """Name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    """Make the inputs and measure; with `--one`, a single call for the parent process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--planes", type=int, default=10_000, help="planes of the folder")
    parser.add_argument("--pages", type=int, default=100_000, help="pages of the BigTIFFs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "WHAT", "WAY"), help="internal")
    arguments = parser.parse_args()
    if arguments.one:
        folder, what, way = arguments.one
        print(json.dumps(measure_one(Path(folder), what, way)))
        return
    print(
        f"{processor()}, {os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}, tifffile {tifffile.__version__}\n{arguments.planes} planes "
        f"and {arguments.pages} pages of {SMALL} x {SMALL} uint16, medians of {arguments.repeats}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder), arguments.planes, arguments.pages)
        measure_all(Path(folder), arguments.repeats)


if __name__ == "__main__":
    main()
