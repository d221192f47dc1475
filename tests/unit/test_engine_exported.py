"""Programs of torch.export run in place of voxmill's networks."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from voxmill.engine.backends import choose, forward
from voxmill.geometry import Box
from voxmill.networks import check_settings, models
from voxmill.networks.exported import Exported
from voxmill.prediction.flips import over_flips
from voxmill.prediction.memory import predict_in_blocks
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import sha256, write_json
from voxmill.tiles.plan import Plan, PlannedVolume


class UNet(nn.Module):
    """Two levels: pooling needs edges that are multiples of 2; the halo is 3 voxels."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv3d(1, 3, 3, padding=1)
        self.last = nn.Conv3d(3, 2, 1)

    def forward(self, batch):
        maps = torch.relu(self.first(batch))
        coarse = nn.functional.avg_pool3d(maps, 2)
        return self.last(maps + nn.functional.interpolate(coarse, scale_factor=2.0))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return UNet().eval()


def export(network, path, dynamic=True):
    edges = {axis + 2: 2 * torch.export.Dim(f"half_{axis}", min=1) for axis in range(3)}
    shapes = (edges,) if dynamic else None
    program = torch.export.export(network, (torch.zeros(1, 1, 6, 8, 10),), dynamic_shapes=shapes)
    torch.export.save(program, path)


@pytest.fixture
def model(network, tmp_path):
    """A `.pt2` file with its card."""
    path = tmp_path / "other.pt2"
    export(network, path)
    settings = {"halo_vox": 3, "shape_multiple": 2, "bytes_per_voxel": 40, "outputs": 2}
    card = models.ModelCard(
        "other", "exported", settings, ("centroid", "cell"), weights_sha256=sha256(path)
    )
    write_json(models.card_path(path), dataclasses.asdict(card))
    return path


@pytest.mark.parametrize("shape", [(6, 8, 10), (12, 4, 14), (7, 9, 5)])
def test_program_runs_in_place_of_a_network(model, network, shape):
    card, loaded = models.load(model)
    assert card.receptive_radius_vox == 3
    volume = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    found = forward(loaded, volume)
    padded = np.pad(volume, [(0, 0), *((0, n % 2) for n in shape)])
    with torch.no_grad():
        expected = torch.sigmoid(network(torch.from_numpy(padded)[None]))[0].numpy()
    np.testing.assert_allclose(found, expected[:, : shape[0], : shape[1], : shape[2]], atol=1e-6)


def test_blocks_with_the_declared_halo_give_the_whole(model):
    _, loaded = models.load(model)
    volume = np.random.default_rng(0).normal(size=(1, 17, 12, 8)).astype(np.float32)
    whole = forward(loaded, volume)
    budget = 40 * 18 * 12 * 8 * 3 // 4
    found = predict_in_blocks(
        loaded, volume, Box.from_shape((17, 12, 8)), (3, 3, 3), budget_bytes=budget
    )
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_tiles_anywhere_give_the_whole(model):
    # The program pools pairs of voxels: windows that start at odd places must form the same pairs.
    _, loaded = models.load(model)
    shape, halo = (13, 11, 9), (3, 3, 3)
    volume = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    whole = forward(loaded, volume)
    planned = PlannedVolume(shape, "float32", (1, 1, 1))
    tiles = Plan(planned, "f", (5, 4, 9), halo).tiles
    assert any(n % 2 for tile in tiles for n in tile.window.start)
    for tile in tiles:
        window, core = volume[:, *tile.window.slices], tile.core_in_window
        found = predict_in_blocks(loaded, window, core, halo, origin=tile.window.start)
        np.testing.assert_allclose(found, whole[:, *tile.core.slices], atol=1e-6)


def test_mirrored_blocks_give_the_mirrored_whole(model):
    _, loaded = models.load(model)
    volume = np.random.default_rng(0).normal(size=(1, 15, 11, 8)).astype(np.float32)
    whole = over_flips(lambda v: forward(loaded, v), volume, multiple=2)
    found = predict_in_blocks(
        loaded, volume, Box.from_shape((15, 11, 8)), (3, 3, 3), flip_axes=(0, 1, 2),
        budget_bytes=40 * 16 * 12 * 8 * 3 // 4,
    )  # fmt: skip
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_auto_takes_plain_pytorch(model):
    _, loaded = models.load(model)
    assert choose("auto", loaded, "cpu", "float32", (8, 8, 8)).name == "torch"


def test_program_of_one_shape(model, network):
    export(network, model, dynamic=False)
    loaded = Exported(check_settings("exported", {"halo_vox": 3, "bytes_per_voxel": 1}), model)
    with pytest.raises(VoxmillError, match=r"can't evaluate a batch .* Export it with dynamic z"):
        loaded(torch.zeros(1, 1, 8, 8, 8))


def test_other_number_of_outputs(model):
    settings = check_settings("exported", {"halo_vox": 3, "bytes_per_voxel": 1, "outputs": 5})
    with pytest.raises(VoxmillError, match=r"expected logits of shape \(1, 5, 8, 8, 8\), found"):
        Exported(settings, model)(torch.zeros(1, 1, 8, 8, 8))


def test_no_program(tmp_path):
    path = tmp_path / "broken.pt2"
    path.write_bytes(b"not a program")
    with pytest.raises(VoxmillError, match=r"expected a program saved by torch.export.save"):
        Exported(check_settings("exported", {"halo_vox": 3, "bytes_per_voxel": 1}), path)


def test_missing_program(model):
    model.unlink()
    with pytest.raises(VoxmillError, match="this program does not exist"):
        models.read_card(model)


def test_another_program_than_the_card_was_written_for(model):
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(VoxmillError, match="take both from the same model"):
        models.load(model)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bytes_per_voxel": 1}, r"exported\.halo_vox: missing: expected an integer"),
        ({"halo_vox": -1, "bytes_per_voxel": 1}, "halo_vox: expected an integer >= 0, found -1"),
        ({"halo_vox": 1, "bytes_per_voxel": 1, "shape_multiple": 0}, "shape_multiple: expected an"),
    ],
)
def test_wrong_settings(settings, words):
    with pytest.raises(VoxmillError, match=words):
        check_settings("exported", settings)
