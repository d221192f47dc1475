"""Phantoms' exact labels, and what the segmentation makes of them: volumes, splits, merges."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from voxmill.cells.foreground import read_foreground
from voxmill.cells.label_slab import grown, needed_margin
from voxmill.cells.seeds import Seeds
from voxmill.config.objects import ObjectSettings
from voxmill.config.phantoms import PhantomSettings
from voxmill.engine.build import compiler
from voxmill.evaluation.instances import count_overlaps, splits_and_merges
from voxmill.geometry import Box, VoxelSize
from voxmill.phantoms import parts
from voxmill.phantoms.make_phantom import draw_labelled
from voxmill.volumes.blocks import ArrayVolume

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

# About 900 voxels a cell, more than half of them placed against another one.
PHANTOM = PhantomSettings(
    shape_vox=(40, 64, 72), voxel_size_um=(1.0, 1.0, 1.0), density_per_mm3=180_000.0, touching=0.6,
    vessels_per_mm3=0.0, blur_um=(0.8, 0.5, 0.5), hollow=0.0, seed=2,
)  # fmt: skip
LARGE_VOX = 200
SIZE = VoxelSize.of(PHANTOM.voxel_size_um)
WHOLE = Box.from_shape(PHANTOM.shape_vox)


def volumes_of(labels, count):
    return np.bincount(labels.ravel(), minlength=count + 1)[1:]


@pytest.fixture(scope="module")
def phantom():
    """Grey values, seeds at the true places, true labels, and a map as masks are learned."""
    volume, places, truth = draw_labelled(PHANTOM)
    places = np.clip(places, 0, np.array(PHANTOM.shape_vox) - 1)
    # Where cells touch the map is lower, as networks that learned labels leave it.
    highest = ndimage.maximum_filter(truth, 3)
    lowest = ndimage.minimum_filter(np.where(truth > 0, truth, truth.max() + 1), 3)
    gap = (truth > 0) & (highest != lowest)
    learned = ndimage.gaussian_filter((1.0 * (truth > 0) - 0.4 * gap).astype(np.float32), 0.6)
    learned = np.clip(learned, 0, 1)
    seeds = Seeds(places, np.arange(1, len(places) + 1))
    assert (volumes_of(truth, len(places)) > LARGE_VOX).sum() >= 15
    return volume, seeds, truth, learned


def chosen(foreground):
    threshold = 0.45 if foreground == "image" else 0.5
    return ObjectSettings(foreground=foreground, threshold=threshold, largest_radius_um=12.0)


def label(phantom, foreground, block=WHOLE):
    """Labels of a block, read with its margin."""
    volume, seeds, _, learned = phantom
    source, settings = volume if foreground == "image" else learned, chosen(foreground)
    window = block.grow(needed_margin(settings, SIZE), within=WHOLE)
    values = read_foreground(ArrayVolume(source), window, SIZE, settings)
    return grown(values, window.start, block, WHOLE, seeds.near(window), SIZE, settings)


@pytest.fixture(scope="module")
def at_once(phantom):
    return {foreground: label(phantom, foreground) for foreground in ("probability", "image")}


def test_true_labels_have_the_volumes_of_their_ellipsoids():
    """Where cells do not touch and do not reach the border, voxels are all that rounds them."""
    settings = dataclasses.replace(PHANTOM, touching=0.0, density_per_mm3=40_000.0)
    settings = dataclasses.replace(settings, shape_vox=(64, 96, 96))
    rng = np.random.default_rng(settings.seed)
    extent = np.array(settings.shape_vox) * SIZE.array
    nothing = np.zeros((0, 3)), np.zeros(0)
    centres, radii = parts.place_cells(rng, settings, extent, nothing)
    light = np.zeros(settings.shape_vox, np.float32)
    labels = parts.draw_cells(light, rng, settings, centres, radii)
    gaps = np.linalg.norm(centres[:, None] - centres, axis=2) + np.diag([np.inf] * len(centres))
    # No axis of an ellipsoid is longer than 1.6 of its mean one.
    alone = (gaps > 1.6 * (radii[:, None] + radii)).all(axis=1)
    alone &= (np.minimum(centres, extent - centres) > 1.6 * radii[:, None]).all(axis=1)
    assert alone.sum() >= 4
    found = volumes_of(labels, len(centres))[alone] * SIZE.volume_um3
    np.testing.assert_allclose(found, 4 / 3 * np.pi * radii[alone] ** 3, rtol=0.03)


@pytest.mark.parametrize("foreground", ["probability", "image"])
def test_volumes_of_large_cells_are_within_a_tenth(phantom, at_once, foreground):
    """Of a learned map each that the border does not cut, of the image alone the median."""
    truth, count = phantom[2], len(phantom[1].ids)
    true, found = volumes_of(truth, count), volumes_of(at_once[foreground], count)
    errors = found / np.maximum(true, 1) - 1
    assert abs(np.median(errors[true > LARGE_VOX])) < 0.1
    if foreground == "probability":
        inside = np.pad(truth[1:-1, 1:-1, 1:-1], 1)
        inner = ~np.isin(np.arange(1, count + 1), truth[truth != inside])
        assert (inner & (true > LARGE_VOX)).sum() >= 8
        assert np.abs(errors[inner & (true > LARGE_VOX)]).max() < 0.1
    overlaps = count_overlaps(ArrayVolume(truth), ArrayVolume(at_once[foreground]))
    assert splits_and_merges(overlaps) == {"split_objects": 0, "merged_objects": 0}


@settings(max_examples=12, deadline=None)
@given(
    st.tuples(st.integers(13, 40), st.integers(13, 64), st.integers(13, 72)),
    st.sampled_from(["probability", "image"]),
)  # fmt: skip
def test_no_tile_size_splits_or_merges_a_cell(phantom, at_once, tile, foreground):
    found = np.zeros(PHANTOM.shape_vox, np.uint32)
    for block in WHOLE.blocks(tile):
        found[block.slices] = label(phantom, foreground, block)
    expected = at_once[foreground]
    overlaps = count_overlaps(ArrayVolume(expected), ArrayVolume(found))
    assert splits_and_merges(overlaps) == {"split_objects": 0, "merged_objects": 0}
    np.testing.assert_array_equal(found, expected)
