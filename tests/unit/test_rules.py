"""Rule, script and module carry one name; rule files hold rules, and every rule is complete."""

import ast
import importlib
import re

import pytest

from voxmill.runtime.digests import ROOT

FILES = sorted((ROOT / "rules").glob("*.smk"))
BODIES = {
    match[1]: match[2]
    for path in FILES
    for match in re.finditer(r"^rule (\w+):\n((?:[ \n].*\n?)*)", path.read_text(), re.MULTILINE)
}
JOBS = sorted(name for name, body in BODIES.items() if "    output:\n" in body)


def modules_named(name):
    return [path.relative_to(ROOT) for path in (ROOT / "voxmill").glob(f"*/{name}.py")]


def test_every_job_has_a_script_and_every_script_a_job():
    assert "predict_tile" in JOBS and "predict" not in JOBS
    assert sorted(path.stem for path in (ROOT / "scripts").glob("*.py")) == JOBS


@pytest.mark.parametrize("rule", JOBS)
def test_rule_script_and_module_carry_one_name(rule):
    (module,) = modules_named(rule)
    dotted = ".".join(module.with_suffix("").parts)
    assert f'code=source_digest("{dotted}"),' in BODIES[rule]
    assert f'"../scripts/{rule}.py"' in BODIES[rule]
    script = (ROOT / "scripts" / f"{rule}.py").read_text()
    assert f"from {dotted} import {rule}\n" in script
    calls = [node.func for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Call)]
    assert next(call.id for call in calls if isinstance(call, ast.Name)) == rule
    job = getattr(importlib.import_module(dotted), rule)
    assert job.__wrapped__.__module__ == dotted


@pytest.mark.parametrize("rule", JOBS)
def test_a_job_is_complete(rule):
    for part in ("log", "conda", "resources", "params", "message"):
        assert f"    {part}:\n" in BODIES[rule], part
    assert "benchmark:" not in BODIES[rule]
    # Without it, a product that Snakemake has no record of would be taken for what it should be.
    assert "        recorded=RECORDS,\n" in BODIES[rule]
    assert re.search(r"^        mem_mb=", BODIES[rule], re.MULTILINE)
    if rule != "train_network":
        assert re.search(rf'^        "logs/.*/{rule}(/{{\w+}})?\.log",', BODIES[rule], re.MULTILINE)


# What puts the library on sys.path can't be in the library.
@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem != "library"], ids=lambda path: path.stem
)
def test_rule_files_hold_rules(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 150
    assert not re.search(r"\bdef\b|\blambda\b|\bclass\b|wildcard_constraints", text)
    starts = re.findall(r"^(?![ #\n])(\S+)", text, re.MULTILINE)
    assert starts[0].startswith('"""')
    assert set(starts[1:]) == {"rule"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.stem
)
def test_scripts_are_one_call(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 25
    assert 'if __name__ == "__main__":' in lines
    assert "def " not in path.read_text()


def test_the_library_does_not_know_snakemake():
    known = re.compile(r"^\s*(from|import) snakemake", re.MULTILINE)
    found = [path for path in (ROOT / "voxmill").rglob("*.py") if known.search(path.read_text())]
    # The plan of a cluster's run is asked of Snakemake itself.
    assert found == [ROOT / "voxmill/slurm/dag.py"]
