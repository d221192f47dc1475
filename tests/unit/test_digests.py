"""Digests change with the modules that a rule uses, and with no others."""

import pytest

from voxmill.runtime import digests


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "ROOT", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package = tmp_path / "voxmill"
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from voxmill import b\n")
    (package / "b.py").write_text("def f():\n    import voxmill.c\n    return 1\n")
    (package / "c.py").write_text("from . import d\nNAME = 'voxmill.engine.e'\n")
    (package / "d.py").write_text("import numpy\n")
    (package / "other.py").write_text("")
    (package / "engine" / "__init__.py").write_text("")
    (package / "engine" / "e.py").write_text("LIMIT = 1\n")
    (package / "engine" / "fast.cpp").write_text("#define N 3\nint x = N;  // three\n")
    yield package
    forget()


def forget():
    for function in vars(digests).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


def digest(module):
    forget()
    return digests.source_digest(module)


def test_imports_are_followed_everywhere(library):
    forget()
    assert digests.modules_used("voxmill.a") == [
        f"voxmill/{name}"
        for name in (
            "__init__.py", "a.py", "b.py", "c.py", "d.py",
            "engine/__init__.py", "engine/e.py", "engine/fast.cpp",
        )
    ]  # fmt: skip
    assert digests.modules_used("voxmill.other") == ["voxmill/other.py"]


def test_digests_of_the_same_sources_are_computed_once(library, monkeypatch):
    (library.parent / "scripts").mkdir()
    (library.parent / "scripts" / "e.py").write_text("")
    before = digest("voxmill.a")
    with monkeypatch.context() as patch:
        patch.setattr(digests, "_source_digest", lambda modules: pytest.fail("computed again"))
        assert digest("voxmill.a") == before
        # That of a rule was computed with the first that was asked for.
        assert digest("voxmill.engine.e")
    (library / "d.py").write_text("import scipy\n")
    assert digest("voxmill.a") != before


@pytest.mark.parametrize("damage", ["", "[]", '{"sources": 1}', '{"digests": {}, "sources": "a"}'])
def test_a_damaged_cache_of_digests_is_none(library, damage):
    before = digest("voxmill.a")
    (kept,) = library.parent.rglob("digests.json")
    kept.write_text(damage)
    assert digest("voxmill.a") == before
    # And one of another user's folder, where nothing can be kept.
    kept.unlink()
    kept.mkdir()
    assert digest("voxmill.a") == before


@pytest.mark.parametrize("name", ["a.py", "b.py", "c.py", "d.py", "engine/e.py", "engine/fast.cpp"])
def test_an_edit_changes_the_digest_and_undoing_it_brings_it_back(library, name):
    before = digest("voxmill.a")
    text = (library / name).read_text()
    (library / name).write_text(text + "int y;" if name.endswith("cpp") else text + "\nY = 1")
    assert digest("voxmill.a") != before
    (library / name).write_text(text)
    assert digest("voxmill.a") == before


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("b.py", "return 1", "return  1  # one"),
        ("b.py", "def f():", 'def f():\n    """Say what it does."""'),
        ("b.py", "def f():\n    import voxmill.c", "def f(\n):\n\n    import voxmill.c"),
        ("a.py", "from voxmill", '"""A module."""\n# A comment\nfrom voxmill'),
        ("engine/e.py", "LIMIT = 1\n", 'LIMIT = 1\n"""What it limits."""\n'),
        ("engine/fast.cpp", "int x = N;  // three", "/* a number */\nint  x=N ;"),
        ("engine/fast.cpp", "int x = N;", "int\nx = N;"),
    ],
)
def test_comments_docstrings_and_formatting_do_not_count(library, name, before, after):
    whole = digest("voxmill.a")
    text = (library / name).read_text()
    assert before in text
    (library / name).write_text(text.replace(before, after))
    assert digest("voxmill.a") == whole


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("b.py", "return 1", "return 2"),
        ("b.py", "return 1", "return 1.0"),
        ("b.py", "return 1", "return '1'"),
        ("b.py", "def f()", "def g()"),
        ("engine/e.py", "LIMIT = 1", "LIMIT = -1"),
        ("engine/fast.cpp", "N 3", "N 4"),
        ("engine/fast.cpp", "#define N 3\n", "#define N 3 "),
        ("engine/fast.cpp", "int x = N;", 'const char* x = "// N";'),
    ],
)
def test_an_edited_expression_counts(library, name, before, after):
    whole = digest("voxmill.a")
    text = (library / name).read_text()
    assert before in text
    (library / name).write_text(text.replace(before, after))
    assert digest("voxmill.a") != whole


def test_a_text_with_the_signs_of_a_comment_is_no_comment(library):
    (library / "engine" / "fast.cpp").write_text('const char* x = "// N";')
    before = digest("voxmill.a")
    (library / "engine" / "fast.cpp").write_text('const char* x = "// M";')
    assert digest("voxmill.a") != before


def test_a_moved_module_keeps_the_digest(library):
    before = digest("voxmill.a")
    (library / "inner").mkdir()
    (library / "inner" / "__init__.py").write_text("")
    (library / "b.py").rename(library / "inner" / "renamed.py")
    (library / "a.py").write_text("from voxmill.inner import renamed as b\n")
    assert digest("voxmill.a") == before


def test_an_import_from_another_of_two_known_modules_counts(library):
    (library / "b.py").write_text("from voxmill.c import f\nfrom voxmill import d\n")
    before = digest("voxmill.a")
    (library / "b.py").write_text("from voxmill.d import f\nfrom voxmill import c\n")
    assert digest("voxmill.a") != before


def test_an_edit_of_another_module_changes_nothing(library):
    before = digest("voxmill.a")
    (library / "other.py").write_text("x = 1")
    assert digest("voxmill.a") == before


def test_a_module_that_does_not_exist_is_an_error(library):
    with pytest.raises(ModuleNotFoundError, match=r"voxmill\.nothing"):
        digest("voxmill.nothing")


def test_the_rules_depend_on_what_they_use():
    forget()
    used = digests.modules_used("voxmill.tiles.cut_tiles")
    assert "voxmill/tiles/grid.py" in used
    assert "voxmill/volumes/__init__.py" in used
    assert not any("engine" in path or "matching" in path for path in used)
    # An edit of the engine must neither rerun a denoising nor pass over its checkpoints.
    used = digests.modules_used("voxmill.denoising.denoise_scan")
    assert not any("engine" in path for path in used)
