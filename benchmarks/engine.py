"""Inference and training of MS-D networks: voxmill's backends and other programs, in one run.

    python benchmarks/engine.py --output results/benchmarks

Each measurement runs in its own process, so that its peak of memory is its own. Speeds are voxels a
second and useful operations a second: those of the direct convolution, whatever a backend really
does, also as a share of the machine's fused multiply-add limit, which the same run measures.
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

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import fourier
from voxmill.engine.build import _FLAGS, compiler
from voxmill.runtime.files import write_json, write_text
from voxmill.runtime.free_memory import free_bytes

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
    """A measurement, or the reason why there is none."""
    command = [sys.executable, str(ROOT / "benchmarks" / "engine_worker.py"), json.dumps(task)]
    # Freed arrays go back to the system at once, so that the peak counts arrays in use alone.
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


def compare(sizes, depths, runners, limits: dict) -> list[dict]:
    """Inference of every runner, and its largest difference from PyTorch in probability."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for depth in depths:
            for size in sorted(sizes):
                for runner in runners:
                    task = limits | {
                        "what": "inference", "runner": runner, "depth": depth, "size": size,
                        "output": f"{folder}/{runner}-{depth}-{size}.npy",
                    }  # fmt: skip
                    rows.append(measure(task, rows))
                for row in rows[-len(runners) :]:
                    _compare_output(row, f"{folder}/torch-{depth}-{size}.npy")
    return rows


def measure(task: dict, before: list[dict]) -> dict:
    """The row of a task; it is not run if its time on a smaller box says that it takes too long."""
    same = [
        row
        for row in before
        if "seconds" in row and all(row[k] == task[k] for k in ("what", "runner", "depth"))
    ]
    expected_s = same[-1]["seconds"] * (task["size"] / same[-1]["size"]) ** 3 if same else 0
    if expected_s > task["longest_s"]:
        size, words = same[-1]["size"], f"about {expected_s:.0f} s"
        row = task | {"problem": f"not run: {words} by its time at {size}³"}
    else:
        row = task | run_worker(task, task["timeout_s"])
    print(_line(row), flush=True)
    return row


def _compare_output(row: dict, reference: str) -> None:
    if Path(row["output"]).exists() and Path(reference).exists():
        difference = np.abs(np.load(row["output"]) - np.load(reference)).max()
        row["max_difference"] = float(difference)
    del row["output"]


def scale(depth: int, limits: dict, largest: int) -> list[dict]:
    """The Fourier engine from 64^3 up, as far as the free memory allows."""
    rows, size = [], 64
    settings = MSDNetSettings(depth=depth)
    while size <= largest:
        needed = fourier.predict_bytes(settings, (size,) * 3)
        if needed > 0.85 * free_bytes():
            break
        task = limits | {"what": "inference", "runner": "fourier", "depth": depth, "size": size}
        rows.append(measure(task, rows) | {"predicted_bytes": needed})
        size += 32 if size < 128 else 64
    return rows


def train(tasks, limits: dict) -> list[dict]:
    """Training steps on one cube; `tasks` are (size, depth, runner)."""
    rows = []
    for size, depth, runner in tasks:
        task = limits | {"what": "training", "runner": runner, "depth": depth, "size": size}
        rows.append(measure(task, rows))
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
                f"{row['seconds']:.3g}",
                f"{row['size'] ** 3 / row['seconds'] / 1e6:.3f}",
                f"{speed:.0f}",
                f"{speed / peak:.2f}",
                f"{row['peak_bytes'] / 1e9:.2f}",
                f"{row['max_difference']:.1e}" if "max_difference" in row else "",
            ]
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def plot(result: dict, path: Path) -> None:
    """Throughput of all programs, and scaling of voxmill."""
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
    figure.savefig(path, dpi=100)
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
    parser.add_argument(
        "--enough", type=float, default=10.0, help="seconds after which nothing is repeated"
    )
    parser.add_argument(
        "--longest", type=float, default=60.0,
        help="seconds that one run may take, by the time of a smaller box; else it is left out",
    )  # fmt: skip
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one measurement")
    parser.add_argument("--scaling-depth", type=int, default=100)
    parser.add_argument("--scaling-to", type=int, default=384, help="largest edge; 0: no scaling")
    parser.add_argument("--training-sizes", type=int, nargs="*", default=[64])
    parser.add_argument("--plot", type=Path, help="picture; default: engine.png in the output")
    given = parser.parse_args()
    limits = {
        "threads": given.threads,
        "repeats": given.repeats,
        "enough_s": given.enough,
        "longest_s": given.longest,
        "timeout_s": given.timeout,
    }
    result = {
        "threads": given.threads,
        "depths": given.depths,
        "scaling_depth": given.scaling_depth,
        "machine": measure_machine(given.threads),
    }
    print(result["machine"], flush=True)
    result["inference"] = compare(given.sizes, given.depths, given.runners, limits)
    tasks = [
        (n, d, r) for n in given.training_sizes for d in given.depths for r in ("fourier", "torch")
    ]
    result["training"] = train(tasks, limits)
    result["scaling"] = scale(given.scaling_depth, limits, given.scaling_to)
    write_json(given.output / "engine.json", result)
    text = f"{given.threads} threads; limits: {result['machine']}\n\n"
    for part in ("inference", "training", "scaling"):
        text += f"## {part}\n\n{table(result[part], result['machine'])}\n"
    write_text(given.output / "engine.md", text)
    plot(result, given.plot or given.output / "engine.png")
    print(text)


if __name__ == "__main__":
    main()
