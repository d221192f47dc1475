"""The examples in docstrings give what stands there."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Only these are imported: kernels in Triton have no examples.
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "voxmill").rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    report = []
    finder = doctest.DocTestFinder(exclude_empty=True)
    module = importlib.import_module(name.removesuffix(".__init__"))
    tests = [test for test in finder.find(module) if test.examples]
    assert tests
    for test in tests:
        doctest.DocTestRunner().run(test, out=report.append)
    assert not report, "".join(report)
