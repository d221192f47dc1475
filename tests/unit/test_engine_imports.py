"""Arrows of the engine go down to networks, config and runtime alone, and none goes round."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BELOW = {
    "engine": {"engine", "networks", "config", "runtime"},
    # Shapes of networks are settings, of a configuration and of cards.
    "networks": {"networks", "config", "runtime"},
    "config": {"config", "runtime"},
    "runtime": {"runtime"},
}


def imports(path):
    """Full names of what a module imports of voxmill, inside of functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("voxmill."):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = ROOT.joinpath(*whole.split(".")).with_suffix(".py").exists()
                yield whole if is_module else node.module


@pytest.mark.parametrize("package", BELOW)
def test_a_package_imports_what_is_below_it_alone(package):
    paths = sorted((ROOT / "voxmill" / package).glob("*.py"))
    found = {(path.name, name.split(".")[1]) for path in paths for name in imports(path)}
    assert found
    assert {(name, used) for name, used in found if used not in BELOW[package]} == set()


def test_no_circle_in_the_engine():
    modules = {path.stem: path for path in sorted((ROOT / "voxmill" / "engine").glob("*.py"))}
    graph = {
        stem: {name.rpartition(".")[2] for name in imports(path) if ".engine." in name}
        for stem, path in modules.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(modules) > 10


def test_no_circle_in_the_native_sources():
    folder = ROOT / "voxmill" / "engine" / "native"
    graph = {
        path.name: {
            line.split('"')[1]
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith('#include "')
        }
        for path in sorted(folder.glob("*.[ch]pp"))
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph) > 5
