"""A bit flipped in, a truncation of, and a foreign file in place of each product of a run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.everything import FILES, TARGETS, make_everything
from tests.faults.runs import environment, is_hidden
from voxmill.checking.check import check_run
from voxmill.checking.products import Broken, check, products
from voxmill.engine.build import compiler
from voxmill.runtime.checked import CHECKSUM
from voxmill.workflow.damaged import set_damaged_aside, written_last

NAMES = ("v", "made", "study_sub-01", "study_sub-02", "study", "training/mine")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace(path):
    path.write_bytes(b"id,z_vox,y_vox,x_vox\n1,2,3,4\n")


FAULTS = {"flip": flip, "cut": cut, "foreign": replace}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A run with every kind of product; tests work on copies, or leave it as it was."""
    if compiler() is None:
        pytest.skip("no C++ compiler for labels")
    project = make_everything(tmp_path_factory.mktemp("everything") / "project")
    project.snakemake(*TARGETS, *FILES)
    return project


@pytest.fixture(params=["finished", pytest.param("everything", marks=pytest.mark.slow)])
def inside(request, monkeypatch):
    """A finished run as the working folder: of predictions, or with every kind of product."""
    project = request.getfixturevalue(request.param)
    monkeypatch.chdir(project.folder)
    return request.param == "everything"


@pytest.fixture(params=FAULTS)
def fault(request):
    return FAULTS[request.param]


class Damaged:
    """A file that is damaged, and as it was afterwards, by its date too."""

    def __init__(self, path, fault):
        self.path, self.fault = path, fault

    def __enter__(self):
        # A folder that is one product: any of its files.
        files = [self.path]
        if self.path.is_dir():
            files = [p for p in sorted(self.path.rglob("*")) if p.is_file() and p.name[0] != "."]
        self.file = files[0]
        self.date, self.content = self.file.stat().st_mtime_ns, self.file.read_bytes()
        self.fault(self.file)

    def __exit__(self, *_):
        self.file.write_bytes(self.content)
        os.utime(self.file, ns=(self.date, self.date))


def test_every_file_of_a_run_has_a_checksum(inside):
    """A new product without one fails here: give its job `outputs=` or a checked file."""
    found = check_run(["results"])
    assert (found.broken, [str(path) for path in found.unchecked], found.missing) == ([], [], [])
    assert found.whole > (60 if inside else 25)


def test_check_sees_a_fault_in_each_product(inside, fault):
    missed = []
    for path in products(Path("results")):
        with Damaged(path, fault):
            outcome = check(path)
        if not isinstance(outcome, Broken) or path not in outcome.remove:
            missed.append(path)
        assert check(path) is None
    assert missed == []


def test_check_sees_a_fault_in_each_shard(inside, fault):
    shards = [path for path in Path("results").rglob("*.ome.zarr/*/c/*/*/*") if path.is_file()]
    images = {"probability.ome.zarr"} | ({"labels.ome.zarr"} if inside else set())
    assert {path.parts[3] for path in shards} == images
    for path in shards:
        with Damaged(path, fault):
            broken = check_run(["results/v/identity"]).broken
        assert any(path in item.remove for item in broken), path


def test_check_sees_a_fault_in_each_receipt(inside, fault):
    receipts = [path for path in Path("results").rglob("*.json") if ".made" in path.parts]
    assert len(receipts) > (50 if inside else 15)
    for path in receipts:
        root = path.parents[len(path.parts) - 1 - path.parts.index(".made")]
        vouched = root / path.relative_to(root / ".made").with_suffix("")
        with Damaged(path, fault):
            assert isinstance(check(vouched), Broken), path


# Lists that a later job reads: it refuses them, by name. What no job reads again is left to
# `check`. All others are set aside when Snakemake starts, and are made anew.
REFUSED = {
    "predictions": "results/v/identity/predictions/z0000_y0000_x0012.json",
    "slabs": "results/v/identity/slabs/z0000.json",
}
READ_NO_MORE = {
    "tile": "results/v/tiles/z0000_y0000_x0012.tif",
    "shard": "results/v/identity/probability.ome.zarr/0/c/0/0/1",
    "labels": "results/v/identity/labels.ome.zarr/0/c/0/0/1",
}


def contents(project):
    """Content of every visible file of the results, but for what a machine took for it."""
    results = project.folder / "results"
    return {
        path.relative_to(project.folder).as_posix(): _comparable(path)
        for path in results.rglob("*")
        if path.is_file() and not is_hidden(path.relative_to(results).as_posix())
    }


def _comparable(path):
    if path.suffix == ".csv":
        header, *lines = path.read_text().splitlines()
        names = header.split(",")
        if "seconds" in names:
            place = names.index("seconds")
            return [line.split(",")[:place] + line.split(",")[place + 1 :] for line in lines]
    if path.suffix == ".json" and "seconds" in path.read_text():
        return _of_any_machine(json.loads(path.read_text()))
    # Derivatives name the folder of their scans: in a copy it is that of the original, or its own.
    return re.sub(rb'"file://[^"]*/raw"', b"", path.read_bytes())


def _of_any_machine(content):
    if isinstance(content, list):
        return [_of_any_machine(item) for item in content]
    if isinstance(content, dict):
        of_the_machine = {"seconds", "peak_bytes", CHECKSUM}
        return {
            key: _of_any_machine(value)
            for key, value in content.items()
            if key not in of_the_machine
        }
    return content


def rerun(project, ok=True):
    return project.snakemake("--rerun-incomplete", *TARGETS, *FILES, ok=ok)


def repaired(project):
    """What `python -m voxmill repair` and the run after it leave."""
    subprocess.run(
        [sys.executable, "-m", "voxmill", "repair"], cwd=project.folder, check=True,
        env=environment(), capture_output=True,
    )  # fmt: skip
    rerun(project)
    return contents(project)


@pytest.fixture
def copied(everything, tmp_path, monkeypatch):
    project = everything.copy(tmp_path / "project")
    monkeypatch.chdir(project.folder)
    return project


@pytest.mark.slow
def test_each_damaged_product_is_made_anew(copied, everything, fault):
    """All but one of the files at once: each is named, and each comes back as it was."""
    others = {*REFUSED.values(), *READ_NO_MORE.values()}
    damaged = [
        path
        for path in map(str, products(Path("results")))
        if path not in others and Path(path).parent.name not in ("tiles", "predictions", "slabs")
    ]
    # What is written last goes with the first damaged file of its folder, and without a word.
    gone_with = {str(written_last(Path(path))) for path in damaged}
    for path in damaged:
        Damaged(Path(path), fault).__enter__()
    said = rerun(copied)
    assert {path for path in damaged if f"{path}: " not in said} <= gone_with
    assert contents(copied) == contents(everything)
    assert set_damaged_aside(NAMES) == []


@pytest.mark.slow
@pytest.mark.parametrize("product", REFUSED)
def test_a_damaged_list_is_refused_by_name_and_repaired(copied, everything, product, fault):
    path = Path(REFUSED[product])
    fault(path)
    said = rerun(copied, ok=False)
    assert path.name in said and "run again" in said
    assert repaired(copied) == contents(everything)


@pytest.mark.slow
@pytest.mark.parametrize("product", READ_NO_MORE)
def test_what_no_job_reads_again_is_seen_by_check_and_repaired(copied, everything, product, fault):
    path = Path(READ_NO_MORE[product])
    fault(path)
    rerun(copied)
    here, there = contents(copied), contents(everything)
    # No other product is touched by it.
    assert [name for name in there if here.get(name) != there[name]] == [str(path)]
    assert repaired(copied) == there


@pytest.mark.parametrize(
    "fault", ["flip", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cut", "foreign"))]
)
def test_a_damaged_table_is_made_anew(fault, project):
    """In short: one product of a run of predictions alone."""
    path = project.path("v/identity/cells.csv")
    before = path.read_bytes()
    FAULTS[fault](path)
    said = project.snakemake("cells")
    assert "results/v/identity/cells.csv: damaged, edited or of another run" in said
    assert path.read_bytes() == before
