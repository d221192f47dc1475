"""Mutated files of every kind: each is read, or refused by voxmill's own error.

Never a traceback, a crash, more than ten seconds or a gigabyte. `make fuzz` draws other cases
than CI does; CASES of the environment says how many.
"""

import json
import os
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import subjects
from tests.fuzz.mutations import LONG, VALUES, changed, edited, edits, json_text, value_edits
from tests.fuzz.watchdog import outcome
from voxmill.runtime.checked import CHECKSUM, write_checked_json

CASES = int(os.environ.get("VOXMILL_FUZZ_CASES", 0))


def cases(number):
    """As many examples in CI, always the same; with VOXMILL_FUZZ_CASES others and more."""
    return settings(
        max_examples=CASES or number, derandomize=not CASES, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def volumes(folder):
    (folder / "whole").mkdir()
    found = subjects.volumes(folder / "whole")
    return [(p, p.read_bytes(), subjects.header_bytes(p)) for p in found.values()]


def of(kind, files):
    return [file for file in files if kind in file[0].name]


@pytest.mark.parametrize(("kind", "number"), [(".tif", 250), (".nii", 150), (".h5", 60)])
def test_volumes(kind, number, folder, volumes):
    chosen = of(kind, volumes) + (of(".ims", volumes) if kind == ".h5" else [])

    @cases(number)
    @given(st.integers(0, len(chosen) - 1), edits())
    def check(index, changes):
        path, content, hot = chosen[index]
        mutated = folder / f"mutated{''.join(path.suffixes)}"
        mutated.write_bytes(edited(content, hot, changes))
        outcome(subjects.read_volume, mutated)

    check()


def test_scans(folder, volumes):
    plain = [file for file in of(".nii", volumes) if not file[0].name.endswith(".gz")]

    @cases(100)
    @given(st.integers(0, len(plain) - 1), st.booleans(), edits())
    def check(index, packed, changes):
        _, content, hot = plain[index]
        content = edited(content, hot, changes)
        path = folder / ("scan.nii.gz" if packed else "scan.nii")
        if packed:
            subjects.packed_nifti(path, content)
        else:
            path.write_bytes(content)
        outcome(subjects.read_scan, path)
        outcome(subjects.read_volume, path)

    check()


def test_ome_xml(folder):
    values = [re.escape(v) for v in dict.fromkeys(re.findall(r'"([^"]*)"', subjects.OME))]
    bad = ["", "0", "-1", "nan", "inf", "1e400", "99999999999", "a", LONG, "&#0;", "&amp;", "<"]

    @cases(80)
    @given(st.lists(st.tuples(st.sampled_from(values), st.sampled_from(bad)), max_size=3), edits())
    def check(replaced, changes):
        text = subjects.OME
        for old, new in replaced:
            text = re.sub(f'"{old}"', lambda _, new=new: f'"{new}"', text, count=1)
        if not replaced:
            text = edited(text.encode(), [], changes).decode("utf-8", "ignore").replace("\0", "")
        outcome(subjects.read_volume, subjects.ome_xml(folder / "x.ome.tif", text))

    check()


def test_zarr_metadata(folder):
    stores = list(subjects.zarr_stores(folder).values())
    files = [p for s in stores for p in sorted(s.rglob("*")) if p.name.startswith((".z", "zarr."))]

    @cases(100)
    @given(st.integers(0, len(files) - 1), st.booleans(), value_edits(), edits())
    def check(index, as_json, values, changes):
        file = files[index]
        (store,) = [store for store in stores if store in file.parents]
        copy = subjects.copy_store(store, folder / "mutated.zarr")
        mutated = copy / file.relative_to(store)
        if as_json:
            mutated.write_text(json_text(changed(json.loads(file.read_text()), values)))
        else:
            mutated.write_bytes(edited(file.read_bytes(), [], changes))
        outcome(subjects.read_volume, copy)

    check()


def test_weights(folder):
    path = subjects.write_model(folder)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])

    @cases(100)
    @given(st.booleans(), value_edits(), edits())
    def check(as_json, values, changes):
        if as_json:
            text = json_text(changed(header, values)).encode()
            mutated = len(text).to_bytes(8, "little") + text + content[8 + length :]
        else:
            mutated = edited(content, list(range(8 + length)), changes)
        path.write_bytes(mutated)
        subjects.new_digest(path)
        outcome(subjects.read_model, path)

    check()


def test_cards(folder):
    path = subjects.write_model(folder)
    card = json.loads(path.with_suffix(".json").read_text())

    @cases(120)
    @given(value_edits())
    def check(values):
        path.with_suffix(".json").write_text(json_text(changed(card, values)))
        outcome(subjects.read_model, path)

    check()


def test_configurations(folder, monkeypatch):
    monkeypatch.chdir(subjects.ROOT)

    @cases(150)
    @given(value_edits(), st.booleans(), edits())
    def check(values, as_json, changes):
        path = folder / "my.yaml"
        # JSON is YAML too.
        text = json_text(changed(subjects.CONFIGURATION, values), depth=2000)
        path.write_bytes(text.encode() if as_json else edited(text.encode(), [], changes))
        outcome(subjects.read_configuration, path)

    check()


@pytest.mark.parametrize("name", [*subjects.TABLES, "markers", "cells"])
def test_tables(name, folder):
    text = subjects.TABLES.get(name)
    reader, suffix = subjects.read_table, ".csv"
    if name == "markers":
        text, suffix = subjects.MARKERS, ".xml"
    elif name == "cells":
        text, reader = subjects.CELLS, subjects.read_cells

    @cases(30)
    @given(edits(), st.sampled_from(["utf-8", "utf-16", "cp1252"]))
    def check(changes, encoding):
        path = folder / f"table{suffix}"
        path.write_bytes(edited(text.encode(encoding), [], changes))
        outcome(reader, path)

    check()


@pytest.mark.parametrize("name", subjects.JOB_FILES)
def test_files_of_jobs(name, tmp_path):
    subjects.job_files(tmp_path)
    path = tmp_path / name
    content = {k: v for k, v in json.loads(path.read_text()).items() if k != CHECKSUM}

    @cases(50)
    @given(value_edits(), st.booleans())
    def check(values, with_checksum):
        mutated = changed(content, values)
        if with_checksum and isinstance(mutated, dict):
            write_checked_json(path, mutated)
        else:
            path.write_text(json_text(mutated))
        outcome(subjects.JOB_FILES[name], path)

    check()


def test_tiles(folder):
    path = subjects.write_tile_file(folder / "tile.tif")
    content, hot = path.read_bytes(), subjects.header_bytes(path)
    start = content.index(b'{"')
    end = content.index(b"\0", start)
    description = json.loads(content[start:end])

    @cases(80)
    @given(st.booleans(), value_edits(), edits())
    def check(as_json, values, changes):
        text = json.dumps(changed(description, values)).encode()
        if as_json and len(text) <= end - start:
            mutated = content[:start] + text.ljust(end - start) + content[end:]
        else:
            mutated = edited(content, hot, changes)
        path.write_bytes(mutated)
        outcome(subjects.check_tile, path)

    check()


@pytest.mark.parametrize("name", subjects.FILE_READERS)
def test_what_is_no_file(name, folder):
    """A folder, nothing and paths that no system takes, in place of a file."""
    reader = subjects.FILE_READERS[name]
    base = folder / f"no {name}"
    base.mkdir()
    (base / "folder" / name).mkdir(parents=True)
    (base / "empty").mkdir()
    (base / "empty" / name).touch()
    (base / "circle").mkdir()
    (base / "circle" / name).symlink_to(name)
    for way in ("folder", "empty", "missing", "circle", "nul\0", "long" * 70):
        said = outcome(reader, base / way / name)
        assert said != "done", way


@pytest.mark.parametrize("name", ["truth.csv", "cells.csv"])
@pytest.mark.parametrize("line", ["first", "second"])
def test_a_line_of_millions_of_columns(name, line, folder):
    path = folder / name
    text = {"truth.csv": subjects.TABLES["csv"], "cells.csv": subjects.CELLS}[name]
    header, rest = text.split("\n", 1)
    many = "," * 3_000_000
    path.write_text(f"{header}{many}\n{rest}" if line == "first" else f"{header}\n{many}\n{rest}")
    assert outcome(subjects.FILE_READERS[name], path) != "done"


def test_values_of_mutations_are_of_every_kind():
    """The list that all cases draw from is not thinned out by accident."""
    assert {type(value) for value in VALUES} == {
        type(None), bool, int, float, str, list, dict,
    }  # fmt: skip
