"""What YAML, Snakemake and file systems take for something else; sizes that nothing can hold."""

import itertools
import math
import os
import time
import unicodedata

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from snakemake.io import WILDCARD_REGEX

from voxmill.config.files import check_files, check_text
from voxmill.config.networks import MSDNetSettings, check_settings
from voxmill.config.phantoms import PhantomSettings
from voxmill.config.scans import ScanPhantomSettings
from voxmill.config.settings import check
from voxmill.config.skip3d import Skip3DSettings
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.paths import advice
from voxmill.workflow.configuration import _check_number_of_tiles
from voxmill.workflow.configured_volume import Volume

VOLUME = {"path": "v.tif", "voxel_size_um": [2, 1, 1]}
NETWORKS = {"n": {"weights": "models/n.safetensors"}}


def configuration(**sections):
    return {"volumes": {"v": VOLUME}, "networks": NETWORKS} | sections


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {}\nb: {c: 1, d: 2, c: 3}\n", r"line 2: the key 'c' stands twice in b \(first in l"),
        (
            "volumes:\n  m1: {path: a}\n  m1: {path: b}\n",
            "line 3: the key 'm1' stands twice",
        ),
        ("a: 1\n'a': 2\n", "line 2: the key 'a' stands twice"),
        ("x: [{k: 1}, {k: 1, k: 2}]\n", "the key 'k' stands twice in x"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice"),
        ("[{q: 1, q: 2}]: 3\n", "the key 'q' stands twice"),
        ("a: 1:30\n", "line 1: .*YAML reads 1:30 as a number in base 60"),
        ("a: -1:30.5\n", "base 60"),
        ("a: [1, 010]\n", "YAML reads 010 as a number in base 8"),
        ("v:\n  0123: {}\n", "line 2: .*YAML reads 0123 as a number in base 8"),
        ("a: [1\n", "my.yaml: expected YAML, found while parsing"),
        ("[" * 3000, "my.yaml: "),
    ],
)
def test_what_yaml_would_drop_or_misread_is_refused(text, message):
    with pytest.raises(VoxmillError, match=message) as found:
        check_text(text, "my.yaml")
    assert str(found.value).startswith("my.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1\nb: {a: 1}\nc: [{a: 1}, {a: 1}]\n",
        "a: '010'\nb: \"1:30\"\nc: 0\nd: 0.5\ne: 0x10\nf: 1_000\ng: 00:30 h\n",
        "a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: *x\nf: &y [*y]\n",
        "__use_yte__: true\na: ?1 + 1\n",
        '{"a": {"b": 1}, "c": {"b": 1}}',
        "a: b\r\nc: d\r\n",
    ],
)
def test_files_that_mean_what_they_say(text, tmp_path):
    path = tmp_path / "my.yaml"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_bytes(text.encode(encoding))
        check_files([path])


KEYS = st.text("abc", min_size=1, max_size=2)


@given(st.recursive(st.integers(8, 99), lambda inner: st.dictionaries(KEYS, inner, max_size=3)))
def test_no_file_without_fault_is_refused(content):
    check_text(yaml.safe_dump(content), "my.yaml")


@given(st.lists(KEYS, min_size=1, max_size=6), st.booleans())
def test_exactly_the_doubled_keys_are_refused(keys, flow):
    text = "{" + ", ".join(f"{key}: 1" for key in keys) + "}"
    text = f"volumes: {text}\n" if flow else "".join(f"{key}: 1\n" for key in keys)
    if len(set(keys)) == len(keys):
        check_text(text, "my.yaml")
    else:
        with pytest.raises(VoxmillError, match="stands twice"):
            check_text(text, "my.yaml")


PATHS = [
    ("volumes.v.path", lambda path: configuration(volumes={"v": VOLUME | {"path": path}})),
    (
        "volumes.v.truth.path",
        lambda path: configuration(
            volumes={"v": VOLUME | {"truth": {"path": path, "kind": "points"}}}
        ),
    ),
    (
        "networks.n.weights",
        lambda path: configuration(networks={"n": {"weights": f"{path}.safetensors"}}),
    ),
    ("scans.s.path", lambda path: {"scans": {"s": {"path": f"{path}.nii"}}}),
    (
        "scans.s.mask",
        lambda path: {"scans": {"s": {"path": "s.nii", "mask": f"{path}.nii.gz"}}},
    ),
    ("scans.s.bids", lambda path: {"scans": {"s": {"bids": path}}}),
    (
        "training.t.volumes.w.mask",
        lambda path: {
            "training": {
                "t": {
                    "volumes": {"w": {"path": "w.tif", "truth": {"path": "t.csv"}, "mask": path}},
                    "settings": {"cell_diameter_um": 9},
                }
            }
        },
    ),
]


@pytest.mark.parametrize(("key", "make"), PATHS, ids=[key for key, _ in PATHS])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("{brain}_488", "Snakemake takes {brain} for a wildcard"),
        ("a/{A1}/v", "Snakemake takes {A1} for a wildcard"),
        ("{ x , .*}", "for a wildcard"),
        ("two\nlines", "in one line"),
        ("nul\0", "in one line"),
        ("tab\t", "in one line"),
        ("x" * 300, "at most 255 bytes"),
    ],
)
def test_paths_that_nothing_can_use_are_refused_by_name(key, make, path, words):
    with pytest.raises(VoxmillError) as found:
        check(make(path))
    assert f"config: {key}: " in str(found.value)
    assert words in str(found.value)
    assert len(str(found.value)) < 600


ODD = "Mäuse & 'B' [1] #2 100% $HOME/v (0)"


@pytest.mark.parametrize(("key", "make"), PATHS, ids=[key for key, _ in PATHS])
def test_odd_paths_are_taken_as_they_are(key, make):
    for path in (ODD, "~/x", "{A-1}", "{}", "a{", "b}", "../x//y/", "ü" * 100):
        assert check(make(path))


@given(st.text("{}a1.,_ -:", min_size=1, max_size=12))
def test_braces_are_refused_exactly_where_snakemake_sees_wildcards(path):
    content = configuration(volumes={"v": VOLUME | {"path": path}})
    if WILDCARD_REGEX.search(path):
        with pytest.raises(VoxmillError, match="wildcard"):
            check(content)
    else:
        check(content)


@pytest.mark.parametrize(
    ("scans", "volumes"),
    [(["mouse1"], ["mouse1"]), (["Mouse1"], ["mouse1"]), ([], ["a", "A"]), (["b", "B"], [])],
)
def test_names_of_which_two_become_one_folder(scans, volumes):
    content = configuration(
        volumes=dict.fromkeys(volumes, VOLUME), scans={name: {"path": "s.nii"} for name in scans}
    )
    with pytest.raises(VoxmillError, match="both would write to one folder"):
        check(content)


def test_a_volume_in_the_folder_of_the_trainings():
    training = {
        "t": {
            "volumes": {"w": {"path": "w.tif", "truth": {"path": "t.csv"}}},
            "settings": {"cell_diameter_um": 9},
        }
    }
    content = configuration(volumes={"training": VOLUME})
    assert check(content)
    with pytest.raises(VoxmillError, match=r"volumes\.training: expected a name of its own"):
        check(content | {"training": training})


@pytest.mark.parametrize("name", ["a\n", "x" * 300, "ü", "a/b", "..", "", "-a", "a b", "tile\0"])
def test_names_that_are_no_folders(name):
    for content in (
        configuration(volumes={name: VOLUME}),
        configuration(networks={name: NETWORKS["n"]}),
        {"scans": {name: {"path": "s.nii"}}},
    ):
        with pytest.raises(VoxmillError, match="expected a name"):
            check(content)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1,6", r"Write a decimal point: 1\.6"),
        ("5e-1", r"write 0\.5 without quotes"),
        ("'3'", "write 3 without quotes"),
        (".nan", "expected a number"),
        (".inf", "expected a number"),
        ("on", "expected a number"),
        ("2024-05-06", "expected a number"),
        ("3 um", "expected a number"),
    ],
)
def test_numbers_that_are_none(text, hint):
    cells = yaml.safe_load(f"min_distance_um: {text}")
    with pytest.raises(VoxmillError, match=rf"cells\.min_distance_um: .*{hint}"):
        check(configuration(cells=cells))


def large(shape):
    """A volume of a shape."""
    return Volume("v", shape, (1.0, 1.0, 1.0), 2, "f", "v.tif", {"path": "v.tif"}, True, ("n",))


HUGE = [10**9, 10**18, 10**400]


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize(
    "make",
    [
        lambda size: PhantomSettings(shape_vox=(size, 256, 256)),
        lambda size: PhantomSettings(shape_vox=(size, size, size)),
        lambda size: PhantomSettings(density_per_mm3=float(min(size, 10**300)) * 10),
        lambda size: PhantomSettings(fibres_per_mm3=float(min(size, 10**300)) * 10),
        lambda size: PhantomSettings(stubs_per_cell=float(min(size, 10**300))),
        lambda size: PhantomSettings(cell_diameter_um=float(min(size, 10**300))),
        lambda size: PhantomSettings(voxel_size_um=(float(min(size, 10**300)), 1, 1)),
        lambda size: PhantomSettings(blur_um=(float(min(size, 10**300)), 1, 1)),
        lambda size: PhantomSettings(signal_photons=float(min(size, 10**300)) * 10),
        lambda size: ScanPhantomSettings(shape_vox=(size, 64, 64)),
        lambda size: MSDNetSettings(depth=size),
        lambda size: MSDNetSettings(width=size),
        lambda size: MSDNetSettings(inputs=size * 10),
        lambda size: MSDNetSettings(outputs=size * 10),
        lambda size: MSDNetSettings(dilations=(1, size)),
        lambda size: Skip3DSettings(inputs=size),
        lambda size: Skip3DSettings(down=(size,) * 5),
        lambda size: Skip3DSettings(up_kernel=size + 1),
        lambda size: check_settings("exported", {"halo_vox": size, "bytes_per_voxel": 9}),
        lambda size: _check_number_of_tiles("v", large((min(size, 10**18),) * 3), (1, 1, 1), "c"),
    ],
)  # fmt: skip
def test_absurd_sizes_are_refused_by_arithmetic(make, size):
    start = time.perf_counter()
    with pytest.raises(VoxmillError) as found:
        make(size)
    assert time.perf_counter() - start < 1
    assert "expected at most" in str(found.value) or "at most" in str(found.value)
    assert len(str(found.value)) < 700


def test_sizes_that_people_use_are_none_of_these():
    PhantomSettings(shape_vox=(1000, 2000, 2000))
    PhantomSettings(shape_vox=(8, 8, 8), voxel_size_um=(0.1, 0.1, 0.1))
    ScanPhantomSettings(shape_vox=(512, 512, 512), voxel_size_mm=0.4)
    MSDNetSettings(depth=500, width=4)
    Skip3DSettings(down=(512,) * 6, up=(512,) * 6, skip=(64,) * 6)
    _check_number_of_tiles("v", large((5000, 10_000, 10_000)), (96, 128, 128), "config")


def test_parameters_are_counted_as_they_are_stored():
    for depth, width, inputs, outputs in itertools.product((1, 2, 7), (1, 3), (1, 2), (1, 2)):
        settings = MSDNetSettings(depth=depth, width=width, inputs=inputs, outputs=outputs)
        sizes = map(math.prod, settings.tensor_shapes().values())
        assert settings.parameter_count() == sum(sizes)


def test_advice_about_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    (tmp_path / "Brain_488.tif").touch()
    (tmp_path / unicodedata.normalize("NFD", "Mäuse")).mkdir()
    assert "/home/me/v.tif" in advice("~/v.tif")
    assert "/data/v.tif" in advice("$DATA/v.tif") and "/data/v.tif" in advice("${DATA}/v.tif")
    assert "not expanded" in advice("$NOWHERE/v.tif")
    assert advice("file:///data/v.tif").endswith("alone, /data/v.tif.")
    assert "Windows" in advice("C:\\data\\v.tif") and "Windows" in advice("data\\v.tif")
    assert "blanks" in advice(" v.tif")
    assert "Did you mean Brain_488.tif?" in advice("brain_488.TIF")
    assert "Did you mean Brain_488.tif?" in advice("Brain_48.tif")
    assert unicodedata.normalize("NFD", "Mäuse") in advice("Mäuse/v.tif")
    assert str(tmp_path) in advice("elsewhere/x.csv")
    assert advice(os.path.abspath("elsewhere/x.csv")) == "Correct its path."
