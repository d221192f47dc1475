"""Inference and training of MS-D networks: our backends and others, side by side in one run.

    python benchmarks/engine.py --output results/benchmarks

Each measurement has a process of its own, so that peaks of memory are its own. Speeds are given
as voxels a second and as useful operations a second: those of the direct convolution, whatever a
backend really does, over the machine's fused multiply-add limit measured in the same run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.engine import fourier
from voxmill.engine.build import _FLAGS, compiler
from voxmill.engine.memory import free_bytes
from voxmill.files import write_json, write_text
from voxmill.networks.settings import MSDNetSettings

ROOT = Path(__file__).resolve().parent.parent
LABELS = {
    "fourier": "voxmill, Fourier domain",
    "torch-fast": "voxmill, right-looking PyTorch",
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "monai": "MONAI sliding_window_inference",
    "dlsia": "dlsia MSDNet",
}


def measure_machine(threads: int) -> dict:
    """Fused multiply-adds and bytes read a second, in billions; empty without a compiler."""
    if compiler() is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "machine"
        flags = [flag for flag in _FLAGS if flag not in ("-shared", "-fPIC")]
        source = ROOT / "benchmarks" / "machine.cpp"
        include = f"-I{ROOT / 'voxmill' / 'engine' / 'native'}"
        quiet = "-Wno-ignored-attributes"
        subprocess.run([compiler(), *flags, quiet, include, source, "-o", program], check=True)
        done = subprocess.run([program, str(threads)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def run_worker(task: dict, timeout_s: float) -> dict:
    """A measurement, or why there is none."""
    command = [sys.executable, str(ROOT / "benchmarks" / "engine_worker.py"), json.dumps(task)]
    # Freed arrays go back at once, so that a peak is what was in use at one time.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"more than {timeout_s:g} s"}
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return {"problem": last[0]}
    return json.loads(done.stdout)


def useful_operations(settings: MSDNetSettings, size: int) -> float:
    """Multiplications and additions of the direct convolutions, a bias counted as one tap."""
    return 2.0 * fourier.parameter_count(settings) * size**3


def compare(sizes, depths, runners, threads: int, repeats: int, timeout_s: float) -> list[dict]:
    """Inference of every runner, and its largest difference from PyTorch in probability."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for depth in depths:
            for size in sizes:
                for runner in runners:
                    task = {
                        "what": "inference", "runner": runner, "depth": depth, "size": size,
                        "threads": threads, "repeats": repeats,
                        "output": f"{folder}/{runner}-{depth}-{size}.npy",
                    }  # fmt: skip
                    row = task | run_worker(task, timeout_s)
                    rows.append(row)
                    print(_line(row), flush=True)
                for row in rows[-len(runners) :]:
                    _compare_output(row, f"{folder}/torch-{depth}-{size}.npy")
    return rows


def _compare_output(row: dict, reference: str) -> None:
    if Path(row["output"]).exists() and Path(reference).exists():
        difference = np.abs(np.load(row["output"]) - np.load(reference)).max()
        row["max_difference"] = float(difference)
    del row["output"]


def scale(depth: int, threads: int, repeats: int, timeout_s: float, largest: int) -> list[dict]:
    """The Fourier engine from 64^3 up, as far as the free memory allows."""
    rows, size = [], 64
    settings = MSDNetSettings(depth=depth)
    while size <= largest and fourier.predict_bytes(settings, (size,) * 3) < 0.8 * free_bytes():
        task = {
            "what": "inference", "runner": "fourier", "depth": depth, "size": size,
            "threads": threads, "repeats": repeats,
        }  # fmt: skip
        row = task | run_worker(task, timeout_s)
        row["predicted_bytes"] = fourier.predict_bytes(settings, (size,) * 3)
        rows.append(row)
        print(_line(row), flush=True)
        size += 32 if size < 128 else 64
    return rows


def train(tasks, threads: int, repeats: int, timeout_s: float) -> list[dict]:
    """Training steps on one cube; `tasks` are (size, depth, runner)."""
    rows = []
    for size, depth, runner in tasks:
        task = {
            "what": "training", "runner": runner, "depth": depth, "size": size,
            "threads": threads, "repeats": repeats,
        }  # fmt: skip
        row = task | run_worker(task, timeout_s)
        rows.append(row)
        print(_line(row), flush=True)
    return rows


def _line(row: dict) -> str:
    what = f"{row['what']} {row['size']}^3 depth {row['depth']} {row['runner']}"
    if "problem" in row:
        return f"{what}: {row['problem']}"
    return f"{what}: {row['seconds']:.3f} s, {row['peak_bytes'] / 1e9:.2f} GB"


def table(rows: list[dict], machine: dict) -> str:
    """A markdown table of inference or training rows."""
    head = ["box", "depth", "program", "s", "Mvoxel/s", "useful GFLOP/s", "of FMA peak", "peak GB"]
    lines = [[*head, "difference"], ["---"] * (len(head) + 1)]
    for row in rows:
        cells = [f"{row['size']}³", str(row["depth"]), LABELS[row["runner"]]]
        if "problem" in row:
            cells += [row["problem"][:80].replace("|", "/"), "", "", "", "", ""]
        else:
            factor = 3 if row["what"] == "training" else 1
            settings = MSDNetSettings(depth=row["depth"])
            speed = factor * useful_operations(settings, row["size"]) / row["seconds"] / 1e9
            peak = 2 * machine["gfma_per_s"] if machine else float("nan")
            cells += [
                f"{row['seconds']:.3f}",
                f"{row['size'] ** 3 / row['seconds'] / 1e6:.3f}",
                f"{speed:.0f}",
                f"{speed / peak:.2f}",
                f"{row['peak_bytes'] / 1e9:.2f}",
                f"{row['max_difference']:.1e}" if "max_difference" in row else "",
            ]
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def plot(result: dict, path: Path) -> None:
    """Throughput of all programs, and scaling of ours."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 4), layout="constrained")
    for number, (runner, label) in enumerate(LABELS.items()):
        for depth, style in zip(result["depths"], ("o-", "s--", "^:"), strict=False):
            points = [
                (row["size"], row["size"] ** 3 / row["seconds"] / 1e6)
                for row in result["inference"]
                if row["runner"] == runner and row["depth"] == depth and "seconds" in row
            ]
            if points:
                name = f"{label}, depth {depth}"
                left.plot(*zip(*points, strict=True), style, color=f"C{number}", label=name)
    left.set(xlabel="edge of the box, voxels", ylabel="million voxels a second", yscale="log")
    left.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5))
    done = [row for row in result["scaling"] if "seconds" in row]
    edges = [row["size"] for row in done]
    right.plot(edges, [row["seconds"] for row in done], "o-", label="seconds")
    right.plot(edges, [row["peak_bytes"] / 1e9 for row in done], "s-", label="peak memory, GB")
    predicted = [row["predicted_bytes"] / 1e9 for row in done]
    right.plot(edges, predicted, "k:", label="predicted memory, GB")
    right.set(xlabel="edge of the box, voxels", yscale="log", xticks=edges)
    right.set_title(f"Fourier engine, depth {result['scaling_depth']}")
    right.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Measure, then write engine.json, engine.md and engine.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--depths", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--runners", nargs="+", default=list(LABELS), choices=list(LABELS))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one measurement")
    parser.add_argument("--scaling-depth", type=int, default=100)
    parser.add_argument("--scaling-to", type=int, default=256, help="largest edge; 0: no scaling")
    parser.add_argument("--training-sizes", type=int, nargs="*", default=[64])
    given = parser.parse_args()
    common = (given.threads, given.repeats, given.timeout)
    result = {
        "threads": given.threads,
        "depths": given.depths,
        "scaling_depth": given.scaling_depth,
        "machine": measure_machine(given.threads),
    }
    print(result["machine"], flush=True)
    result["inference"] = compare(given.sizes, given.depths, given.runners, *common)
    tasks = [
        (n, d, r) for n in given.training_sizes for d in given.depths for r in ("fourier", "torch")
    ]
    result["training"] = train(tasks, *common)
    result["scaling"] = scale(given.scaling_depth, *common, given.scaling_to)
    write_json(given.output / "engine.json", result)
    text = f"{given.threads} threads; limits: {result['machine']}\n\n"
    for part in ("inference", "training", "scaling"):
        text += f"## {part}\n\n{table(result[part], result['machine'])}\n"
    write_text(given.output / "engine.md", text)
    plot(result, given.output / "engine.png")
    print(text)


if __name__ == "__main__":
    main()
