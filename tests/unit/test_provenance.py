"""Digests change with the modules that a rule uses, and with no others."""

import pytest

from voxmill import provenance


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    package = tmp_path / "voxmill"
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from voxmill import b\n")
    (package / "b.py").write_text("def f():\n    import voxmill.c\n")
    (package / "c.py").write_text("from . import d\nNAME = 'voxmill.engine.e'\n")
    (package / "d.py").write_text("import numpy\n")
    (package / "other.py").write_text("")
    (package / "engine" / "__init__.py").write_text("")
    (package / "engine" / "e.py").write_text("")
    (package / "engine" / "fast.cpp").write_text("int x;")
    return package


def digest(module):
    provenance.source_digest.cache_clear()
    provenance._imports.cache_clear()
    return provenance.source_digest(module)


def test_imports_are_followed_everywhere(library):
    assert provenance.modules_used("voxmill.a") == [
        f"voxmill/{name}"
        for name in (
            "__init__.py", "a.py", "b.py", "c.py", "d.py",
            "engine/__init__.py", "engine/e.py", "engine/fast.cpp",
        )
    ]  # fmt: skip
    assert provenance.modules_used("voxmill.other") == ["voxmill/other.py"]


@pytest.mark.parametrize("name", ["a.py", "b.py", "c.py", "d.py", "engine/e.py", "engine/fast.cpp"])
def test_an_edit_changes_the_digest_and_undoing_it_brings_it_back(library, name):
    before = digest("voxmill.a")
    text = (library / name).read_text()
    (library / name).write_text(text + "\n# edited")
    assert digest("voxmill.a") != before
    (library / name).write_text(text)
    assert digest("voxmill.a") == before


def test_an_edit_of_another_module_changes_nothing(library):
    before = digest("voxmill.a")
    (library / "other.py").write_text("x = 1")
    assert digest("voxmill.a") == before


def test_a_module_that_does_not_exist_is_an_error(library):
    with pytest.raises(ModuleNotFoundError, match=r"voxmill\.nothing"):
        digest("voxmill.nothing")


def test_the_rules_depend_on_what_they_use():
    digest("voxmill.cutting")
    used = provenance.modules_used("voxmill.cutting")
    assert "voxmill/tiling.py" in used
    assert "voxmill/volumes/__init__.py" in used
    assert not any("engine" in path or "matching" in path for path in used)
    # An edit of the engine must neither rerun a denoising nor pass over its checkpoints.
    assert not any("engine" in path for path in provenance.modules_used("voxmill.dip.denoise"))
