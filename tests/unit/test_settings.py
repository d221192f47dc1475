"""Definitions of settings: what follows from them is in step, and every refusal names its key."""

import dataclasses
import datetime
import json
import math
import os
import subprocess
import sys
from typing import Any, get_args, get_type_hints

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.workflow.conftest import ROOT
from voxmill.config import __main__ as command
from voxmill.config import volumes
from voxmill.config.base import SECTIONS, SettingError
from voxmill.config.baseline import DogSettings
from voxmill.config.cells import CellSettings, CellsSection
from voxmill.config.denoising import DenoiseSettings
from voxmill.config.evaluation import EvaluationSettings
from voxmill.config.messages import phrase
from voxmill.config.networks import NETWORK_SETTINGS, MSDNetSettings, NetworkKind
from voxmill.config.page import page_text
from voxmill.config.phantoms import PhantomSettings
from voxmill.config.prediction import PredictionSettings
from voxmill.config.schema import descriptions, schema_of, schema_text
from voxmill.config.settings import Settings, check
from voxmill.config.tiles import HaloSettings, TilesSection
from voxmill.config.training import Augmentation, TrainedNetwork, TrainingSettings
from voxmill.config.volumes import GroundTruthSection
from voxmill.runtime.errors import VoxmillError

SCHEMA = schema_of(Settings)


def choices(cls: type, key: str) -> set[str]:
    """The names that a setting may have, of all its alternatives."""
    return {name for name in _flat(get_type_hints(cls)[key]) if isinstance(name, str)}


def _flat(hint) -> list:
    parts = get_args(hint)
    return [leaf for part in parts for leaf in _flat(part)] if parts else [hint]


def configuration(key: str = "", value: Any = None) -> dict:
    """A small configuration with one value put at a dotted key."""
    truth = {"path": "truth.csv", "kind": "points"}
    content: dict = {
        "volumes": {"v": {"path": "v.tif", "truth": truth}},
        "networks": {"n": {"weights": "m.safetensors"}},
        "scans": {"s": {"path": "s.nii"}},
        "training": {
            "t": {
                "volumes": {"w": {"path": "w.tif", "truth": dict(truth)}},
                "settings": {"cell_diameter_um": 8},
            }
        },
    }
    *folders, last = key.split(".")
    place = content
    for name in folders:
        place = place.setdefault(name, {})
    if key:
        place[last] = value
    return content


def walk(schema: dict, path: tuple = ()):
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(part, (*path, name))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], (*path, "NAME"))


def test_the_written_files_are_in_step():
    assert not command.stale(), "run python -m voxmill.config schema, and page"


def test_the_command_writes_and_checks(tmp_path, monkeypatch):
    files = {"schema": (tmp_path / "s.yaml", schema_text), "page": (tmp_path / "p.md", page_text)}
    monkeypatch.setattr(command, "WRITTEN", files)
    command.main(["schema"])
    with pytest.raises(VoxmillError, match=r"p\.md: expected what the definitions .* say, found"):
        command.main(["check"])
    command.main(["page"])
    command.main(["check"])
    (tmp_path / "s.yaml").write_text("type: object\n")
    with pytest.raises(VoxmillError, match=r"s\.yaml"):
        command.main(["check"])


def test_every_key_is_described_and_unknown_ones_are_refused():
    for path, part in walk(SCHEMA):
        assert part.get("description"), path
        if "properties" in part:
            assert part["additionalProperties"] is False, path


@pytest.mark.parametrize("cls", SECTIONS.values(), ids=lambda cls: cls.__name__)
def test_every_setting_of_every_class_has_a_docstring(cls):
    assert set(descriptions(cls)) == {field.name for field in dataclasses.fields(cls)}


def test_every_key_stands_on_the_page():
    page = page_text(Settings)
    for path, part in walk(SCHEMA):
        mapping = isinstance(part.get("additionalProperties"), dict)
        if path and path[-1] != "NAME" and "properties" not in part and not mapping:
            assert f"| `{path[-1]}` |" in page, path
        if "properties" in part and path:
            assert f"`{'.'.join(path)}`" in page, path


def test_the_example_configuration_is_valid_for_the_schema_and_the_definitions():
    content = yaml.safe_load((ROOT / "config.yaml").read_text())
    written = yaml.safe_load(command.WRITTEN["schema"][0].read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(written)
    checked = check(content, "config.yaml")
    assert set(checked) == set(written["properties"])
    for settings in (content, json.loads(json.dumps(checked)), configuration()):
        jsonschema.validate(settings, written, jsonschema.Draft202012Validator)
    # What was checked is valid, and changes no more.
    assert check(checked) == checked


def test_the_example_configuration_shows_every_key_of_its_sections():
    content = yaml.safe_load((ROOT / "config.yaml").read_text())
    for name in ("prediction", "stitching", "cells", "evaluation"):
        assert set(content[name]) == set(SCHEMA["properties"][name]["properties"]), name


def test_the_names_are_those_of_the_registries():
    from voxmill.cells.find_cells import METHODS
    from voxmill.engine.backends import BACKENDS
    from voxmill.evaluation.ground_truth import TABLE_SUFFIXES, TRUTH
    from voxmill.networks import NETWORKS
    from voxmill.runtime.devices import DEVICES

    assert choices(CellSettings, "method") == set(METHODS)
    assert choices(CellsSection, "method") == {"model", *METHODS}
    assert choices(PredictionSettings, "backend") == {"auto", *BACKENDS}
    assert choices(PredictionSettings, "device") == set(DEVICES)
    assert choices(TrainingSettings, "device") == set(DEVICES)
    precisions = {name for backend in BACKENDS.values() for name in backend.precisions}
    assert choices(PredictionSettings, "precision") == precisions
    assert choices(GroundTruthSection, "kind") == set(TRUTH)
    assert set(volumes.TABLE_SUFFIXES) == set(TABLE_SUFFIXES)
    assert set(get_args(NetworkKind)) == set(NETWORKS) == set(NETWORK_SETTINGS)
    assert choices(TrainedNetwork, "kind") <= set(NETWORKS)


def test_the_choices_of_a_training_are_those_of_its_tables():
    from voxmill.config.training import ROTATIONS

    assert choices(Augmentation, "rotate") == set(ROTATIONS)


def test_one_default_for_the_tolerance_of_the_halo():
    assert HaloSettings().tolerance == TilesSection().halo_tolerance


def test_sections_are_values():
    settings = CellSettings("components", 0.25)
    assert (settings.method, settings.threshold) == ("components", 0.25)
    assert settings == CellSettings(threshold=0.25, method="components")
    assert {settings: 1}[dataclasses.replace(CellSettings("components"), threshold=0.25)] == 1
    assert CellSettings(**dataclasses.asdict(settings)) == settings
    assert MSDNetSettings(dilations=[1, 2]).dilations == (1, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.threshold = 0.5
    with pytest.raises(SettingError, match=r"cells\.threshold: expected .*found 2"):
        dataclasses.replace(settings, threshold=2)


def test_plain_settings_are_json_without_what_is_not_given():
    plain = check(configuration())
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain["volumes"]["v"]) == {"path", "truth", "model_voxel_size", "tissue"}
    # Kept as given: a model to start from fills what is left out.
    assert plain["training"]["t"]["settings"] == {"cell_diameter_um": 8}
    assert plain["denoising"]["stop"]["rule"] == "held_out"


@pytest.mark.parametrize("key", ["tiles", "cells", "scans", "denoising", "denoising.network"])
def test_an_empty_section_means_its_defaults(key):
    assert check(configuration(key)) == check(configuration(key, {}))


WRONG = [
    ("volumes.v.phantom", {"sed": 1}, r"volumes\.v\.phantom: unknown key 'sed'; did you mean 'se"),
    ("volumes.v", {"phantom": {"seed": -1}}, r"volumes\.v\.phantom\.seed: expected an integer >="),
    ("volumes.v.truth", None, r"volumes\.v\.truth\.path: missing: expected text"),
    ("volumes.v.truth", {"path": "t.tif"}, r"volumes\.v\.truth\.kind: missing: .*expected voxels"),
    ("volumes.v.channel", "1", r"volumes\.v\.channel: .*found '1'.*write 1 without quotes"),
    ("volumes.v.networks", [1], r"volumes\.v\.networks: .*put it in quotes"),
    ("volumes.v.networks", ["n", "n"], r"volumes\.v\.networks: expected each network once"),
    ("networks.n", None, r"networks\.n\.weights: missing: expected a file name that ends with"),
    ("networks.n.weights", 5, r"networks\.n\.weights: expected .*found 5\. .*put it in quotes"),
    ("tiles", [1], r"tiles: expected keys with values, found \[1\]"),
    ("tiles", {1: 2}, r"tiles: unknown key 1; the known ones are"),
    ("tiles.halo_vox", True, r"tiles\.halo_vox: expected an integer .*found True"),
    ("tiles.halo_tolerance", "5e-1", r"tiles\.halo_tolerance: .*found '5e-1'.* write 0\.5 with"),
    ("tiles.halo_tolerance", math.nan, r"tiles\.halo_tolerance: expected a number .*found nan"),
    ("cells.min_distance_um", math.inf, r"cells\.min_distance_um: expected a num.*found inf"),
    ("cells.smoothing_um", True, r"cells\.smoothing_um: expected a number >= 0, found True"),
    ("cells.method", False, r"cells\.method: expected one of model, .*found False\. YAML reads it"),
    ("prediction.backend", "fast", r"prediction\.backend: expected one of auto, .*found 'fast'"),
    ("prediction.flips", 1, r"prediction\.flips: expected true or false, found 1"),
    ("evaluation.distances_um", [], r"evaluation\.distances_um: expected one or more numbers"),
    ("evaluation.distances_um", [1, "2e0"], r"distances_um: .*found \[1, '2e0'\]\. .*write 2"),
    ("training.t.settings", {}, r"training\.t\.settings\.cell_diameter_um: missing"),
    ("training.t.settings.step", 3, r"training\.t\.settings: unknown key 'step'; did you mean"),
    ("training.t.settings.steps", 0.5, r"training\.t\.settings\.steps: expected an integer >= 1"),
    ("training.t.settings.network", {"depht": 1}, r"t\.settings\.network: unknown key 'depht'; di"),
    ("training.t.settings.network", {"kind": "exported"}, r"t\.settings\.network\.kind: expected"),
    (
        "training.t.settings.detector",
        {"method": "x"},
        r"t\.settings\.detector\.method: expected one",
    ),
    (
        "training.t.settings.detector",
        {"threshold": 0.5},
        r"settings\.detector\.threshold: it is chose",
    ),
    ("training.t.settings.augmentation", {"scale": -1}, r"settings\.augmentation\.scale: expected"),
    ("training.t.settings.normalisation", {"low": "5"}, r"settings\.normalisation\.low: .*write 5"),
    ("training.t.settings.patch_vox", [8, 9, 9], r"settings\.patch_vox: expected more than twice"),
    ("training.t.volumes", {}, r"training\.t\.volumes: expected .*found \{\}"),
    ("training.t.volumes.w.validation", 1, r"training\.t\.volumes\.w\.validation: expected true"),
    ("training.t.start", "m.pt2", r"training\.t\.start: expected a file name that ends with"),
    ("scans.s.bids", "study", r"scans\.s: expected one of .*found \['path', 'bids'\]"),
    ("scans.s.reference", "r.tif", r"scans\.s\.reference: expected a NIfTI file"),
    ("denoising.network", 5, r"denoising\.network: expected keys with values, found 5"),
    ("denoising.network.up_kernel", 2, r"denoising\.network\.up_kernel: expected an odd integer"),
    ("denoising.network.down", [4], r"denoising\.network\.down, up, skip: expected one number"),
    ("denoising.stop.fraction", 0, r"denoising\.stop\.fraction: expected a .*or auto, found 0"),
    ("denoising.devices", ["gpu"], r"denoising\.devices: expected a list, each auto, cpu, cuda"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG)
def test_a_wrong_value_is_named_by_its_whole_key(key, value, message):
    with pytest.raises(SettingError, match=rf"\Aconfig: [^\n]*{message}[^\n]*\Z"):
        check(configuration(key, value))


@pytest.mark.parametrize("section", ["volumes", "networks", "scans", "training"])
@pytest.mark.parametrize("name", ["a\n", "a b", "a/b", "", "-a", "ü", "a" * 101])
def test_names_that_are_no_file_names_are_refused(section, name):
    content = configuration()
    content[section][name] = next(iter(content[section].values()))
    with pytest.raises(SettingError, match=rf"config: {section}: expected a name of at most 100"):
        check(content)


@pytest.mark.parametrize(
    ("name", "kind"), [(1, "number"), (True, "truth value"), (datetime.date(2026, 1, 1), "date")]
)
def test_names_that_yaml_reads_as_something_else_belong_in_quotes(name, kind):
    content = configuration()
    content["volumes"][name] = content["volumes"]["v"]
    with pytest.raises(SettingError, match=rf"volumes: .*YAML reads it as a {kind}: put it in qu"):
        check(content)


def test_a_name_of_100_letters_is_none_too_many():
    content = configuration()
    content["volumes"]["a" * 100] = content["volumes"].pop("v")
    assert list(check(content)["volumes"]) == ["a" * 100]


@pytest.mark.parametrize("content", [None, 5, "text", [1]])
def test_a_configuration_that_is_no_mapping(content):
    with pytest.raises(SettingError, match="config: expected keys with values, found"):
        check(content)


LEAVES = [(path, part) for path, part in walk(SCHEMA) if part.get("type") in ("number", "integer")]


@given(st.sampled_from(LEAVES), st.sampled_from([True, math.nan, math.inf, "1", "x", None, [], {}]))
def test_no_number_takes_anything_else(leaf, value):
    path, part = leaf
    names = {"volumes": "v", "networks": "n", "scans": "s", "training": "t"}
    keys = [names[path[0]] if key == "NAME" and i == 1 else key for i, key in enumerate(path)]
    keys = ["w" if key == "NAME" else key for key in keys]
    optional = value is None and "default" not in part
    content = configuration(".".join(keys), value)
    for kind in ("volumes", "scans"):
        for entry in content[kind].values():
            if "phantom" in entry:
                entry.pop("path")
    if optional:
        return
    with pytest.raises(SettingError, match=keys[-1]):
        check(content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PhantomSettings(shape_vox=5), r"phantom\.shape_vox: expected three integers >= 8"),
        (lambda: DogSettings(), r"dog\.cell_diameter_um: missing: expected a number > 0"),
        (lambda: EvaluationSettings(region="all"), r"evaluation\.region: expected a box"),
        (lambda: DenoiseSettings(input="scan"), r"denoising\.mask_fraction: expected more than 0"),
        (lambda: CellSettings(treshold=1), r"cells: unknown key 'treshold'; did you mean 'thr"),
    ],
)
def test_a_constructor_names_the_setting(make, message):
    with pytest.raises(SettingError, match=message):
        make()


def test_a_long_value_is_cut_short():
    with pytest.raises(SettingError) as caught:
        CellSettings(method="x" * 10_000)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "number", "minimum": 0, "maximum": 1}, "a number from 0 to 1"),
        ({"anyOf": [{"type": "integer"}, {"const": "auto"}]}, "an integer, or auto"),
        ({"type": "array", "items": {"type": "number"}, "minItems": 1}, "one or more numbers"),
        ({"enum": ["a", "b"]}, "one of a, b"),
        ({"type": "string", "expected": "a colour"}, "a colour"),
    ],
)
def test_words_for_what_is_expected(schema, words):
    assert phrase(schema) == words


def test_settings_load_neither_torch_nor_numpy():
    code = (
        "import sys, voxmill.config.settings; print({'torch', 'numpy', 'yaml'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.stdout.strip() == "set()"


def test_words_of_an_error_rerun_no_job():
    from voxmill.runtime.digests import modules_used

    used = modules_used("voxmill.prediction.predictor")
    own = {path for path in used if path.startswith("voxmill/config/")}
    assert "voxmill/config/prediction.py" in own
    assert not own & {f"voxmill/config/{name}.py" for name in ("messages", "schema", "settings")}
