"""Tables of the evaluations: an HTML page for the report, plain text for the terminal."""

import base64
import html
import io

from voxmill.evaluation.evaluate_cells import table_rows
from voxmill.runtime.files import read_json, write_text
from voxmill.runtime.jobs import job

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; }}
table {{ border-collapse: collapse; margin: 1em 0; }}
td, th {{ padding: 0.3em 0.8em; text-align: right; border-bottom: 1px solid #ddd; }}
td:first-child, th:first-child {{ text-align: left; }}
img {{ max-width: 100%; }}
</style></head>
<body><h1>{title}</h1>
{table}
<img alt="{alt}" src="data:image/png;base64,{image}"></body>
</html>
"""
ALT = "F1 against the threshold, F1 against the matching distance, precision against recall"


@job(outputs=("output_path",))
def compare_methods(*, evaluation_paths: list[str], methods: list[str], output_path: str) -> None:
    """Write a self-contained HTML page that compares the evaluations of one volume.

    Parameters
    ----------
    evaluation_paths : list of path
        What `evaluate_cells` wrote, in the order of `methods`.
    methods : list of str
        Networks, and "baseline".
    output_path : path
    """
    evaluations = read_evaluations(methods, evaluation_paths)
    names, *rows = table_rows(evaluations)
    lines = ["<table>", _html_row("th", names), *(_html_row("td", row) for row in rows)]
    page = PAGE.format(
        title="Evaluation",
        table="\n".join([*lines, "</table>"]) + _remarks(evaluations),
        image=base64.b64encode(_curves(evaluations)).decode(),
        alt=ALT,
    )
    write_text(output_path, page)


def _remarks(evaluations: dict[str, dict]) -> str:
    """What a model has not seen in its training, and how much of the volume is tissue."""
    lines = [
        f"{method}: {sentence}."
        for method, evaluation in evaluations.items()
        for sentence in evaluation.get("unlike_training", ())
    ]
    shares = {e["tissue"]["share"] for e in evaluations.values() if "tissue" in e}
    lines += [f"{share:.1%} of the volume is tissue." for share in shares if share < 1]
    return "".join(f"\n<p>{html.escape(line)}</p>" for line in lines)


def _html_row(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def read_evaluations(methods: list[str], paths: list) -> dict[str, dict]:
    """What `evaluate_cells` wrote for each method, by the method's name."""
    return {
        method: read_json(path, "evaluation") for method, path in zip(methods, paths, strict=True)
    }


def _curves(evaluations: dict[str, dict]) -> bytes:
    """A PNG with the curves of all methods."""
    from voxmill.runtime.figures import plt

    figure, panels = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    specs = (
        ("f1_against_threshold", "threshold", "f1", "Threshold (probability)", "F1"),
        ("f1_against_distance", "distance_um", "f1", "Matching distance (µm)", "F1"),
        ("f1_against_threshold", "recall", "precision", "Recall", "Precision"),
    )
    for panel, (curve, x, y, x_label, y_label) in zip(panels, specs, strict=True):
        for method, evaluation in evaluations.items():
            rows = evaluation[curve]
            # The baseline's threshold is in grey values, not a probability.
            if x == "threshold" and any(row[x] > 1 for row in rows):
                continue
            panel.plot([row[x] for row in rows], [row[y] for row in rows], label=method)
        panel.set(xlabel=x_label, ylabel=y_label, ylim=(0, 1.02))
        panel.grid(alpha=0.3)
    panels[1].legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": "voxmill"})
    plt.close(figure)
    return buffer.getvalue()
