"""NIfTI that is read and written."""

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmill.denoising.nifti import read_like, read_scan, write_like
from voxmill.runtime.errors import VoxmillError

AFFINE = np.array([[0, 0, -1.2, 90], [0.9, 0, 0, -126], [0, -0.9, 0, 72], [0, 0, 0, 1.0]])


def save(path, data, affine=AFFINE, slope=None, image=nibabel.Nifti1Image, **header):
    made = image(data, affine)
    made.header.set_xyzt_units("mm", "sec")
    made.header["descrip"] = b"a T1 scan"
    for key, value in header.items():
        made.header[key] = value
    if slope is not None:
        made.header.set_slope_inter(*slope)
    nibabel.save(made, path)
    return path


def ramp(shape=(3, 4, 5), kind=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(kind)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("image", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_writing_what_was_read_gives_the_same_image(tmp_path, suffix, image, kind):
    scan = read_scan(save(tmp_path / f"in{suffix}", ramp(kind=kind), image=image))
    write_like(tmp_path / f"out{suffix}", scan.data, scan)
    first, second = nibabel.load(scan.path), nibabel.load(tmp_path / f"out{suffix}")
    assert np.array_equal(first.dataobj, second.dataobj)
    assert np.array_equal(first.affine, second.affine)
    assert type(first) is type(second)
    assert first.header == second.header
    assert second.get_data_dtype() == kind
    assert nibabel.aff2axcodes(second.affine) == nibabel.aff2axcodes(AFFINE)


def test_slope_and_intercept_are_kept(tmp_path):
    scan = read_scan(save(tmp_path / "in.nii", ramp(), slope=(0.5, 10.0)))
    assert scan.data.ravel()[:3].tolist() == [10.0, 10.5, 11.0]
    write_like(tmp_path / "out.nii", scan.data + 0.2, scan)
    back = nibabel.load(tmp_path / "out.nii")
    assert (back.dataobj.slope, back.dataobj.inter) == (0.5, 10.0)
    assert np.array_equal(back.dataobj, nibabel.load(scan.path).dataobj)


def test_integers_are_rounded_and_cut_to_their_range(tmp_path):
    scan = read_scan(save(tmp_path / "in.nii", ramp(kind=np.uint8)))
    data = np.full(scan.data.shape, 1e6)
    data[0, 0] = [-5, 0.4, 0.6, 254.6, 300]
    write_like(tmp_path / "out.nii", data, scan)
    stored = np.asarray(nibabel.load(tmp_path / "out.nii").dataobj)
    assert stored[0, 0].tolist() == [0, 0, 1, 255, 255]
    assert stored[1].min() == 255


@settings(max_examples=20, deadline=None)
@given(st.floats(-40_000, 40_000), st.sampled_from([1.0, 0.25, 3.0]), st.sampled_from([0.0, -7.0]))
def test_written_integers_are_within_half_a_step_or_at_the_limit(
    tmp_path_factory, value, slope, inter
):
    folder = tmp_path_factory.mktemp("nifti")
    scan = read_scan(save(folder / "in.nii", ramp(), slope=(slope, inter)))
    write_like(folder / "out.nii", np.full(scan.data.shape, value), scan)
    found = float(np.asarray(nibabel.load(folder / "out.nii").dataobj)[0, 0, 0])
    limits = np.array([-32768, 32767]) * slope + inter
    assert abs(found - np.clip(value, *limits)) <= slope / 2 + 1e-6


def test_a_volume_of_a_series(tmp_path):
    series = ramp((3, 4, 5, 2))
    path = save(tmp_path / "in.nii", series)
    scan = read_scan(path, volume=1)
    assert np.array_equal(scan.data, series[..., 1])
    write_like(tmp_path / "out.nii", scan.data, scan)
    back = nibabel.load(tmp_path / "out.nii")
    assert back.shape == (3, 4, 5)
    assert back.header.get_zooms() == nibabel.load(path).header.get_zooms()[:3]
    with pytest.raises(VoxmillError, match="series of 2 volumes: say which"):
        read_scan(path)
    with pytest.raises(VoxmillError, match="volume from 0 to 1, found volume 2"):
        read_scan(path, volume=2)


def test_a_series_of_one_volume_needs_no_number(tmp_path):
    path = save(tmp_path / "in.nii", ramp((3, 4, 5, 1)))
    assert read_scan(path).data.shape == read_scan(path, volume=0).data.shape == (3, 4, 5)


def test_bad_scans(tmp_path):
    def refused(message, data, rician=False, volume=None, **kwargs):
        path = save(tmp_path / "bad.nii", data, **kwargs)
        with pytest.raises(VoxmillError, match=message):
            read_scan(path, rician=rician, volume=volume)

    refused("3D or 4D image, found 2D", ramp((4, 5)))
    refused("3D or 4D image, found 5D", ramp((3, 4, 5, 1, 3)))
    refused("a 3D scan has no volume 2", ramp(), volume=2)
    refused("every voxel is 7", np.full((3, 4, 5), 7, np.int16))
    refused("down to -1, which a magnitude image", ramp() - 1, rician=True)
    refused("one real number per voxel, found complex64", ramp(kind=np.complex64))
    nans = ramp(kind=np.float32)
    nans[0, 0, :2] = np.nan, np.inf
    refused("2 of 60 voxels are NaN or infinite", nans)
    path = save(tmp_path / "singular.nii", ramp())
    content = bytearray(path.read_bytes())
    content[280:296] = bytes(16)  # srow_x of the header; nibabel itself refuses to write this
    path.write_bytes(content)
    with pytest.raises(VoxmillError, match="affine is singular"):
        read_scan(path)
    with pytest.raises(VoxmillError, match="does not exist"):
        read_scan(tmp_path / "none.nii")
    (tmp_path / "text.nii").write_text("no image")
    with pytest.raises(VoxmillError, match=r"expected a NIfTI image \(.nii"):
        read_scan(tmp_path / "text.nii")
    nibabel.save(nibabel.MGHImage(ramp(kind=np.float32), AFFINE), tmp_path / "other.mgz")
    with pytest.raises(VoxmillError, match="found MGHImage"):
        read_scan(tmp_path / "other.mgz")


def test_a_file_cut_short(tmp_path):
    path = save(tmp_path / "in.nii", ramp((30, 30, 30)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(VoxmillError, match="voxels cannot be read"):
        read_scan(path)
    zipped = save(tmp_path / "in.nii.gz", ramp((30, 30, 30)))
    zipped.write_bytes(zipped.read_bytes()[:5000])
    with pytest.raises(VoxmillError, match="voxels cannot be read"):
        read_scan(zipped)


def test_negative_intensities_are_allowed_without_rician_noise(tmp_path):
    assert read_scan(save(tmp_path / "in.nii", ramp() - 5)).data.min() == -5


def test_reference_must_lie_on_the_grid_of_the_scan(tmp_path):
    scan = read_scan(save(tmp_path / "in.nii", ramp()))
    same = save(tmp_path / "same.nii", ramp(kind=np.float32))
    assert np.array_equal(read_like(same, scan, "reference"), scan.data)
    with pytest.raises(VoxmillError, match=r"expected a mask of the shape .*\(3, 4, 5\), found"):
        read_like(save(tmp_path / "small.nii", ramp((3, 4, 4))), scan, "mask")
    shifted = AFFINE.copy()
    shifted[0, 3] += 5
    with pytest.raises(VoxmillError, match="this reference lies elsewhere"):
        read_like(save(tmp_path / "moved.nii", ramp(), affine=shifted), scan, "reference")
