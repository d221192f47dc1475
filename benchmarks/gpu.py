"""Everything about GPUs that needs one: kernel tests, engines, a whole volume, denoising.

    python benchmarks/gpu.py pack --python 3.12     # on a machine with a network, if needed
    python benchmarks/gpu.py A                      # kernel tests; every row at three sizes
    python benchmarks/gpu.py B                      # a real block by kernel; the whole volume
    python benchmarks/gpu.py C                      # denoising; cuDNN beside our engines
    python benchmarks/gpu.py table --docs           # the summary, and the table of docs/gpu.md

Each step takes under ten minutes (`--minutes`). Each row is measured by a process of its own with a
time limit, and appended to OUTPUT/rows.jsonl before the next one begins, so that a later fault
loses nothing; a step that is run again goes on with the rows that are missing. `--rows` and
`--sizes` select rows. The machine needs a checkout of this repository and torch, triton, numpy,
scipy, scikit-image, tifffile, pandas, pyyaml, safetensors, tqdm, pytest, pydantic and, for one file
of tests, hypothesis; and a C compiler and Python's headers, with which Triton builds what starts
its kernels. `pack` unpacks the last two into benchmarks/.packages for a machine that lacks
them. `--mini` runs all of this in
miniature on a CPU (Triton's kernels in its interpreter): it shows that the program works.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gpu_table

ROOT = Path(__file__).resolve().parent.parent
# What checks the settings and what draws cases of tests, in versions that go together (torch brings
# an older typing_extensions).
PACKED = (
    "pydantic",
    "pydantic_core",
    "annotated-types",
    "typing-inspection",
    "typing_extensions",
    "hypothesis",
    "sortedcontainers",
)
ROWS = (
    "gpu-fourier:float32",
    "gpu-fourier:float16",
    "gpu-fused:float16",
    "gpu-direct:float32",
    "gpu-direct:float16",
    "torch-fast:float32",
    "torch:float32",
    "torch:float16",
)
# The fastest on paper is run on the whole volume.
BLOCK_ROWS = ("gpu-fused:float16", "gpu-fourier:float16", "gpu-fourier:float32")
KERNEL_TESTS = "test_engine_gpu.py"
FULL = {
    "device": "cuda", "sizes": [64, 128, 256], "depth": 100, "halo": 48, "largest": 704,
    "volume": [2304, 1280, 1024], "scan": [256, 256, 150], "network": {}, "repeats": 3,
    "iterations": 5, "copied_mb": 1024, "product": 8192,
}  # fmt: skip
MINI = {
    "device": "cpu", "sizes": [4], "depth": 2, "halo": 1, "largest": 8,
    "volume": [12, 6, 4], "scan": [12, 12, 12], "repeats": 1,
    "network": {"down": [4, 4], "up": [4, 4], "skip": [2, 2]},
    "iterations": 1, "copied_mb": 8, "product": 128,
}  # fmt: skip


def rows_of_a(given: argparse.Namespace) -> list[dict]:
    """Tests of the kernels, every row at every size, the smallest sizes first, other tests."""
    files = [KERNEL_TESTS] if given.mini else files_of_gpu_tests()
    tests = [{"kind": "tests", "file": name} for name in files]
    chosen = given.rows or ROWS
    sized = [_engine("engine", row) | {"edge": edge} for edge in given.sizes for row in chosen]
    # The other tests come last: they may take all of the time that is left.
    return [*tests[:1], *sized, *tests[1:]]


def files_of_gpu_tests() -> list[str]:
    """Files with tests that need a GPU, those of the kernels first."""
    paths = sorted((ROOT / "tests" / "unit").glob("test_*.py"))
    found = [path.name for path in paths if "@pytest.mark.gpu" in path.read_text("utf-8")]
    return sorted(found, key=lambda name: name != KERNEL_TESTS)


def rows_of_b(given: argparse.Namespace) -> list[dict]:
    """The largest block of the whole volume by kernel, and the whole volume."""
    chosen = given.rows or BLOCK_ROWS
    return [
        _engine("profile", chosen[0]),
        _engine("whole", chosen[0]),
        *[_engine("profile", row) for row in chosen[1:]],
    ]


def rows_of_c(given: argparse.Namespace) -> list[dict]:
    """Fits in every precision, each setting that changes speed, and cuDNN beside our engines."""
    half = {"kind": "fit", "precision": "bfloat16" if given.mini else "float16", "gpus": 1}
    fits = [
        half,
        half | {"channels_last": True},
        half | {"deterministic": False},
        half | {"channels_last": True, "deterministic": False},
        half | {"checkpointing": True},
        half | {"gpus": 2},
        half | {"precision": "bfloat16", "channels_last": True},
        half | {"precision": "float32"},
    ]
    if given.mini:
        fits = [half | {"channels_last": True, "checkpointing": True}]
    chosen = given.rows or [row for row in ROWS if not row.startswith("gpu-direct")]
    return [*fits, *[_engine("block", row) for row in reversed(chosen)]]


STEPS = {"A": rows_of_a, "B": rows_of_b, "C": rows_of_c}


def _engine(kind: str, row: str) -> dict:
    backend, _, precision = row.partition(":")
    return {"kind": kind, "backend": backend, "precision": precision or "float32"}


def run_step(step: str, given: argparse.Namespace) -> None:
    """Measure the rows of a step that have no result yet, each in its own process."""
    path = given.output / "rows.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    setup = {key: getattr(given, key) for key in FULL if key != "sizes"} | {"mini": given.mini}
    end = time.monotonic() + 60 * given.minutes
    # The machine is a row of each step: its copy rate is compared with rows of the same card.
    for row in [{"kind": "machine"}, *STEPS[step](given)]:
        row = {"step": step, **row}
        if not given.again and is_done(row, setup, path):
            print(f"{describe(row)}: there already", flush=True)
            continue
        left = end - time.monotonic()
        result = {"problem": f"not begun: the step's {given.minutes:g} minutes are over"}
        if left > 5:
            result = measure(row, setup, min(given.limit_s, left))
        if row["kind"] == "machine" and "problem" in result:
            sys.exit(f"benchmarks/gpu.py: {result['problem']}: nothing was measured")
        append(path, {"row": row, "setup": setup, **result})
        print(f"{describe(row)}: {gpu_table.short(result)}", flush=True)
    gpu_table.write_summary(given.output)


def describe(row: dict) -> str:
    """A row in words."""
    return " ".join(str(value) for key, value in row.items() if key != "step")


def is_done(row: dict, setup: dict, path: Path) -> bool:
    """Whether a row was measured before with the same setup, without a problem."""
    asked = {"row": row, "setup": setup}
    return any(
        "problem" not in each and asked.items() <= each.items()
        for each in gpu_table.read_rows(path)
    )


def append(path: Path, row: dict) -> None:
    """Add a row; it is on the disk when this returns."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def measure(row: dict, setup: dict, limit_s: float) -> dict:
    """What the process of a row prints, or its problem."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "gpu_rows.py"), json.dumps([row, setup])],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=environment(setup["mini"]), start_new_session=True,
    )  # fmt: skip
    try:
        printed, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
        _, errors = process.communicate()
        return {"problem": f"not done after {limit_s:.0f} s", "errors": errors[-6000:]}
    result = last_line(printed)
    if process.returncode or result is None:
        last = (errors.strip() or printed.strip() or "no output").splitlines()[-1]
        result = {"problem": f"exit status {process.returncode}: {last}", "errors": errors[-3000:]}
    return result | {"wall_s": round(time.monotonic() - begun, 1)}


def last_line(printed: str) -> dict | None:
    """The JSON object in the last line of an output."""
    try:
        found = json.loads(printed.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def environment(mini: bool) -> dict[str, str]:
    """Of a row's process: this checkout, then what the machine has, then packed packages."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", ""), str(packages_folder())]
    # Plugins that a machine happens to have may need what it lacks.
    added = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | ({"TRITON_INTERPRET": "1"} if mini else {})
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **added}


def packages_folder() -> Path:
    """Where `pack` puts packages for the other machine."""
    return Path(os.environ.get("VOXMILL_GPU_PACKAGES", ROOT / "benchmarks" / ".packages"))


def pack(python: str) -> None:
    """Unpack what the other machine may lack, in the locked versions, for its Python."""
    files = ("requirements.lock", "requirements-dev.lock")
    lines = [line for name in files for line in (ROOT / name).read_text().splitlines()]
    locked = {line.split("==")[0].lower(): line for line in lines if "==" in line}
    wanted = [locked[name.lower()] for name in PACKED]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
    command += ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    command += ["--platform", "manylinux_2_17_x86_64", "--target", str(packages_folder())]
    subprocess.run([*command, *wanted], check=True)
    print(f"{packages_folder()}: {', '.join(wanted)}; it goes along with the checkout")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; what is left out is that of a real or of a miniature run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=[*STEPS, "table", "pack"])
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "gpu")
    parser.add_argument("--rows", nargs="+", help="such as gpu-fourier:float16 torch:float32")
    parser.add_argument("--sizes", type=int, nargs="+", help="edges of the boxes of step A")
    parser.add_argument("--volume", type=int, nargs=3, help="voxels of step B, z y x")
    parser.add_argument("--scan", type=int, nargs=3, help="voxels of the fits of step C")
    for name in ("depth", "halo", "largest", "repeats", "iterations"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--minutes", type=float, default=9.5, help="of the step")
    parser.add_argument("--limit-s", type=float, default=240.0, help="of a row")
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    parser.add_argument("--mini", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/gpu.md")
    parser.add_argument("--python", default="3.12", help="version of the other machine (pack)")
    given = parser.parse_args(arguments)
    for key, value in (MINI if given.mini else FULL).items():
        if getattr(given, key, None) is None:
            setattr(given, key, value)
    return given


def main() -> None:
    """Run a step, or write what the steps found."""
    given = parse()
    if given.step == "pack":
        pack(given.python)
    elif given.step == "table":
        gpu_table.write_summary(given.output)
        text = gpu_table.write_table(given.output)
        if given.docs:
            gpu_table.put_into(ROOT / "docs" / "gpu.md", text)
        print(text)
    else:
        run_step(given.step, given)


if __name__ == "__main__":
    main()
