"""What benchmarks/gpu.py found: rows.jsonl, summary.json, and the table of docs/gpu.md."""

import json
from pathlib import Path

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import write_json, write_text

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def read_rows(path: Path) -> list[dict]:
    """All rows that are whole: a fault may have cut the last one short."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def short(result: dict) -> str:
    """A result in a line."""
    if "problem" in result:
        return f"PROBLEM: {result['problem']}"
    parts = [f"{result[key]:.4g} {unit}" for key, unit in _SHOWN.items() if key in result]
    return ", ".join(parts) or result.get("summary", "done")


_SHOWN = {
    "seconds": "s",
    "voxels_per_s": "voxels/s",
    "iteration_s": "s an iteration",
    "copied_bytes_per_s": "bytes/s copied",
    "float16_flop_per_s": "flop/s",
}


def write_summary(output: Path) -> dict:
    """The last result of each row, with its ratios to the card's own rates: summary.json."""
    latest: dict[str, dict] = {}
    for found in read_rows(output / "rows.jsonl"):
        key = json.dumps([found["row"], found["setup"]], sort_keys=True)
        # A problem does not replace a figure.
        if "problem" not in found or "problem" in latest.get(key, {"problem": ""}):
            latest[key] = found
    rows = list(latest.values())
    machines = {
        (found["row"]["step"], found["card"]): found
        for found in rows
        if found["row"]["kind"] == "machine" and "problem" not in found
    }
    for found in rows:
        machine = machines.get((found["row"]["step"], found.get("card", "")))
        if machine and found is not machine:
            found["ratios"] = ratios(found, machine)
    summary = {"machines": list(machines.values()), "rows": rows}
    write_json(output / "summary.json", summary)
    return summary


def ratios(found: dict, machine: dict) -> dict:
    """A row against the card's copy rate and matrix rate, measured in the same step.

    Returns
    -------
    dict
        copied_bytes_per_voxel: what could have been copied (read and written) in the time of a
        voxel; kernels that memory limits move that much. of_matrix_rate: useful operations,
        counted as those of direct convolutions, against the float16 matrix product.
    """
    result = {}
    if "voxels_per_s" in found:
        result["copied_bytes_per_voxel"] = machine["copied_bytes_per_s"] / found["voxels_per_s"]
    if "flop_per_s" in found:
        result["of_matrix_rate"] = found["flop_per_s"] / machine["float16_flop_per_s"]
    return result


def write_table(output: Path) -> str:
    """The summary as markdown: gpu.md."""
    summary = json.loads((output / "summary.json").read_text())
    parts = [_machines(summary["machines"])]
    for title, kinds, head, cells in TABLES:
        rows = [row for row in summary["rows"] if row["row"]["kind"] in kinds]
        if rows:
            lines = [head, ["---"] * len(head), *[_line(row, head, cells) for row in rows]]
            text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
            parts.append(f"### {title}\n\n{text}")
    parts += [_kernels(row) for row in summary["rows"] if "kernels" in row]
    text = "\n\n".join(parts) + "\n"
    write_text(output / "gpu.md", text)
    return text


def put_into(path: Path, text: str) -> None:
    """Replace what lies between the marks of a page.

    Raises
    ------
    VoxmillError
        If the page has no such marks.
    """
    page = path.read_text(encoding="utf-8")
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise VoxmillError(f"{path}: expected the lines {BEGIN} and {END}, found none")
    write_text(path, f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def _machines(machines: list[dict]) -> str:
    lines = []
    for machine in machines:
        versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items())
        lines.append(
            f"Step {machine['row']['step']}: {machine['card']}, copies "
            f"{machine['copied_bytes_per_s'] / 1e9:.0f} GB/s (read and written), multiplies "
            f"matrices of float16 at {machine['float16_flop_per_s'] / 1e12:.1f} Tflop/s; "
            f"{versions}."
        )
    return "\n".join(lines) or "No machine was measured."


def _line(row: dict, head: list[str], cells) -> list[str]:
    """The cells of a row; one with a problem shows that."""
    asked = row["row"]
    name = asked.get("backend") or asked.get("file") or "fit"
    start = [name, asked.get("precision", "")][: 2 if "precision" in head else 1]
    if "problem" in row:
        problem = row["problem"][:80].replace("|", "/")
        return [*start, problem, *[""] * (len(head) - len(start) - 1)]
    return [*start, *cells(row)]


def _engine_cells(row: dict) -> list[str]:
    ratio = row.get("ratios", {})
    return [
        " x ".join(map(str, row["block"])),
        f"{row['seconds']:.4f}",
        f"{row['voxels_per_s'] / 1e6:.1f}",
        f"{ratio.get('copied_bytes_per_voxel', float('nan')) / 1e3:.2f}",
        f"{100 * ratio.get('of_matrix_rate', float('nan')):.1f} %",
        f"{row['peak_bytes'] / 1e9:.2f}, {row['predicted_bytes'] / 1e9:.2f}",
        f"{row['max_difference']:.1e}",
        f"{row['volume_seconds']:.1f}" if "volume_seconds" in row else "",
    ]


def _whole_cells(row: dict) -> list[str]:
    copied = row.get("ratios", {}).get("copied_bytes_per_voxel", float("nan"))
    return [
        " x ".join(map(str, row["setup"]["volume"])),
        f"{row['seconds']:.1f}",
        f"{row['voxels_per_s'] / 1e6:.1f}",
        f"{copied / 1e3:.2f}",
        f"{row['peak_bytes'] / 1e9:.2f}",
    ]


def _fit_cells(row: dict) -> list[str]:
    asked, ratio = row["row"], row.get("ratios", {})

    def said(key: str, default: bool = False) -> str:
        return "yes" if asked.get(key, default) else "no"

    return [
        said("checkpointing"),
        said("channels_last"),
        said("deterministic", True),
        str(asked["gpus"]),
        " + ".join(f"{peak / 2**30:.2f}" for peak in row["predicted_bytes"]),
        " + ".join(f"{peak / 2**30:.2f}" for peak in row["peak_bytes"]),
        f"{row['iteration_s']:.3f}",
        f"{100 * ratio.get('of_matrix_rate', float('nan')):.1f} %",
    ]


def _test_cells(row: dict) -> list[str]:
    return [row["summary"]]


_ENGINE_HEAD = ["backend", "precision", "box", "s", "Mvoxel/s", "kB a voxel at the copy rate"]
_ENGINE_HEAD += ["of the matrix rate", "peak, planned GB", "difference", "whole volume, s"]
_WHOLE_HEAD = ["backend", "precision", "volume", "s", "Mvoxel/s", "kB a voxel at the copy rate"]
_FIT_HEAD = ["fit", "precision", "checkpointing", "channels last", "deterministic", "GPUs"]
_FIT_HEAD += ["planned GiB", "measured GiB", "s an iteration", "of the matrix rate"]
TABLES = (
    ("Tests on the card", ("tests",), ["tests", "result"], _test_cells),
    ("Boxes and blocks", ("engine", "block", "profile"), _ENGINE_HEAD, _engine_cells),
    ("The whole volume", ("whole",), [*_WHOLE_HEAD, "peak GB"], _whole_cells),
    ("Denoising", ("fit",), _FIT_HEAD, _fit_cells),
)


def _kernels(row: dict) -> str:
    asked = row["row"]
    shape = " x ".join(map(str, row["block"]))
    lines = [
        f"### Kernels of {asked['backend']}, {asked['precision']}, {shape}\n",
        f"{row['kernels_seconds']:.3f} s in kernels, {row['seconds']:.3f} s in all.\n",
        "| kernel | calls | s | share |\n|---|---|---|---|",
    ]
    for kernel in row["kernels"]:
        name = kernel["name"].replace("|", "/")
        took = f"{kernel['seconds']:.4f} | {100 * kernel['share']:.1f} %"
        lines.append(f"| `{name}` | {kernel['calls']} | {took} |")
    return "\n".join(lines)
