"""What an edit of the library reruns: nothing, where no behaviour changes; else its users alone."""

import ast
import re
import shutil

import pytest

from tests.workflow.conftest import ROOT, make_project
from voxmill.runtime.digests import NATIVE_SUFFIXES, modules_used

# Jobs that read what a job writes; ancient inputs, whose date counts for nothing, are left out.
READERS = {
    "make_scan": {"denoise_scan"},
    "check_ground_truth": {"evaluate_cells"},
    "measure_volume": {
        *("measure_halo", "predict_tile", "measure_seams", "evaluate_cells", "draw_overview"),
    },
    "measure_halo": {"plan_volume"},
    "plan_volume": {"cut_tiles", "check_slab", "stitch_volume", "evaluate_cells"},
    "cut_tiles": {"predict_tile"},
    "predict_tile": {"check_slab"},
    "check_slab": {"stitch_volume"},
    "stitch_volume": {"find_cells", "measure_seams", "draw_mistakes", "draw_overview"},
    "find_cells": {"evaluate_cells", "draw_overview"},
    "evaluate_cells": {"compare_methods", "draw_mistakes", "draw_overview"},
}


@pytest.fixture(scope="module")
def own_code(tmp_path_factory):
    """A finished run of a copy of the repository, whose library a test may edit."""
    root = tmp_path_factory.mktemp("code")
    for name in ("rules", "scripts", "voxmill", "schemas", "envs", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", root)
    project = make_project(root / "work", root)
    content = {
        "scans": {"made": {"phantom": {"shape_vox": [12, 13, 12], "voxel_size_mm": 8}}},
        "denoising": {
            "devices": ["cpu"],
            "network": {"inputs": 1, "down": [4, 4], "up": [4, 4], "skip": [2, 2]},
            "iterations": 2,
        },
    }
    project.configure(**content, tiles={"halo_vox": "auto"}, evaluation={"baseline": False})
    project.snakemake()
    return project


@pytest.fixture
def edited(own_code):
    """The project; its library is as it was at the end of the test."""
    yield own_code
    for path in sources(ROOT):
        there = own_code.root / path.relative_to(ROOT)
        if there.read_bytes() != path.read_bytes():
            shutil.copyfile(path, there)


def sources(root):
    suffixes = {".py", *NATIVE_SUFFIXES}
    return [path for path in (root / "voxmill").rglob("*") if path.suffix in suffixes]


def documented_anew(text):
    """Python with a comment more and every docstring changed."""
    tree = ast.parse(text)
    bodies = [node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)]
    texts = {
        (body[0].lineno - 1, body[0].col_offset)
        for body in bodies
        if body and ast.get_docstring(ast.Module(body, []), clean=False) is not None
    }
    lines = text.splitlines(keepends=True)
    for number, column in sorted(texts, reverse=True):
        line = lines[number]
        lines[number] = line[:column] + line[column:].replace('"""', '"""Said anew. ', 1)
    changed = "# A comment.\n" + "".join(lines) + "\n# Another one.\n"
    assert not texts or changed.count("Said anew. ") == len(texts)
    return changed


def computed_otherwise(path):
    """Change the first whole number in the body of a function, and nothing else."""
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    if path.suffix in NATIVE_SUFFIXES:
        code = [re.sub(r"//.*|#.*", "", line) for line in lines]
        places = [(i, re.search(r"(?<![\w.\"])\d+(?![\w.])", line)) for i, line in enumerate(code)]
        index, found = next((i, match) for i, match in places if match)
        start, stop, value = found.start(), found.end(), int(found[0])
    else:
        functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
        numbers = [
            node
            for function in functions
            for part in function.body
            for node in ast.walk(part)
            if isinstance(node, ast.Constant) and type(node.value) is int
        ]
        first = min(numbers, key=lambda node: (node.lineno, node.col_offset))
        index, value = first.lineno - 1, first.value
        start, stop = first.col_offset, first.end_col_offset
        assert lines[index].isascii()
    lines[index] = f"{lines[index][:start]}{value + 1}{lines[index][stop:]}"
    path.write_text("".join(lines))


def users_of(module, rules):
    """Rules whose job depends on a source of the library."""
    names = {
        rule: ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for rule in rules
        for path in (ROOT / "voxmill").glob(f"*/{rule}.py")
    }
    return {rule for rule, name in names.items() if f"voxmill/{module}" in modules_used(name)}


def with_readers(rules):
    reached, waiting = set(), list(rules)
    while waiting:
        rule = waiting.pop()
        if rule not in reached:
            reached.add(rule)
            waiting += READERS.get(rule, ())
    return reached


def test_comments_and_docstrings_in_all_modules_rerun_nothing(edited):
    paths = sources(edited.root)
    assert len(paths) > 100
    for path in paths:
        text = path.read_text()
        if path.suffix == ".py":
            path.write_text(documented_anew(text))
        else:
            path.write_text(f"// A comment.\n{text}\n/* Another\none. */\n")
    assert edited.jobs() == {}


# By module the rules whose jobs use it. Edits of one group have no rule and no reader in common.
EDITS = [
    {
        "evaluation/compare_methods.py": {"compare_methods"},
        "denoising/stopping.py": {"denoise_scan"},
        "phantoms/parts.py": set(),
        "workflow/resources.py": set(),
    },
    {"evaluation/draw_overview.py": {"draw_overview"}, "phantoms/make_scan.py": {"make_scan"}},
    {"tiles/stitch_volume.py": {"stitch_volume"}},
    {"prediction/flips.py": {"measure_halo", "predict_tile", "measure_seams"}},
    {"engine/native/fft.hpp": {"measure_halo", "predict_tile", "measure_seams"}},
]


@pytest.mark.parametrize("users", EDITS, ids=lambda group: " ".join(group))
def test_edited_expressions_rerun_exactly_the_rules_that_use_them(edited, users):
    ran = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    ran -= {"make_phantom", "unpack_volume", "find_baseline_cells", "train_network"}
    ran -= {"predict_batch", "write_derivatives", "build_level", "export_tiff", "export_cells"}
    ran -= {"label_slab", "finish_labels", "measure_cells", "evaluate_instances"}
    ran -= {"draw_instances"}
    ran -= {"measure_label_seams", "export_table"}
    for module in users:
        assert users_of(module, ran) == users[module], module
        computed_otherwise(edited.root / "voxmill" / module)
    assert set(edited.jobs()) - {"all"} == with_readers(set().union(*users.values()))
