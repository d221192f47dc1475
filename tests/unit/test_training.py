"""Training: targets, patches, augmentation, loss, checkpoints, resume, validation, the job."""

import dataclasses
import hashlib
import json
import math

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st

from voxmill.config.training import Augmentation, TrainingSettings
from voxmill.engine.backends import forward
from voxmill.geometry import Box
from voxmill.networks import models
from voxmill.runtime.errors import VoxmillError
from voxmill.training import trainer as steps
from voxmill.training.augmentation import augment
from voxmill.training.fine_tuning import fine_tuning_settings, initial_weights
from voxmill.training.loop import train
from voxmill.training.mistakes import find_mistakes
from voxmill.training.open_sources import open_sources
from voxmill.training.patches import PatchSampler, even_in_brightness, volume_shares
from voxmill.training.sources import (
    Source,
    check_sources,
    grey_of,
    points_in,
    training_points,
)
from voxmill.training.targets import balanced_weight, centroid_target
from voxmill.training.train_network import train_network
from voxmill.training.trainer import Trainer, learning_rate
from voxmill.training.validation import THRESHOLDS, summarise, summarise_thresholds, validate
from voxmill.volumes.blocks import ArrayVolume

NO_CHANGE = Augmentation(flip=False, rotate="none", scale=0, shift=0, noise=0, blur_vox=0)
TINY = TrainingSettings(
    cell_diameter_um=6.0,
    network={"depth": 3, "width": 2, "dilations": (1, 2)},
    patch_vox=(12, 12, 12),
    margin_vox=1,
    steps=6,
    validate_every=3,
    checkpoint_every=2,
    learning_rate=0.02,
    device="cpu",
)


def make_source(seed=0, shape=(24, 24, 40), cells=12, **changes):
    """A volume of bright blobs on noise."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(1, np.array(shape) - 2, (cells, 3))
    volume = 100 + 900 * centroid_target(points, (0, 0, 0), shape, (1, 1, 1), 1.5)
    volume = (volume + rng.normal(scale=30, size=shape)).clip(0).astype(np.uint16)
    box = Box.from_shape(shape)
    fields = {
        "name": f"blobs-{seed}",
        "volume": ArrayVolume(volume),
        "points": points,
        "voxel_size_um": (1.0, 1.0, 1.0),
        "grey": grey_of(volume),
        "region": box,
        "validation": Box((0, 0, 28), shape),
    }
    return Source(**fields | changes)


# Targets


def test_target_is_round_in_space():
    target = centroid_target([[4, 8, 8]], (0, 0, 0), (9, 17, 17), (2.0, 1.0, 1.0), 2.0)
    assert target[4, 8, 8] == 1
    assert target[5, 8, 8] == pytest.approx(target[4, 10, 8], rel=1e-5)
    assert target[5, 8, 8] == pytest.approx(math.exp(-0.5), rel=1e-5)
    assert target.dtype == np.float32


@given(
    st.lists(st.tuples(*[st.floats(-3, 15)] * 3), max_size=4),
    st.tuples(*[st.integers(0, 6)] * 3),
)
def test_target_of_a_box_is_the_box_of_the_target(points, start):
    points = np.array(points, dtype=float).reshape(-1, 3)
    whole = centroid_target(points, (0, 0, 0), (12, 12, 12), (1, 2, 1), 1.3)
    part = centroid_target(points, start, (6, 6, 6), (1, 2, 1), 1.3)
    z, y, x = start
    assert part == pytest.approx(whole[z : z + 6, y : y + 6, x : x + 6], abs=1e-6)


def test_balanced_weight_by_hand():
    # One cell fills (2 pi)^1.5 = 15.75 um3: a share of 1/100 of 1575 um3, so a weight of 33.3.
    assert balanced_weight(1, 1575.0, 1.0) == pytest.approx(33.3, abs=0.1)
    assert balanced_weight(10**6, 1.0, 1.0) == 1.0
    assert balanced_weight(0, 1.0, 1.0) == 500.0


# Augmentation


@given(st.integers(0, 10**6))
def test_cells_move_with_the_patch(seed):
    rng = np.random.default_rng(seed)
    patch = rng.normal(size=(4, 6, 6)).astype(np.float32)
    settings = dataclasses.replace(NO_CHANGE, flip=True, rotate="like")
    changed, targets = augment(patch, patch[None], (2, 1, 1), settings, rng)
    assert np.array_equal(changed, targets[0])
    assert sorted(changed.ravel()) == sorted(patch.ravel())


def test_only_equal_axes_are_exchanged():
    patch = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    settings = dataclasses.replace(NO_CHANGE, rotate="like")
    for seed in range(20):
        changed, _ = augment(patch, patch[None], (2, 1, 1), settings, np.random.default_rng(seed))
        # Planes may be rotated but not mixed.
        assert all(set(changed[z].ravel()) == set(patch[z].ravel()) for z in range(3))
    settings = dataclasses.replace(NO_CHANGE, rotate="yx")
    for seed in range(20):
        changed, _ = augment(patch, patch[None], (1, 1, 1), settings, np.random.default_rng(seed))
        assert all(set(changed[z].ravel()) == set(patch[z].ravel()) for z in range(3))


def test_changes_of_intensity_leave_the_targets_alone():
    rng = np.random.default_rng(0)
    patch, targets = np.ones((5, 5, 5), np.float32), np.ones((2, 5, 5, 5), np.float32)
    settings = Augmentation(flip=False, rotate="none")
    changed = [augment(patch, targets, (1, 1, 1), settings, rng) for _ in range(50)]
    assert all(np.array_equal(t, targets) for _, t in changed)
    means = np.array([p.mean() for p, _ in changed])
    assert means.std() > 0.05
    assert means.min() > math.exp(-0.25) - 0.15 and means.max() < math.exp(0.25) + 0.15


def changed_light(patch, rng, **settings):
    settings = dataclasses.replace(NO_CHANGE, **settings)
    return [augment(patch, patch[None], (1, 1, 1), settings, rng)[0] for _ in range(60)]


def test_a_gradient_multiplies_the_contrast_along_a_line():
    patch = np.ones((9, 9, 9), np.float32)
    changed = changed_light(patch, np.random.default_rng(0), gradient=0.7)
    ends = [np.log(p[-1, -1, -1] / p[0, 0, 0]) for p in changed]
    # Half the patches stay; exp(0.7) from one corner to the other is the most.
    assert 15 <= sum(abs(e) > 1e-6 for e in ends) <= 45
    assert 0.4 < max(np.abs(ends)) <= 0.7 + 1e-5
    along_z = [p for p in changed if np.ptp(p) > 1e-6 and np.ptp(p[4]) < 1e-6]
    assert 5 <= len(along_z) <= 25
    # Logarithms rise evenly, and the middle stays.
    for p in changed:
        assert p[4, 4, 4] == pytest.approx(1.0, rel=1e-5)
        assert np.diff(np.log(p[:, 4, 4])) == pytest.approx(
            np.log(p[1, 4, 4] / p[0, 4, 4]), abs=1e-5
        )


def test_a_layer_is_a_slab_of_another_level():
    patch = np.zeros((40, 12, 12), np.float32)
    changed = changed_light(patch, np.random.default_rng(1), layer=2.0)
    layered = [p for p in changed if np.ptp(p) > 0.01]
    assert 8 <= len(layered) <= 32 and all(np.abs(p).max() <= 2.0 for p in layered)
    # It depends on one coordinate alone, and most often on z.
    across = [[np.ptp(p, axis=axis).max() > 1e-6 for axis in range(3)] for p in layered]
    assert all(sum(axes) == 1 for axes in across)
    assert sum(axes[0] for axes in across) > len(layered) / 2


def test_a_seam_is_one_jump():
    patch = np.ones((16, 16, 16), np.float32)
    changed = changed_light(patch, np.random.default_rng(2), seam=0.5)
    jumps = 0
    for p in changed:
        values = np.unique(p)
        assert len(values) <= 2 and 1.0 in values
        if len(values) == 2:
            jumps += 1
            other = values[values != 1.0].item()
            assert math.exp(-0.5) - 0.125 <= other <= math.exp(0.5) + 0.125
            steps_along = [
                np.abs(np.diff(p, axis=axis)).max(axis=(0, 1, 2)[:axis] + (0, 1, 2)[axis + 1 :])
                for axis in range(3)
            ]
            assert sorted(int((along > 0).sum()) for along in steps_along) == [0, 0, 1]
    assert jumps >= 8


def test_noise_rises_with_the_intensity():
    patch = np.zeros((20, 20, 20), np.float32)
    patch[10:] = 8.0
    changed = changed_light(patch, np.random.default_rng(3), noise=0.2)
    spreads = [(p[:10].std(), p[10:].std()) for p in changed if p[:10].std() > 0.01]
    assert 15 <= len(spreads) <= 45
    # sqrt(1 + 8) = 3
    assert all(bright / dark == pytest.approx(3.0, rel=0.15) for dark, bright in spreads)


def test_blur_is_drawn_for_each_axis():
    patch = np.zeros((17, 17, 17), np.float32)
    patch[8, 8, 8] = 1
    widths = []
    for p in changed_light(patch, np.random.default_rng(4), blur_vox=2.0):
        if p[8, 8, 8] < 0.99:
            squares = (np.arange(17) - 8.0) ** 2
            widths.append([p.sum(axis=axes) @ squares for axes in ((1, 2), (0, 2), (0, 1))])
    assert len(widths) >= 5
    assert all(0 <= w <= 4.01 for of_patch in widths for w in of_patch)
    assert np.std(widths, axis=1).max() > 0.5


# Patches


def test_volumes_share_the_patches_by_the_root_of_their_cells():
    first, second = make_source(cells=4), make_source(1, cells=16)
    share = volume_shares([first, second], [4, 16], 0.5)
    assert share == pytest.approx([1 / 3, 2 / 3])
    assert volume_shares([first, second], [4, 16], 1.0) == pytest.approx([0.2, 0.8])
    assert volume_shares([first, second], [4, 16], 0.0) == pytest.approx([0.5, 0.5])
    # Two regions of one volume share what it gets: 4 and 12 of its 16 cells.
    regions = [dataclasses.replace(second), dataclasses.replace(second), first]
    assert volume_shares(regions, [4, 12, 4], 0.5) == pytest.approx([1 / 6, 1 / 2, 1 / 3])
    # A source without cells counts as if it had a tenth of the mean.
    assert volume_shares([first, second], [0, 16], 1.0) == pytest.approx([0.8 / 16.8, 16 / 16.8])


def test_levels_of_brightness_are_drawn_alike():
    values = np.exp([0.0] * 90 + [5.0] * 9 + [10.0])
    shares = even_in_brightness(values)
    assert shares.sum() == pytest.approx(1)
    # Three of the five levels hold cells, or two where the one bright cell is beyond the 98th
    # percentile; each level gets the same.
    sums = [shares[:90].sum(), shares[90:].sum()]
    assert sums == pytest.approx([0.5, 0.5])
    assert even_in_brightness(np.ones(4)) == pytest.approx(0.25)


def test_dim_cells_are_drawn_as_often_as_the_many():
    points = np.array([[4.0, 4, 4 + 2 * i] for i in range(9)] + [[12.0, 12, 12]])
    volume = np.full((24, 24, 40), 100, np.uint16)
    for z, y, x in points.astype(int):
        volume[z, y, x] = 1000 if z == 12 else 200
    source = make_source(volume=ArrayVolume(volume), points=points, validation=None)
    settings = dataclasses.replace(TINY, cell_share=1.0, dim_share=1.0)
    sampler, rng = PatchSampler([source], settings), np.random.default_rng(0)
    drawn = [tuple(sampler._target(0, rng)) for _ in range(400)]
    assert 150 <= sum(place == (12, 12, 12) for place in drawn) <= 250


def test_patches_are_drawn_on_mistakes():
    source = make_source(validation=None)
    settings = dataclasses.replace(TINY, cell_share=0.0, mistake_share=0.5)
    sampler, rng = PatchSampler([source], settings), np.random.default_rng(0)
    assert all(sampler._target(0, rng) is None for _ in range(20))
    sampler.use_mistakes([[[5.0, 6.0, 7.0]]])
    drawn = [sampler._target(0, rng) for _ in range(200)]
    assert 70 <= sum(place is not None for place in drawn) <= 130
    assert all(place.tolist() == [5, 6, 7] for place in drawn if place is not None)


def test_mistakes_are_false_finds_and_missed_cells(monkeypatch):
    probability = np.full((24, 24, 40), 0.01, np.float32)
    # A cell that is found, one that isn't, a false find, and one in the validation box.
    for z, y, x in ((5, 5, 5), (15, 15, 15), (5, 5, 35)):
        probability[z, y, x] = 0.95
    points = np.array([[5, 5, 5], [20, 5, 5], [20, 20, 35.0]])
    source = make_source(points=points, validation=Box((0, 0, 28), (24, 24, 40)))
    monkeypatch.setattr("voxmill.training.mistakes.BLOCK_VOX", 14)

    def cut(network, source, box, *rest):
        return probability[None, *box.slices]

    monkeypatch.setattr("voxmill.training.mistakes.predict_box", cut)
    rng = np.random.default_rng(0)
    (places,) = find_mistakes(None, [source], TINY, "cpu", 1, rng)
    assert sorted(places.tolist()) == [[15, 15, 15], [20, 5, 5]]
    monkeypatch.setattr("voxmill.training.mistakes.MOST_BLOCKS", 1)
    (fewer,) = find_mistakes(None, [source], TINY, "cpu", 1, rng)
    assert len(fewer) <= 1


def test_no_patch_touches_the_validation_box():
    source = make_source()
    sampler = PatchSampler([source], TINY)
    for seed in range(40):
        start = sampler._place(0, np.random.default_rng(seed))
        assert (start >= 0).all() and (start + 12 <= source.volume.shape).all()
        assert start[2] + 12 <= 28


def test_patches_are_drawn_on_cells():
    source = make_source(cells=1, points=np.array([[12.0, 12.0, 10.0]]))
    sampler = PatchSampler([source], dataclasses.replace(TINY, cell_share=1.0))
    for seed in range(20):
        start = sampler._place(0, np.random.default_rng(seed))
        assert (start <= source.points[0]).all() and (source.points[0] < start + 12).all()


def test_loss_counts_where_there_are_enough_surroundings():
    sampler = PatchSampler([make_source()], dataclasses.replace(TINY, margin_vox=2))
    counts = sampler._counts(make_source(), (0, 6, 12), np.array([12, 18, 24]))
    assert counts[:10, 2:10, 2:10].all()  # the first face along z is a face of the volume
    assert counts.sum() == 10 * 8 * 8


def test_a_patch_and_its_targets():
    source = make_source(mask=ArrayVolume(np.ones((24, 24, 40), np.uint8) * 7))
    settings = dataclasses.replace(TINY, foreground=True)
    patch, targets, size = PatchSampler([source], settings).draw(np.random.default_rng(0))
    assert patch.shape == (12, 12, 12) and patch.dtype == np.float32
    assert targets.shape == (3, 12, 12, 12) and targets.dtype == np.float32
    assert (targets[2] == 1).all() and size == (1, 1, 1)
    # Bright where the target is large.
    assert np.corrcoef(patch.ravel(), targets[1].ravel())[0, 1] > 0.5


def test_the_mask_as_the_first_target():
    mask = np.random.default_rng(0).random((24, 24, 40)) < 0.3
    source = make_source(mask=ArrayVolume(mask.astype(np.uint8) * 255))
    for foreground in (False, True):
        settings = dataclasses.replace(TINY, target="mask", foreground=foreground, detector={})
        sampler = PatchSampler([source], settings)
        _, targets, _ = sampler.draw(np.random.default_rng(3))
        assert targets.shape == (2 + foreground, 12, 12, 12)
        assert set(np.unique(targets[1:])) == {0.0, 1.0}
        assert all(np.array_equal(t, targets[1]) for t in targets[1:])
        assert targets.dtype == np.float32


def test_clicks_for_a_model_of_masks():
    # A cell of 8 um on voxels of 2 x 1 x 1: mask to 2 um from its centroid, none from 4.8 um.
    source = make_source(points=np.array([[6.0, 6.0, 6.0]]), voxel_size_um=(2.0, 1.0, 1.0))
    settings = dataclasses.replace(
        TINY, target="mask", cell_diameter_um=8.0, patch_vox=(24, 24, 28), margin_vox=0, detector={}
    )
    _, (counts, mask), _ = PatchSampler([source], settings).draw(np.random.default_rng(0))
    assert mask[6, 6, 3:10].tolist() == [0, 1, 1, 1, 1, 1, 0]
    assert mask[4:9, 6, 6].tolist() == [0, 1, 1, 1, 0]
    assert counts[6, 6, :9].tolist() == [1, 1, 0, 0, 1, 1, 1, 1, 1]
    assert counts[3:6, 6, 6].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation": None}, "expected at least one volume or region for validation"),
        (
            {"validation": Box((0, 0, 0), (24, 24, 40))},
            "at least one volume or region for training",
        ),
        ({"points": np.zeros((0, 3))}, "expected cells in the training data, found none"),
        ({"points": np.full((5, 3), 3.0)}, "expected cells in the validation data, found none"),
        ({"points": np.array([[2, 2, 2], [2, 2, 99.0]])}, "1 outside. Check the axis order"),
        (
            {"region": Box((0, 0, 0), (8, 24, 40))},
            r"at least a patch, \[12, 12, 12\] voxels, found",
        ),
    ],
)
def test_unusable_data(change, message):
    with pytest.raises(VoxmillError, match=message):
        check_sources([make_source(**change)], TINY)


def test_voxel_sizes_must_agree():
    other = make_source(1, voxel_size_um=(2.0, 1.0, 1.0))
    with pytest.raises(VoxmillError, match=r"'blobs-1': expected voxels of .* as in 'blobs-0'"):
        check_sources([make_source(), other], TINY)


def test_foreground_needs_masks():
    for changes in ({"foreground": True}, {"target": "mask", "touching": "centre"}):
        key = list(changes)[-1]
        with pytest.raises(VoxmillError, match=rf"training\.{key} needs a mask or labels as truth"):
            check_sources([make_source()], dataclasses.replace(TINY, detector={}, **changes))


def test_no_room_beside_the_validation_box():
    source = make_source(validation=Box((0, 0, 10), (24, 24, 40)))
    with pytest.raises(VoxmillError, match="expected room for patches"):
        PatchSampler([source], TINY).draw(np.random.default_rng(0))


# Validation


def test_common_threshold_by_hand():
    runs = [
        ("a", 2, np.array([0.9, 0.5]), np.array([True, True])),
        ("b", 1, np.array([0.8, 0.3]), np.array([True, False])),
    ]
    result = summarise(runs)
    # Scores 0.9, 0.8 and 0.5 are all three cells; the threshold is half way down to 0.3.
    assert result["f1"] == result["precision"] == result["recall"] == 1.0
    assert result["threshold"] == pytest.approx(0.4)
    assert result["volumes"] == {"a": 1.0, "b": 1.0}
    given = summarise(runs, 0.6)
    assert (given["threshold"], given["precision"], given["recall"]) == (0.6, 1.0, 2 / 3)
    assert given["volumes"] == {"a": pytest.approx(2 / 3), "b": 1.0}
    assert summarise(runs, 0.95)["f1"] == 0 and summarise(runs, 0.95)["threshold"] == 0.95


def test_f1_without_detections_is_zero():
    assert summarise([("a", 2, np.zeros(0), np.zeros(0, bool))])["f1"] == 0


def test_common_threshold_that_changes_the_cells_by_hand():
    found = np.full(len(THRESHOLDS), 9)
    matched = np.zeros(len(THRESHOLDS), int)
    # The 5th to the 9th threshold find all three cells and a false one; the 7th is in the middle.
    found[4:9], matched[4:9] = 4, 3
    runs = [
        ("a", 2, found - 1, matched - 1),
        ("b", 1, found * 0 + 1, (matched > 0).astype(int)),
    ]
    assert summarise_thresholds(runs, 0.34)["threshold"] == 0.34
    assert summarise_thresholds(runs, 0.34)["f1"] == summarise_thresholds(runs)["f1"]
    result = summarise_thresholds(runs)
    assert result["threshold"] == THRESHOLDS[6]
    assert result["precision"] == 0.75 and result["recall"] == 1.0
    assert result["f1"] == pytest.approx(6 / 7)
    assert result["volumes"] == {"a": pytest.approx(0.8), "b": 1.0}


@pytest.mark.parametrize("method", ["maxima", "components"])
def test_validation_does_not_cut_cells(method, monkeypatch):
    # Two cells of 4 voxels along x. The face of the box at x = 28 cuts the first, whose centre lies
    # outside, so one true cell and one detected cell count.
    probability = np.full((24, 24, 40), 0.01, np.float32)
    probability[10:13, 10:13, 25:29] = 0.9
    probability[10:13, 10:13, 33:37] = 0.9
    probability[11, 11, [26, 35]] = 0.95
    source = make_source(points=np.array([[11, 11, 26.5], [11, 11, 34.5]]))
    settings = dataclasses.replace(TINY, detector={"method": method, "min_distance_um": 3.0})

    def cut(network, source, box, *rest):
        return probability[None, *box.slices]

    monkeypatch.setattr("voxmill.training.validation.predict_box", cut)
    result = validate(None, [source], settings, "cpu", 1)
    assert result["f1"] == result["precision"] == result["recall"] == 1.0


def test_points_in_half_open():
    points = np.array([[0, 0, -0.5], [0, 0, 1.49], [0, 0, 1.5]])
    assert len(points_in(points, Box((0, 0, 0), (1, 1, 2)))) == 2


# The loop


def test_learning_rate_rises_and_falls():
    settings = dataclasses.replace(TINY, steps=100, learning_rate=1.0)
    rates = [learning_rate(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 3) and max(rates) == rates[2] == 1.0
    assert rates[100] == pytest.approx(0) and all(np.diff(rates[3:]) < 0)


def test_training_finds_the_cells():
    settings = dataclasses.replace(
        TINY, steps=120, validate_every=40, detector={"min_distance_um": 2.5}
    )
    trained = train([make_source(), make_source(1)], settings)
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    assert trained.validation["f1"] > 0.9
    assert trained.steps == 120 and trained.stopped == "all steps done"


def test_the_fourier_engine_and_pytorch_agree(monkeypatch):
    first = Trainer([make_source()], TINY, "cpu", 1)
    with monkeypatch.context() as patch:
        patch.setattr(steps.fourier, "available", lambda network, device: "unavailable")
        second = Trainer([make_source()], TINY, "cpu", 1)
    assert second._forward is second.network
    losses = [(first.step(), second.step()) for _ in range(3)]
    assert [a for a, _ in losses] == pytest.approx([b for _, b in losses], rel=1e-3)


def test_resumed_training_reaches_the_same_weights(tmp_path):
    sources = [make_source()]
    whole = train(sources, TINY)
    path = tmp_path / "c.safetensors"
    trainer = Trainer(sources, TINY, "cpu", 1)
    for _ in range(3):
        trainer.step()
    trainer.validate(0.0)
    trainer.step()
    trainer.save(path)
    resumed = train(sources, TINY, checkpoint_path=path)
    assert resumed.steps == whole.steps
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key
    assert [r["f1"] for r in resumed.history] == [r["f1"] for r in whole.history]
    assert [r["loss"] for r in resumed.history] == [r["loss"] for r in whole.history]


def test_resumed_training_keeps_the_mistakes(tmp_path, monkeypatch):
    settings = dataclasses.replace(TINY, mistake_share=0.5, mistakes_from=0.5)
    sources = [make_source()]
    whole = train(sources, settings)
    path = tmp_path / "c.safetensors"
    trainer = Trainer(sources, settings, "cpu", 1)
    for _ in range(3):
        trainer.step()
    trainer.validate(0.0)
    trainer.step()
    assert len(trainer.progress["mistakes"]) == 1 and trainer.progress["mistakes"][0]
    trainer.save(path)
    monkeypatch.setattr("voxmill.training.trainer.find_mistakes", None)
    resumed = train(sources, settings, checkpoint_path=path)
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key


def test_checkpoint_of_another_training(tmp_path):
    path = tmp_path / "c.safetensors"
    Trainer([make_source()], TINY, "cpu", 1).save(path)
    with pytest.raises(VoxmillError, match="belongs to a training with other settings or data"):
        train([make_source(1)], TINY, checkpoint_path=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(VoxmillError, match="expected a checkpoint of this training"):
        train([make_source()], TINY, checkpoint_path=path)


def test_checkpoint_of_other_contents_under_the_same_names(tmp_path):
    path = tmp_path / "c.safetensors"
    Trainer([make_source(contents="a")], TINY, "cpu", 1).save(path)
    assert Trainer([make_source(contents="a")], TINY, "cpu", 1).resume(path)
    changed = (
        {"contents": "b"},
        {"contents": "a", "grey": grey_of(np.arange(64).reshape(4, 4, 4))},
        {"contents": "a", "voxel_size_um": (1.0, 1.0, 1.5)},
    )
    for changes in changed:
        with pytest.raises(VoxmillError, match="other settings or data"):
            Trainer([make_source(**changes)], TINY, "cpu", 1).resume(path)


def test_contents_depend_on_volume_and_mask(tmp_path):
    settings = dataclasses.replace(TINY, target="mask")
    volume = job_arguments(tmp_path)["volumes"]["blobs"] | {"mask": str(tmp_path / "m.tif")}
    grey = tifffile.imread(tmp_path / "v.tif")
    mask = (grey > 500).astype(np.uint8)
    tifffile.imwrite(tmp_path / "m.tif", mask)
    seen = {open_sources("blobs", volume, settings)[0][0].contents}
    assert open_sources("blobs", volume, settings)[0][0].contents in seen
    mask[0, 0, 0] ^= 1
    tifffile.imwrite(tmp_path / "m.tif", mask)
    seen.add(open_sources("blobs", volume, settings)[0][0].contents)
    grey[0, 0, 0] += 1
    tifffile.imwrite(tmp_path / "v.tif", grey)
    seen.add(open_sources("blobs", volume, settings)[0][0].contents)
    assert len(seen) == 3


def test_several_regions_are_several_sources(tmp_path):
    volume = job_arguments(tmp_path)["volumes"]["blobs"]
    regions = "0:24, 0:24, 0:13; 0:24, 0:24, 16:40"
    for held, expected in (
        ("0:24, 0:12, 28:40", [None, Box((0, 0, 28), (24, 12, 40))]),
        (None, [None, None]),
        (True, [Box((0, 0, 0), (24, 24, 13)), Box((0, 0, 16), (24, 24, 40))]),
    ):
        sources, record = open_sources(
            "blobs", volume | {"region": regions, "validation": held}, TINY
        )
        assert [s.name for s in sources] == ["blobs-1", "blobs-2"]
        assert [str(s.region) for s in sources] == [t.strip() for t in regions.split(";")]
        assert [s.validation for s in sources] == expected
        assert sources[0].volume is sources[1].volume
        assert record["region"] == [s.region.to_lists() for s in sources]
        cells = sum(len(training_points(s)) for s in sources if s.trains)
        assert record["training_cells"] == cells
    # Patches stay in their region.
    sources, _ = open_sources("blobs", volume | {"region": regions, "validation": None}, TINY)
    sampler = PatchSampler(sources, TINY)
    for seed in range(20):
        starts = [sampler._place(i, np.random.default_rng(seed))[2] for i in (0, 1)]
        assert starts[0] + 12 <= 13 and starts[1] >= 16


def test_loss_that_is_not_finite():
    trainer = Trainer([make_source()], TINY, "cpu", 1)
    trainer.step()
    with torch.no_grad():
        trainer.network.final_bias.fill_(math.nan)
    with pytest.raises(VoxmillError, match=r"the loss is nan at step 1. Try a lower training\.lea"):
        trainer.step()


def test_early_stopping():
    settings = dataclasses.replace(
        TINY, steps=50, validate_every=1, patience=2, learning_rate=1e-9, average=0.0
    )
    trained = train([make_source()], settings)
    assert trained.steps == 3 and trained.stopped == "no better F1 in 2 validations"


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"training\.cell_diameter_um: missing: expected a number"),
        ({"cell_diameter_um": 5, "epochs": 3}, "training: unknown key 'epochs'"),
        ({"cell_diameter_um": 5, "augmentation": {"zoom": 1}}, "training.augmentation: unknown"),
        ({"cell_diameter_um": 5, "augmentation": {"noise": -1}}, "augmentation.noise: expected"),
        ({"cell_diameter_um": 5, "augmentation": {"rotate": "xy"}}, "augmentation.rotate: expec"),
        ({"cell_diameter_um": -1}, "training.cell_diameter_um: expected a number > 0"),
        ({"cell_diameter_um": 5, "steps": 0}, "training.steps: expected an integer >= 1"),
        ({"cell_diameter_um": 5, "seed": 1.5}, "training.seed: expected an integer >= 0"),
        ({"cell_diameter_um": 5, "cell_share": 2}, "cell_share: expected a number from 0 to 1"),
        ({"cell_diameter_um": 5, "patch_vox": [9, 9]}, "patch_vox: expected three integers"),
        ({"cell_diameter_um": 5, "patch_vox": [8, 9, 9]}, r"more than twice margin_vox \(4\)"),
        ({"cell_diameter_um": 5, "detector": {"threshold": 0.5}}, "chosen on the validation data"),
        (
            {"cell_diameter_um": 5, "detector": {"method": "x"}},
            r"training\.detector\.method: expected",
        ),
        (
            {"cell_diameter_um": 5, "network": {"layers": 3}},
            r"training\.network: unknown key 'layers'",
        ),
        (
            {"cell_diameter_um": 5, "network": {"kind": "unet"}},
            r"training\.network\.kind: expected msdnet, found",
        ),
        ({"cell_diameter_um": 5, "target": "skeleton"}, "training.target: expected one of"),
        ({"cell_diameter_um": 5, "device": "tpu"}, "training.device: expected one of"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(VoxmillError, match=message):
        TrainingSettings.from_dict(settings)


def test_settings_survive_json():
    text = json.dumps(dataclasses.asdict(TINY))
    assert TrainingSettings.from_dict(json.loads(text)) == TINY


# The job


def job_arguments(folder, **volume_changes):
    source = make_source()
    tifffile.imwrite(folder / "v.tif", source.volume.array)
    rows = "".join(f"{z},{y},{x}\n" for z, y, x in source.points)
    (folder / "t.csv").write_text("z_vox,y_vox,x_vox\n" + rows)
    volume = {
        "path": str(folder / "v.tif"),
        "voxel_size_um": [1, 1, 1],
        "truth": {"path": str(folder / "t.csv"), "kind": "points"},
        "validation": "0:24, 0:24, 28:40",
    }
    return {
        "volumes": {"blobs": volume | volume_changes},
        "settings": dataclasses.asdict(TINY),
        "output_path": folder / "net.safetensors",
        "curves_path": folder / "net.csv",
        "figure_path": folder / "net.png",
        "checkpoint_path": folder / "net.checkpoint",
        "threads": 1,
    }


def test_job_writes_a_model_that_can_be_loaded(tmp_path):
    train_network(**job_arguments(tmp_path))
    card, network = models.load(tmp_path / "net.safetensors")
    assert card.name == "net" and 0 < card.threshold <= 1
    # 12 cells in 24 x 24 x 40 voxels of 1 um.
    assert card.seen["density_per_mm3"] == [520833.3] * 2
    assert set(card.seen) == {"background", "contrast", "density_per_mm3"}
    assert card.training["volumes"]["blobs"]["cells"] == 12
    assert card.training["volumes"]["blobs"]["mask"] is None
    assert card.training["settings"]["seed"] == 0
    assert network.settings.outputs == 1
    lines = (tmp_path / "net.csv").read_text().splitlines()
    assert lines[0].startswith("step,loss,learning_rate,f1") and len(lines) == 3
    assert (tmp_path / "net.png").stat().st_size > 1000
    assert not (tmp_path / "net.checkpoint").exists()


def test_a_job_that_was_killed_after_its_outputs_is_not_begun_again(tmp_path, monkeypatch):
    """Snakemake then removes the outputs and does the job again."""
    arguments = job_arguments(tmp_path)
    train_network(**arguments)
    weights = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "net.safetensors").unlink()
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda trainer: pytest.fail("step 0 again"))
    train_network(**arguments)
    assert (tmp_path / "net.safetensors").read_bytes() == weights
    monkeypatch.setattr(Trainer, "step", step)
    other = dataclasses.asdict(dataclasses.replace(TINY, seed=5))
    train_network(**arguments | {"settings": other})
    assert (tmp_path / "net.safetensors").read_bytes() != weights


def test_job_claims_its_device_and_leaves_a_record(tmp_path, monkeypatch):
    record = tmp_path / "net.jobs.jsonl"
    arguments = job_arguments(tmp_path) | {"record_path": record}
    train_network(**arguments)
    start, claim, end = (json.loads(line) for line in record.read_text().splitlines())
    assert (start["event"], claim["devices"], end["status"]) == ("start", ["cpu"], "done")
    assert end["task"] == str(tmp_path / "net.safetensors") and end["peak_memory_mb"] > 0
    # A GPU that was asked for and is not there ends the job before it reads a patch.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("VOXMILL_ALLOW_CPU", raising=False)
    arguments["settings"] = arguments["settings"] | {"device": "cuda"}
    with pytest.raises(SystemExit):
        train_network(**arguments, gpus=1)
    assert "expected 1 GPU(s), found 0" in json.loads(record.read_text().splitlines()[-1])["error"]


@pytest.mark.parametrize("changes", [{"foreground": True}, {"target": "mask"}])
def test_masks_from_training_to_prediction(tmp_path, changes):
    arguments = job_arguments(tmp_path)
    source = make_source()
    blobs = centroid_target(source.points, (0, 0, 0), source.volume.shape, (1, 1, 1), 1.5) > 0.3
    tifffile.imwrite(tmp_path / "m.tif", blobs.astype(np.uint8))
    arguments["volumes"]["blobs"]["mask"] = str(tmp_path / "m.tif")
    arguments["settings"] = dataclasses.asdict(
        dataclasses.replace(TINY, **changes, steps=60, validate_every=60, detector={})
    )
    train_network(**arguments)
    card, network = models.load(tmp_path / "net.safetensors")
    first = changes.get("target", "centroid")
    assert card.outputs == ((first, "foreground") if "foreground" in changes else (first,))
    assert card.detector["method"] == ("components" if first == "mask" else "maxima")
    record = card.training["volumes"]["blobs"]
    assert (record["truth"], record["mask"]) == ("t.csv", "m.tif")
    for key, name in {"truth_sha256": "t.csv", "mask_sha256": "m.tif"}.items():
        assert record[key] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    grey = source.grey.normaliser(card.normalisation)(source.volume.array, (0, 0, 0))
    outputs = forward(network, grey[None], "auto", "cpu", "float32", 1)
    assert outputs.shape == (len(card.outputs), 24, 24, 40)
    # The detector gets the first output; its highest voxels lie in the blobs.
    assert blobs[outputs[0] >= np.quantile(outputs[0], 0.995)].mean() > 0.9


def test_fine_tuning_uses_the_network_of_the_model(tmp_path):
    train_network(**job_arguments(tmp_path))
    start = tmp_path / "net.safetensors"
    arguments = job_arguments(tmp_path) | {
        "settings": {"steps": 2, "patch_vox": [12, 12, 12], "margin_vox": 1, "device": "cpu"},
        "output_path": tmp_path / "fine.safetensors",
        "initial_path": start,
    }
    train_network(**arguments)
    card = models.read_card(tmp_path / "fine.safetensors")
    assert card.settings["depth"] == 3 and card.cell_diameter_um == 6.0
    assert card.training["started_from"]["model"] == "net"


def test_fine_tuning_learns_what_the_model_has_learnt(tmp_path):
    learnt = dataclasses.asdict(dataclasses.replace(TINY, positive_weight=1.0))
    trained = train([make_source()], dataclasses.replace(TINY, steps=1), "cpu", 1)
    detector = {"method": "components", "min_volume_um3": 9.0}
    card = models.ModelCard(
        name="start", network="msdnet", outputs=("mask",), cell_diameter_um=6.0, detector=detector,
        settings={k: v for k, v in learnt["network"].items() if k != "kind"},
        training={"settings": learnt},
    )  # fmt: skip
    start = tmp_path / "start.safetensors"
    models.save(start, trained.network, card)
    filled = fine_tuning_settings({}, start)
    assert filled["target"] == "mask" and filled["positive_weight"] == 1.0
    assert filled["detector"]["min_volume_um3"] == 9.0
    assert filled["augmentation"] == learnt["augmentation"]
    # Lengths of the detector are for cells of the model's diameter.
    assert "detector" not in fine_tuning_settings({"cell_diameter_um": 9.0}, start)
    assert "detector" not in fine_tuning_settings({"touching": "centre"}, start)
    assert "positive_weight" not in fine_tuning_settings({"target": "centroid"}, start)


def test_the_model_to_start_from_is_kept_unless_the_training_is_better(caplog):
    source = make_source()
    start = train([source], dataclasses.replace(TINY, steps=60, validate_every=60), "cpu", 1)
    weights = start.network.state_dict()
    ruin = dataclasses.replace(TINY, learning_rate=5.0, gradient_norm=1e6, average=0)
    kept = train([source], ruin, "cpu", 1, initial=weights, threshold=0.123)
    assert [row["step"] for row in kept.history] == [0, 3, 6]
    assert kept.history[0]["loss"] is None
    assert kept.validation["step"] == 0 and kept.validation["threshold"] == 0.123
    assert all(torch.equal(v, weights[k]) for k, v in kept.network.state_dict().items())
    assert "no validation was better by more than chance than the model to" in caplog.text
    caplog.clear()
    # The standard error of 0.6 of 24 cells is 0.1.
    held = make_source(1, cells=24, validation=Box.from_shape((24, 24, 40)))
    trainer = Trainer([make_source(validation=None), held], TINY, "cpu", 1)
    assert trainer._chance({"step": 0, "f1": 0.6}) == pytest.approx(0.1)
    assert trainer._chance({"step": 3, "f1": 0.6}) == 0
    # What was bright is dark: worse than anything that is learnt.
    worse = weights | {"final_weight": -weights["final_weight"]}
    longer = dataclasses.replace(TINY, steps=60, validate_every=60)
    better = train([source], longer, "cpu", 1, initial=worse)
    assert better.validation["step"] > 0 and not caplog.text


def test_initial_weights_gain_and_lose_the_foreground_output(tmp_path):
    train_network(**job_arguments(tmp_path))
    start = tmp_path / "net.safetensors"
    filled = fine_tuning_settings({"foreground": True}, start)
    weights = initial_weights(start, TrainingSettings.from_dict(filled))
    assert weights["final_weight"].shape[0] == 2
    assert torch.equal(weights["final_weight"][0], weights["final_weight"][1])
    other = TrainingSettings.from_dict({**filled, "network": {"depth": 4}})
    with pytest.raises(VoxmillError, match="fine-tuning needs the network of this model"):
        initial_weights(start, other)


def test_job_without_voxel_size(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train_network(**job_arguments(tmp_path, voxel_size_um=None))
    assert "Set voxel_size_um of training volume 'blobs'" in capsys.readouterr().err


def test_job_with_a_constant_volume(tmp_path, capsys):
    arguments = job_arguments(tmp_path)
    tifffile.imwrite(tmp_path / "v.tif", np.full((24, 24, 40), 7, np.uint16))
    with pytest.raises(SystemExit):
        train_network(**arguments)
    assert "expected a volume with contrast" in capsys.readouterr().err
