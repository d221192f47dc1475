"""The direct stencil and the Fourier domain compared on small boxes and shallow networks.

python benchmarks/stencil.py --output results/benchmarks
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import fourier, stencil
from voxmill.networks import build
from voxmill.runtime.files import write_text


def seconds(function, least_s: float = 0.25) -> float:
    """Median seconds of a function, which is called for some time after a first call."""
    function()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < least_s or len(times) < 3:
        before = time.perf_counter()
        function()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def row(depth: int, width: int, size: int, threads: int) -> str:
    """One line of the table."""
    settings = MSDNetSettings(depth=depth, width=width)
    network = build("msdnet", settings, seed=0).eval()
    volume = np.random.default_rng(0).random((1, size, size, size), dtype=np.float32)
    ours = [
        seconds(lambda m=m: m.run(network, volume, "cpu", "float32", threads))
        for m in (fourier, stencil)
    ]
    chosen = "Fourier" if stencil.unsuited(settings, (size,) * 3) else "stencil"
    speed = fourier.parameter_count(settings) * size**3 / ours[1] / 1e9
    cells = [
        f"{size}³",
        depth,
        width,
        *(f"{1e3 * s:.2f}" for s in ours),
        f"{ours[0] / ours[1]:.2f}",
    ]
    return "| " + " | ".join(map(str, [*cells, f"{speed:.0f}", chosen])) + " |"


def main() -> None:
    """Measure and write stencil.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 48, 64])
    parser.add_argument("--depths", type=int, nargs="+", default=[5, 10, 20, 30])
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    head = "| box | depth | width | Fourier ms | stencil ms | ratio | stencil GFMA/s | auto |"
    lines = [f"{given.threads} threads\n", head, "|" + "---|" * 8]
    for width in given.widths:
        for depth in given.depths:
            for size in given.sizes:
                lines.append(row(depth, width, size, given.threads))
                print(lines[-1], flush=True)
    write_text(given.output / "stencil.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
