"""The docs are true: links, examples, quoted messages, versions."""

import ast
import doctest
import re
import textwrap
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

import voxmill

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
# Pages that docs/site_pages.py makes when the site is built.
SITE_PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def anchors(text):
    """Names of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    words = [re.sub(r"[^\w\- ]", "", heading.replace("`", "")) for heading in headings]
    return {re.sub(r" ", "-", heading.strip().lower()) for heading in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_within_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if name in SITE_PAGES and page.parent.name == "docs":
            path = ROOT / SITE_PAGES[name]
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(path.read_text()), f"{page.name}: {target}"


def blocks(page, language):
    """The code blocks of a page in a language, those in lists without their indent."""
    text = page.read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_configurations_of_the_pages_fit_the_schema(page):
    schema = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())
    for block in blocks(page, "yaml"):
        # A block may be a comment alone.
        jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(block) or {})


def test_the_tutorial_shows_its_examples():
    shown = blocks(ROOT / "docs" / "tutorial.md", "yaml")
    assert shown == [
        (ROOT / "docs" / "examples" / name).read_text()
        for name in ("tutorial_train.yaml", "tutorial_run.yaml")
    ]


def literals():
    """Every string of the library, with NUL where a value is put in."""
    for path in sorted((ROOT / "voxmill").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "\0" for p in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_of_the_troubleshooting_page_are_the_librarys():
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    own = text[: text.index("Snakemake's own:")]
    messages = [quoted[1] for quoted in re.findall(r"^\| (`+)(.+?)\1 \|", own, re.MULTILINE)]
    known = list(literals())
    assert len(messages) > 30
    for message in messages:
        parts = [part.strip() for part in message.split("...")]
        assert any(all(part in literal for part in parts) for literal in known), message


def test_one_version_and_one_licence():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert project["version"] == voxmill.__version__ == citation["version"] == newest[1]
    assert project["license"] == citation["license"] == "BSD-3-Clause"
    assert (ROOT / "LICENSE").read_text().startswith("BSD 3-Clause License")


def test_examples_of_contributing_run(tmp_path, monkeypatch):
    from voxmill import networks, volumes
    from voxmill.cells import find_cells
    from voxmill.config import base
    from voxmill.config.networks import NETWORK_SETTINGS
    from voxmill.evaluation import ground_truth, metrics

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(volumes, "FORMATS", volumes.FORMATS)
    # The examples replace these; at the end each registry is as it was.
    monkeypatch.setitem(base.SECTIONS, "OneLayerSettings", None)
    monkeypatch.setitem(NETWORK_SETTINGS, "onelayer", None)
    monkeypatch.setitem(networks.NETWORKS, "onelayer", None)
    monkeypatch.setitem(find_cells.METHODS, "brightest", None)
    monkeypatch.setitem(metrics.METRICS, "jaccard", None)
    monkeypatch.setitem(ground_truth.TRUTH, "json", None)
    examples = "\n".join(blocks(ROOT / "CONTRIBUTING.md", "pycon"))
    test = doctest.DocTestParser().get_doctest(examples, {}, "CONTRIBUTING.md", None, 0)
    report = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted > 30
    assert not result.failed, "".join(report)


def test_every_promise_of_operations_names_tests_that_exist():
    """Each row of the table of what can go wrong."""
    page = (ROOT / "docs/operations.md").read_text()
    table = page[page.index("## What can go wrong") :]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`(\*?)", row.rsplit(" | ", 1)[1])
        assert named, row
        for file, test, star in named:
            source = (ROOT / "tests" / file).read_text()
            functions = {
                node.name: node
                for node in ast.parse(source).body
                if isinstance(node, ast.FunctionDef)
            }
            assert test in functions, f"{file}: {test}"
            # Of a test with a quick part no star is given.
            marks = [ast.unparse(mark) for mark in functions[test].decorator_list]
            slow = "pytest.mark.slow" in marks or "\npytestmark = pytest.mark.slow" in source
            assert slow == bool(star), f"{file}: {test}"
