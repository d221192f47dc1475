"""Hook of MkDocs: pages that have their source elsewhere in the repository.

CONTRIBUTING.md and CHANGELOG.md stand in the root, where visitors look for them; each package of
`voxmill/` gets a page of the docstrings of its modules.
"""

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
FROM_ROOT = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def modules_of_packages():
    """Names of the modules of each package of `voxmill/`, by the package's name."""
    modules = {}
    for path in sorted((ROOT / "voxmill").glob("*/*.py")):
        names = modules.setdefault(path.parent.name, [])
        if path.stem != "__main__":
            names.append("" if path.stem == "__init__" else f".{path.stem}")
    return modules


def on_config(config):
    """Name the packages' pages in the navigation."""
    pages = [{name: f"api/{name}.md"} for name in modules_of_packages()]
    for section in config.nav:
        if "Library" in section:
            section["Library"] = pages
    return config


def on_files(files, config):
    """Add the pages; links of the root's pages into docs/ become links beside them."""
    for page, source in FROM_ROOT.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    for name, modules in modules_of_packages().items():
        parts = [f"# voxmill.{name}", *(f"::: voxmill.{name}{module}" for module in modules)]
        files.append(File.generated(config, f"api/{name}.md", content="\n\n".join(parts) + "\n"))
    return files
