"""Detail restored from the noisy volume, against results computed by hand where possible."""

import pytest
import torch
from scipy import ndimage

from voxmill.denoising import detail
from voxmill.denoising.detail import cosine, cosine_of_blocks, restore_detail

torch.set_num_threads(1)


def volume(shape=(9, 11, 10), seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 1.0


@pytest.mark.parametrize("size", [2, 4, 5, 16])
def test_cosines_are_orthonormal_and_begin_with_the_mean(size):
    matrix = cosine(size)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size), atol=1e-6, rtol=0)
    torch.testing.assert_close(matrix[0], torch.full((size,), size**-0.5))


def test_block_transform_is_the_product_along_the_axes():
    block = volume((4, 4, 4))
    line = cosine(4)
    expected = torch.einsum("az,by,cx,zyx->abc", line, line, line, block)
    torch.testing.assert_close((cosine_of_blocks(4) @ block.flatten()).reshape(4, 4, 4), expected)


@pytest.mark.parametrize("shape", [(9, 11, 10), (3, 8, 5), (20, 6, 7)])
@pytest.mark.parametrize("block_vox", [2, 4])
def test_without_noise_the_volume_is_unchanged_and_without_signal_it_is_zero(shape, block_vox):
    noisy = volume(shape)
    same = restore_detail(noisy, noisy, 1e-7, block_vox)
    torch.testing.assert_close(same, noisy, atol=1e-4, rtol=0)
    assert restore_detail(noisy, torch.zeros(shape), 1.0, block_vox).abs().max() == 0


def test_a_constant_estimate_keeps_the_mean_of_the_scan():
    noisy = torch.full((8, 8, 8), 3.0)
    found = restore_detail(noisy, torch.full((8, 8, 8), 100.0), 0.1, 4)
    torch.testing.assert_close(found, noisy, atol=1e-3, rtol=0)


def test_detail_that_an_estimate_lacks_is_restored():
    truth = torch.zeros(24, 24, 24)
    truth[6:18, 6:18, 6:18] = 1.0
    truth[10:12] += 0.5
    noisy = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    smooth = torch.from_numpy(ndimage.gaussian_filter(truth.numpy(), 0.8))
    found = restore_detail(noisy, smooth, 0.1, 4)

    def error(volume):
        return (volume - truth).square().mean()

    assert error(found) < 0.5 * error(smooth)
    assert error(found) < 0.5 * error(noisy)


def test_the_result_does_not_depend_on_how_the_work_is_split(monkeypatch):
    noisy, estimate = volume(seed=1), volume(seed=2)
    expected = restore_detail(noisy, estimate, 0.3, 4)
    monkeypatch.setattr(detail, "LAYERS", 1)
    monkeypatch.setattr(detail, "BATCH", 7)
    torch.testing.assert_close(restore_detail(noisy, estimate, 0.3, 4), expected)


def test_a_group_holds_the_block_itself_and_its_repetition():
    estimate = volume((12, 12, 12))
    estimate[:4, :4, :4] = estimate[3:7, 2:6, 1:5]
    groups = torch.cat(list(detail._similar_blocks(estimate, 4)))
    # References lie every second voxel: five along each axis, the first at the corner.
    assert groups.shape == (125, detail.GROUP)
    assert set(groups[0, :2].tolist()) == {0, 3 * 144 + 2 * 12 + 1}
