"""Digests of the library modules that a rule depends on.

Snakemake notices the date of a script, not an edited module that the script imports. Rules carry
`params: code=source_digest("voxmill.tiles.cut_tiles")`; an edit that may change results changes the
digest and reruns the rule. Comments, docstrings, formatting and the place of a module do not count.
"""

import ast
import contextlib
import functools
import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from voxmill.runtime.checked import read_checked_json, write_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import visible
from voxmill.runtime.paths import cache_folder

_KEPT = "digests.json"
ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "voxmill"
# Sources that a package compiles belong to each of its modules.
NATIVE_SUFFIXES = {".cpp", ".hpp", ".h", ".cu"}
_CPP_TEXT = r'"(?:\\.|[^"\\])*"|' + r"'(?:\\.|[^'\\])*'"
_CPP_COMMENT = re.compile(rf"(?P<text>{_CPP_TEXT})|//[^\n]*|/\*.*?\*/", re.DOTALL)
_CPP_TOKEN = re.compile(rf"{_CPP_TEXT}|\w+|[^\w\s]")


@functools.cache
def source_digest(*modules: str) -> str:
    """Digest, 16 digits, of modules, their scripts, and all voxmill modules that they import.

    Imports are followed in the syntax tree, those inside functions too; nothing is executed. What
    is digested are the syntax trees without docstrings, and the tokens of C++ without comments. An
    import counts by the content of what it names, so that a moved module keeps its digest.

    Parameters
    ----------
    modules : str
        Full names such as "voxmill.tiles.cut_tiles".

    Raises
    ------
    ModuleNotFoundError
        If a named module has no source file.
    """
    known = _kept()
    key = " ".join(modules)
    if key not in known:
        # Those of all rules at once, which are asked for one by one: they are kept by one write.
        wanted = {key: modules} | {name: (name,) for name in _of_rules() if name not in known}
        known |= {name: _source_digest(parts) for name, parts in wanted.items()}
        _keep(known)
    return known[key]


def _of_rules() -> list[str]:
    """Modules that have the name of a script."""
    scripts = {path.name for path in visible(ROOT / "scripts", "*.py")}
    paths = visible(ROOT / PACKAGE, "*/*.py")
    return [f"{PACKAGE}.{p.parent.name}.{p.stem}" for p in paths if p.name in scripts]


def _source_digest(modules: tuple[str, ...]) -> str:
    paths = set().union(*(_closure(module) for module in modules))
    # So that an edited script counts by its content, and not by its date.
    scripts = (ROOT / "scripts" / f"{module.rpartition('.')[2]}.py" for module in modules)
    paths.update(script for script in scripts if script.is_file())
    digest = hashlib.sha256()
    for part in sorted({_digest_with_imports(path) for path in paths}):
        digest.update(part)
    return digest.hexdigest()[:16]


@functools.cache
def _kept() -> dict[str, str]:
    """Digests that an earlier process computed of the very same sources: it takes seconds."""
    try:
        content = read_checked_json(cache_folder() / _KEPT)
    except (OSError, VoxmillError):
        return {}
    return content["digests"] if content["sources"] == _all_sources() else {}


def _keep(digests: dict[str, str]) -> None:
    """Keep digests for later processes; a cache that cannot be written is no error."""
    with contextlib.suppress(OSError, VoxmillError):
        write_checked_json(cache_folder() / _KEPT, {"sources": _all_sources(), "digests": digests})


@functools.cache
def _all_sources() -> str:
    """Digest of every byte of all sources, and of the Python that parses them."""
    digest = hashlib.sha256(sys.version.encode())
    for folder, suffixes in ((PACKAGE, NATIVE_SUFFIXES | {".py"}), ("scripts", {".py"})):
        for path in [p for p in visible(ROOT / folder, "**/*") if p.suffix in suffixes]:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT)} {len(content)} ".encode() + content)
    return digest.hexdigest()


def modules_used(module: str) -> list[str]:
    """Paths, relative to the repository's root, of all sources that a module depends on."""
    return sorted(path.relative_to(ROOT).as_posix() for path in _closure(module))


def _closure(module: str) -> set[Path]:
    start = _source(module)
    if start is None:
        raise ModuleNotFoundError(f"{module}: no source file under {ROOT}")
    seen: set[Path] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting.extend(_imports(path))
            if path.parent != ROOT / PACKAGE:
                seen.update(p for p in visible(path.parent, "**/*") if p.suffix in NATIVE_SUFFIXES)
    return seen


@functools.cache
def _source(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def _tree(path: Path) -> ast.Module:
    """The syntax tree of a file without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # Strings that stand alone document a module, class, function or constant.
            body[:] = [child for child in body if not _is_text(child)]
    return tree


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@functools.cache
def _names(path: Path) -> dict[ast.AST, list[str]]:
    """The voxmill modules that each import, or each constant of a registry, of a file may name."""
    package = path.relative_to(ROOT).parts[:-1]
    found: dict[ast.AST, list[str]] = {}
    for node in ast.walk(_tree(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [".".join(base), *(".".join([*base, alias.name]) for alias in node.names)]
        elif isinstance(node, ast.Constant) and str(node.value).startswith(f"{PACKAGE}."):
            # Registries name the modules that they import lazily as text.
            names = [str(node.value)]
        names = [name for name in names if name.split(".")[0] == PACKAGE]
        if names:
            found[node] = names
    return found


@functools.cache
def _imports(path: Path) -> frozenset[Path]:
    names = {name for some in _names(path).values() for name in some}
    # An import of a module runs the packages above it, so these count too.
    names.update(name.rpartition(".")[0] for name in tuple(names))
    return frozenset(p for p in map(_source, names) if p is not None)


@functools.cache
def _own_digest(path: Path) -> bytes:
    """Digest of one file, whatever its imports name."""
    return _digest_of(path, lambda names: b"")


@functools.cache
def _digest_with_imports(path: Path) -> bytes:
    """Digest of one file in which imports stand for what is in the modules that they name."""
    if path.suffix in NATIVE_SUFFIXES:
        return hashlib.sha256(_cpp_tokens(path.read_text(encoding="utf-8")).encode()).digest()

    def contents(names: list[str]) -> bytes:
        sources = (source for name in names if (source := _source(name)) is not None)
        return b"".join(_own_digest(source) for source in sources)

    return _digest_of(path, contents)


def _cpp_tokens(text: str) -> str:
    """C++ without comments and blanks; only the preprocessor's lines keep their ends."""
    bare = _CPP_COMMENT.sub(lambda match: match["text"] or " ", text)
    lines = (" ".join(_CPP_TOKEN.findall(line)) for line in bare.splitlines())
    return " ".join(f"\n{line}\n" if line.startswith("#") else line for line in lines if line)


def _digest_of(path: Path, contents: Callable[[list[str]], bytes]) -> bytes:
    named, digest = _names(path), hashlib.sha256()
    waiting: list[Any] = [_tree(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            digest.update(f"list {len(node)}".encode())
            waiting += reversed(node)
        elif node in named:
            digest.update(b"named" + contents(named[node]))
            aliases = getattr(node, "names", ())
            digest.update(repr([alias.asname or alias.name for alias in aliases]).encode())
        elif isinstance(node, ast.AST):
            fields = list(ast.iter_fields(node))
            digest.update(f"{type(node).__name__}{[name for name, _ in fields]}".encode())
            waiting += (value for _, value in reversed(fields))
        else:
            digest.update(repr(node).encode())
    return digest.digest()
