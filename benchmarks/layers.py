"""The exact halo beside stages of layers: seconds, and bytes of maps written and read.

Both ways evaluate the same volume on the same tiles in one process; stages write their maps to
files and read them back, as the jobs of the workflow do. Starting a job is not in the seconds.

python benchmarks/layers.py --output results/benchmarks
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.engine import fourier
from voxmill.engine.layers import StageFiles, core_in_window, map_keys, stage_network
from voxmill.engine.memory import predict_in_blocks
from voxmill.files import write_text
from voxmill.maps import write_maps
from voxmill.networks import build
from voxmill.networks.settings import MSDNetSettings
from voxmill.planning import make_plan
from voxmill.stages import make_stages
from voxmill.tiling import Tile, inside
from voxmill.ways import Costs


def plan_of(shape, tile, halo):
    """A plan, and its tiles."""
    source = {"shape": list(shape), "dtype": "float32", "voxel_size_um": [1, 1, 1]}
    plan = make_plan(source, "benchmark", tile, (halo,) * 3)
    keys = ("start", "stop", "window_start", "window_stop")
    return plan, [(e, Tile(*(tuple(e[key]) for key in keys))) for e in plan["tiles"]]


def by_halo(network, volume, tile, threads):
    """Prediction with the exact halo."""
    halo = network.settings.receptive_radius_vox
    result = np.empty(volume.shape, np.float32)
    for _, box in plan_of(volume.shape[1:], tile, halo)[1]:
        view = volume[(slice(None), *inside(box.window_start, box.window_stop, (0, 0, 0)))]
        core = predict_in_blocks(
            network, view, core_in_window(box), (halo,) * 3, "fourier", threads=threads
        )
        result[(slice(None), *inside(box.core_start, box.core_stop, (0, 0, 0)))] = core
    return result


def by_layers(network, volume, tile, cuts, threads, folder):
    """Prediction in stages; also the seconds that writing maps took."""
    stages = make_stages(network.settings, cuts)
    plan, tiles = plan_of(volume.shape[1:], tile, max(stage.halo_vox for stage in stages))
    result, writing = np.empty(volume.shape, np.float32), 0.0
    for index, stage in enumerate(stages):
        files, part = StageFiles(tuple(cuts), index, folder), stage_network(network, stage)
        for entry, box in tiles:
            view = volume[(slice(None), *inside(box.window_start, box.window_stop, (0, 0, 0)))]
            window = files.window(network.settings, plan, box, view, "benchmark", threads)
            core = predict_in_blocks(
                part, window, core_in_window(box), (stage.halo_vox,) * 3, "fourier",
                threads=threads,
            )  # fmt: skip
            if stage is stages[-1]:
                result[(slice(None), *inside(box.core_start, box.core_stop, (0, 0, 0)))] = core
                continue
            start = time.perf_counter()
            path = Path(folder) / stage.name / f"{entry['name']}.maps"
            write_maps(path, core, map_keys(entry["key"], "benchmark", stage))
            writing += time.perf_counter() - start
    return result, writing


def main() -> None:
    """Measure and write layers.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--tiles", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--depth", type=int, default=30)
    parser.add_argument("--layers", type=int, nargs="+", default=[5, 10], help="of a stage")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    network = build("msdnet", MSDNetSettings(depth=given.depth), seed=0).eval()
    shape = (given.size,) * 3
    volume = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    lines = [
        f"{given.size}³ voxels, depth {given.depth}, {given.threads} threads\n",
        "| tiles | way | halo | work factor | s | writing, s | ratio | maps, MB | difference |",
        "|" + "---|" * 9,
    ]
    for edge in given.tiles:
        lines += rows(network, volume, (edge,) * 3, given)
    write_text(given.output / "layers.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def rows(network, volume, tile, given) -> list[str]:
    """Lines of the table for one size of tiles."""
    costs = Costs(network.settings, volume.shape[1:], tile, fourier.predict_bytes, 2**62)
    start = time.perf_counter()
    expected = by_halo(network, volume, tile, given.threads)
    halo_s = time.perf_counter() - start
    way = costs.way([0, given.depth])
    edge = f"{tile[0]}³"
    lines = [
        f"| {edge} | exact halo | {way.halo_vox} | {way.factor:.1f} | {halo_s:.1f} | | 1 | 0 | |"
    ]
    for layers in given.layers:
        cuts = [*range(0, given.depth, layers), given.depth]
        way = costs.way(cuts)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            found, writing = by_layers(network, volume, tile, cuts, given.threads, folder)
            seconds = time.perf_counter() - start
            size = sum(path.stat().st_size for path in Path(folder).rglob("*.maps"))
        cells = [
            edge, f"stages of {layers}", way.halo_vox, f"{way.factor:.1f}", f"{seconds:.1f}",
            f"{writing:.1f}", f"{seconds / halo_s:.2f}", f"{size / 1e6:.0f}",
            f"{np.abs(found - expected).max():.1e}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


if __name__ == "__main__":
    main()
