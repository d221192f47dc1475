"""Print where results are, and their evaluations: `python -m voxmill.evaluation results`."""

import argparse
from pathlib import Path

from voxmill.cells.table import read_cells
from voxmill.evaluation.compare_methods import read_evaluations
from voxmill.evaluation.evaluate_cells import table


def print_results(results: str | Path) -> None:
    """Print where the results of each volume are, and its evaluations as a short table."""
    for folder in sorted(path.parent for path in Path(results).glob("*/plan.json")):
        print(f"\nResults of {folder.name}: {folder}/")
        for path in sorted(folder.glob("*/cells.csv")):
            print(f"  {path}: {len(read_cells(path))} cells")
        for name in ("probability.ome.zarr", "overview.png"):
            for path in sorted(folder.glob(f"*/{name}")):
                print(f"  {path}")
        paths = sorted(folder.glob("*/evaluation.json"), key=lambda p: p.parent.name == "baseline")
        if paths:
            print(f"  {folder}/comparison.html\n")
            print(table(read_evaluations([path.parent.name for path in paths], paths)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=print_results.__doc__)
    parser.add_argument("results", nargs="?", default="results")
    print_results(parser.parse_args().results)
