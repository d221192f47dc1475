"""The file of a plan, and what is said of broken ones."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxmill.geometry import Box
from voxmill.runtime.checked import json_checksum
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import write_json
from voxmill.tiles.plan import Plan, PlannedVolume, read_plan, write_plan

VOLUME = PlannedVolume((2, 3, 5), "uint16", (2.0, 1.0, 0.5))
PLAN = Plan(VOLUME, "fingerprint", (2, 3, 3), (1, 0, 2))
CONTENT = {
    "fingerprint": "fingerprint",
    "halo_vox": [1, 0, 2],
    "source": {"dtype": "uint16", "shape": [2, 3, 5], "voxel_size_um": [2.0, 1.0, 0.5]},
    "tile_shape_vox": [2, 3, 3],
}


def test_tiles_are_computed_with_keys_that_no_later_version_may_change():
    assert [(tile.name, tile.key) for tile in PLAN.tiles] == [
        ("z0000_y0000_x0000", "a660686dc100c4b2"),
        ("z0000_y0000_x0003", "390022360fcab732"),
    ]
    assert [tile.core for tile in PLAN.tiles] == [
        Box((0, 0, 0), (2, 3, 3)), Box((0, 0, 3), (2, 3, 5))
    ]  # fmt: skip
    assert [tile.window for tile in PLAN.tiles] == [
        Box((0, 0, 0), (2, 3, 5)), Box((0, 0, 1), (2, 3, 5))
    ]  # fmt: skip


def test_a_plan_holds_the_grid_alone_with_a_checksum(tmp_path):
    write_plan(tmp_path / "plan.json", PLAN)
    text = (tmp_path / "plan.json").read_text()
    content = CONTENT | {"checksum": json_checksum(CONTENT)}
    assert text == json.dumps(content, indent=1, sort_keys=True) + "\n"
    assert read_plan(tmp_path / "plan.json") == PLAN


def test_a_plan_that_was_edited_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    write_plan(path, PLAN)
    path.write_text(path.read_text().replace('"fingerprint": "f', '"fingerprint": "F'))
    with pytest.raises(VoxmillError, match=r"plan\.json: damaged or edited.*again"):
        read_plan(path)


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 10)] * 3),
    st.tuples(*[st.integers(0, 4)] * 3),
)
def test_a_plan_is_read_as_it_was_written(tmp_path_factory, shape, tile_shape, halo):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    plan = Plan(PlannedVolume(shape, "uint8", (1.0, 1.0, 1.0)), "f", tile_shape, halo)
    write_plan(path, plan)
    assert read_plan(path) == plan
    assert all(plan.tile(tile.name) == tile for tile in plan.tiles)
    assert [tile for slab in plan.grid.slabs for tile in plan.slab(slab)] == list(plan.tiles)


def changed(*path, value=None):
    """The content with the value at a path of keys changed, or taken away."""
    content = json.loads(json.dumps(CONTENT))
    *parents, last = path
    inner = content
    for key in parents:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return content


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (changed("halo_vox"), r"plan\.json: expected the key 'halo_vox', found the keys finger"),
        (changed("source", "dtype"), r"plan\.json: source: expected the key 'dtype', found"),
        (changed("source", value=[]), r"source: expected a JSON object, found \[\]"),
        (changed("fingerprint", value=1), r"fingerprint: expected a string, found 1\."),
        (
            changed("halo_vox", value=[1, 2]),
            r"halo_vox: expected three whole numbers \(z, y, x\), found \[1, 2\]",
        ),
        (
            changed("source", "shape", value=[1, 2, 3.5]),
            r"source: shape: expected three whole numbers \(z, y, x\), found \[1, 2, 3\.5\]",
        ),
        (
            changed("tile_shape_vox", value=[2, 0, 3]),
            r"plan\.json: tiles\.shape_vox: expected three integers >= 1 \(z, y, x\), found",
        ),
        (
            changed("halo_vox", value=[1, -1, 3]),
            r"plan\.json: tiles\.halo_vox: expected three integers >= 0 \(z, y, x\), found",
        ),
        (
            changed("source", "voxel_size_um", value=[1, 0, 1]),
            r"source: voxel_size_um: expected three numbers above 0 \(z, y, x\), found \[1, 0, 1\]",
        ),
    ],
)
def test_a_broken_plan_is_refused(tmp_path, content, expected):
    write_json(tmp_path / "plan.json", content)
    with pytest.raises(VoxmillError, match=expected) as error:
        read_plan(tmp_path / "plan.json")
    assert str(error.value).endswith("Delete the file and run again: the volume is planned anew.")


def test_a_tile_or_slab_that_the_plan_does_not_have_is_named(tmp_path):
    write_plan(tmp_path / "plan.json", PLAN)
    plan = read_plan(tmp_path / "plan.json")
    with pytest.raises(VoxmillError, match=r"plan\.json: expected tile z9, found 2 others"):
        plan.tile("z9")
    with pytest.raises(VoxmillError, match=r"plan\.json: expected tiles of slab z9, found none"):
        plan.slab("z9")
