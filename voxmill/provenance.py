"""Digests of the library modules that a rule depends on.

Snakemake notices an edited script, not an edited module that the script imports. Rules carry
`params: code=source_digest("voxmill.cutting")`; an edit changes the digest and reruns the rule.
"""

import ast
import functools
import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "voxmill"
# Sources that a package compiles belong to each of its modules.
NATIVE_SUFFIXES = {".cpp", ".hpp", ".h", ".cu"}


@functools.cache
def source_digest(*modules: str) -> str:
    """Digest of the sources of modules and of all voxmill modules that they import.

    Imports are followed in the syntax tree, those inside functions too; nothing is executed.

    Parameters
    ----------
    modules : str
        Full names such as "voxmill.cutting".

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    ModuleNotFoundError
        If a named module has no source file.
    """
    digest = hashlib.sha256()
    for path in sorted(set().union(*(_closure(module) for module in modules))):
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


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
                seen.update(p for p in path.parent.rglob("*") if p.suffix in NATIVE_SUFFIXES)
    return seen


def _source(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def _imports(path: Path) -> frozenset[Path]:
    names: set[str] = set()
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names.add(".".join(base))
            names.update(".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Constant) and str(node.value).startswith(f"{PACKAGE}."):
            # Registries name the modules that they import lazily as text.
            names.add(str(node.value))
    # An import of a module runs the packages above it, so these count too.
    names.update(name.rpartition(".")[0] for name in tuple(names))
    found = (_source(name) for name in names if name.split(".")[0] == PACKAGE)
    return frozenset(p for p in found if p is not None)
