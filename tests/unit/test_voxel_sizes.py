"""Models at the voxel size that they were trained at, and pilots on a box: the configuration."""

import dataclasses

import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workflow_config import ancient, volume, wildcards
from tests.unit.workflow_config import config as small_config
from voxmill.config.networks import MSDNetSettings
from voxmill.config.settings import check
from voxmill.geometry import Box, VoxelSize
from voxmill.networks import build, models
from voxmill.networks.models import ModelCard
from voxmill.runtime.errors import VoxmillError
from voxmill.workflow import configuration
from voxmill.workflow.evaluations import Evaluations
from voxmill.workflow.volumes import Volumes
from voxmill.workflow.voxel_sizes import doubts, learnt_diameter_vox, reading_size, scaled_detector

OWN = VoxelSize(2, 1, 1)
V = wildcards(volume="v")


def card(**known):
    return ModelCard("m", "msdnet", {}, **known)


def chosen(*cards, **section):
    names = [f"n{index}" for index in range(len(cards))]
    section = {"model_voxel_size": "refuse"} | section
    size = reading_size("volumes.v", section, OWN, dict(zip(names, cards, strict=True)))
    return None if size is None else tuple(size)


@pytest.mark.parametrize("size", [(2, 1, 1), (2.1, 0.96, 1.05)])
@pytest.mark.parametrize("choice", ["refuse", "rescale", "ignore"])
def test_within_five_percent_a_volume_is_read_as_it_is(size, choice):
    assert chosen(card(voxel_size_um=size), model_voxel_size=choice) is None


@pytest.mark.parametrize("size", [(2.2, 1, 1), (2, 1, 0.9), (1, 1, 2), (20, 10, 10)])
def test_beyond_it_is_refused_with_both_sizes_and_the_choice(size):
    with pytest.raises(VoxmillError) as raised:
        chosen(card(voxel_size_um=size))
    for said in (
        "volumes.v.model_voxel_size: network n0 was trained at",
        " x ".join(f"{edge:g}" for edge in size),
        "2 x 1 x 1 um",
        "`model_voxel_size: rescale`",
        "`ignore`",
    ):
        assert said in str(raised.value)


def test_rescaled_it_is_read_at_the_models_size():
    assert chosen(card(voxel_size_um=(4, 2, 2)), model_voxel_size="rescale") == (4, 2, 2)
    assert chosen(card(voxel_size_um=(4, 2, 2)), model_voxel_size="ignore") is None


def test_one_volume_is_resampled_to_one_size():
    wide, wider = card(voxel_size_um=(4, 2, 2)), card(voxel_size_um=(4, 2, 2.05))
    assert chosen(wide, wider, card(), model_voxel_size="rescale") == (4, 2, 2)
    message = r"volumes\.v\.networks: network n1 wants .* 4 x 2 x 2 um .*, network n0 at 2 x 1 x 1 "
    with pytest.raises(VoxmillError, match=message):
        chosen(card(voxel_size_um=(2, 1, 1)), wide, model_voxel_size="rescale")


def test_a_card_that_tells_no_size_is_doubted_and_read_as_it_is():
    assert chosen(card()) is None
    unknown = {"a": card(), "b": card(voxel_size_um=(1, 1, 1)), "c": card(cell_diameter_vox=8)}
    (warning,) = doubts(["a", "b", "c"], unknown, "config")
    assert warning.startswith("config: networks.a: the model card tells no voxel size")


def test_cells_get_the_diameter_that_the_model_has_learnt():
    # 8 voxels for 12 um: voxels of 1.5 um.
    assert chosen(card(cell_diameter_vox=8), cell_diameter_um=12.0) == (1.5, 1.5, 1.5)
    assert chosen(card(cell_diameter_vox=(4, 8, 8)), cell_diameter_um=12.0) == (3, 1.5, 1.5)
    # Learnt at 10 um and voxels of 2 x 1 x 1 um: cells twice as large, voxels twice as large.
    fixed = card(cell_diameter_um=10, voxel_size_um=(2, 1, 1))
    assert learnt_diameter_vox(fixed).tolist() == [5, 10, 10]
    assert chosen(fixed, cell_diameter_um=20.0) == (4, 2, 2)
    assert chosen(fixed, cell_diameter_um=10.3) is None


def test_a_diameter_that_is_missing_is_asked_for():
    with pytest.raises(VoxmillError, match=r"cell_diameter_um: network n0 finds cells .* of 8 vox"):
        chosen(card(cell_diameter_vox=8), model_voxel_size="rescale")
    assert chosen(card(cell_diameter_vox=8), model_voxel_size="ignore") is None
    with pytest.raises(VoxmillError, match="card of network n0 does not tell how large the cells"):
        chosen(card(voxel_size_um=(2, 1, 1)), cell_diameter_um=12.0)


def test_a_diameter_beside_ignore_is_refused():
    section = {"path": "v.tif", "cell_diameter_um": 8, "model_voxel_size": "ignore"}
    content = {"volumes": {"v": section}, "networks": {"n": {"weights": "m.safetensors"}}}
    with pytest.raises(VoxmillError, match=r"v\.cell_diameter_um: expected none beside model_vox"):
        check(content)


def test_a_detector_grows_with_the_cells():
    detector = {"method": "maxima", "min_distance_um": 4, "min_volume_um3": 10, "border_share": 1}
    grown = scaled_detector(detector, card(cell_diameter_um=8), 16)
    assert grown == detector | {"min_distance_um": 8, "min_volume_um3": 80}
    assert scaled_detector(detector, card(cell_diameter_um=8), None) == detector
    assert scaled_detector(detector, card(), 16) == detector


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A volume of 8 x 9 x 10 voxels of 2 x 1 x 1 um, a model of 4 x 2 x 2 um."""
    monkeypatch.chdir(tmp_path)
    shape = (8, 9, 10)
    tifffile.imwrite("v.tif", shape=shape, dtype="uint16", photometric="minisblack")
    settings = MSDNetSettings(depth=1, width=1, dilations=(1,))
    known = ModelCard(
        "m", "msdnet", dataclasses.asdict(settings), voxel_size_um=(4, 2, 2), cell_diameter_um=8,
        detector={"min_distance_um": 4},
    )  # fmt: skip
    models.save("m.safetensors", build("msdnet", settings), known)

    def load(**section):
        section = {"path": "v.tif", "voxel_size_um": [2, 1, 1], "model_voxel_size": "rescale"} | (
            section
        )
        return configuration.load(
            {
                "volumes": {"v": section},
                "networks": {"n": {"weights": "m.safetensors"}},
                "tiles": {"shape_vox": [2, 2, 2]},
            }
        )

    return load


def test_tiles_are_of_the_models_voxels_and_the_rest_of_the_files(project):
    checked = project(region="0:8, 0:9, 5:10")
    loaded = checked.volumes["v"]
    assert (loaded.shape, loaded.voxel_size_um) == ((4, 4, 5), (4, 2, 2))
    assert checked.tiles("v")[-1] == "z0002_y0002_x0004"
    volumes = Volumes(checked, ancient)
    assert volumes.arguments(V)["voxel_size_um"] == [2, 1, 1]
    assert volumes.arguments(V)["resampled_um"] == [4, 2, 2]
    assert volumes.own_arguments(V) == {
        "path": "v.tif",
        "channel": None,
        "voxel_size_um": [2, 1, 1],
    }
    assert volumes.own_grid(V) == {"own_shape": [8, 9, 10], "own_voxel_size_um": [2, 1, 1]}
    assert Evaluations(checked).settings(V)["region"] == "0:8, 0:9, 5:10"


def test_cells_of_another_diameter_have_a_detector_of_their_size(project):
    assert project(cell_diameter_um=4).cell_settings("v", "n")["min_distance_um"] == 2
    assert project(cell_diameter_um=4).volumes["v"].voxel_size_um == (2, 1, 1)
    assert project(cell_diameter_um=4).volumes["v"].resampling is None
    assert project().cell_settings("v", "n")["min_distance_um"] == 4
    # And their voxels count as the model's, whether or not the volume is resampled.
    for diameter_um in (4, 16):
        assert Volumes(project(cell_diameter_um=diameter_um), ancient).counted_um(V) == [4, 2, 2]
    assert Volumes(project(), ancient).counted_um(V) is None


def test_a_phantom_is_resampled_as_well(project):
    phantom = {"shape_vox": [8, 8, 8], "voxel_size_um": [2, 1, 1], "seed": 1}
    checked = project(path=None, voxel_size_um=None, phantom=phantom)
    assert checked.volumes["v"].shape == (4, 4, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0:9, 0:9, 0:10", r"v\.box: box: expected a part of the volume of shape \(8, 9, 10\)"),
        ("3:3, 0:9, 0:10", r"v\.box: box: expected a part .* not empty, found '3:3"),
        ("5:3, 0:9, 0:10", r"v\.box: box: expected a part .* not empty, found '5:3"),
        ("-1:3, 0:9, 0:10", r"v\.box: expected a box .* found '-1:3"),
        ("0:8, 0:9", r"v\.box: expected a box .* found '0:8, 0:9'"),
        ([0, 8], r"v\.box: expected a box"),
    ],
)
def test_bad_boxes_are_refused_from_the_header(project, text, message):
    with pytest.raises(VoxmillError, match=message):
        project(box=text)


def test_a_box_of_a_phantom_is_checked_too(project):
    phantom = {"shape_vox": [8, 8, 8], "voxel_size_um": [2, 1, 1], "seed": 1}
    with pytest.raises(VoxmillError, match=r"v\.box: box: expected .* shape \(8, 8, 8\)"):
        project(path=None, voxel_size_um=None, phantom=phantom, box="0:8, 0:8, 0:9")


def test_a_region_beside_the_box_is_refused(project):
    with pytest.raises(VoxmillError, match=r"v\.region: .* box 0:8, 0:9, 0:5, .*, 5:10"):
        project(box="0:8, 0:9, 0:5", region="0:8, 0:9, 5:10")


def test_a_box_takes_the_tiles_of_the_whole_that_meet_it():
    # Tiles of 100 x 100 x 150 in 100 x 200 x 300.
    piloted = volume(settings={"path": "v.tif", "box": "10:20, 90:110, 150:160"})
    checked = small_config([piloted])
    assert list(checked.tiles("v")) == ["z0000_y0000_x0150", "z0000_y0100_x0150"]
    volumes = Volumes(checked, ancient)
    assert volumes.part(V) == volumes.own_part(V) == [[0, 0, 150], [100, 200, 300]]
    assert Evaluations(checked).settings(V)["region"] == "10:20, 90:110, 150:160"
    assert Volumes(small_config(), ancient).part(V) is None
    assert Volumes(small_config(), ancient).own_part(V) is None


def test_the_evaluation_is_limited_to_what_box_and_region_have_in_common():
    settings = {"path": "v.tif", "box": "10:20, 90:110, 150:160", "region": "0:15, 0:200, 155:300"}
    evaluations = Evaluations(small_config([volume(settings=settings)]))
    assert evaluations.settings(V)["region"] == "10:15, 90:110, 155:160"


def test_a_box_of_a_rescaled_volume_is_in_the_files_voxels():
    # Read at half of the voxels: 50 x 100 x 150 in tiles of 100 x 100 x 150.
    settings = {"path": "v.tif", "box": "10:20, 90:110, 150:160"}
    rescaled = volume(
        settings=settings, shape=(50, 100, 151), voxel_size_um=(4.0, 2.0, 2.0),
        own_shape=(100, 200, 302), own_voxel_size_um=(2.0, 1.0, 1.0),
    )  # fmt: skip
    volumes = Volumes(small_config([rescaled]), ancient)
    assert volumes.part(V) == [[0, 0, 0], [50, 100, 150]]
    assert volumes.own_part(V) == [[0, 0, 0], [100, 200, 300]]


@given(data=st.data())
def test_the_tiles_of_a_box_are_those_of_the_whole_that_share_a_voxel_with_it(data):
    sizes = st.integers(1, 20)
    shape = data.draw(st.tuples(sizes, sizes, sizes))
    tile = data.draw(st.tuples(sizes, sizes, sizes))
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    box = Box(start, stop)
    whole = dataclasses.replace(small_config([volume(shape=shape)]), tile_shape_vox=tile)
    piloted = volume(shape=shape, settings={"path": "v.tif", "box": str(box)})
    part = dataclasses.replace(small_config([piloted]), tile_shape_vox=tile)
    cores = Box.from_shape(shape).blocks(tile)
    names = dict(zip(whole.tiles("v"), cores, strict=True))
    assert list(part.tiles("v")) == [n for n, core in names.items() if core.overlaps(box)]
    union = Box(*part.part("v"))
    assert sum(names[name].size for name in part.tiles("v")) == union.size
    assert box.clip(union) == box
