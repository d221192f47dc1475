"""Voxel sizes that no microscope makes, and sizes in another order than the file's."""

import nibabel
import numpy as np
import pytest
import volume_files

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import read_header
from voxmill.volumes.plausible import check_plausible


def header(tmp_path, zyx, unit="micron"):
    image = nibabel.Nifti1Image(np.zeros((6, 5, 4), np.uint8), np.diag([*zyx[::-1], 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "v.nii")
    return read_header(tmp_path / "v.nii")


def test_a_size_of_a_microscope_is_not_doubted(tmp_path):
    assert check_plausible(header(tmp_path, (5, 2, 2))) == []
    assert check_plausible(header(tmp_path, (5, 2, 2)), (3, 1, 1)) == []


def test_a_wrong_unit(tmp_path):
    """25 um called 25 mm, mm called um, metres called mm."""
    for size, unit in (((25, 25, 25), "mm"), ((5, 1.6, 1.6), "mm"), ((1, 1, 1), "meter")):
        found = header(tmp_path, size, unit)
        with pytest.raises(VoxmillError, match=r"v\.nii: expected a voxel size of .*unit seems"):
            check_plausible(found)
        assert check_plausible(found, (5, 2, 2)) == []
    with pytest.raises(VoxmillError, match="found 5e-06 x"):
        check_plausible(header(tmp_path, (5e-6, 2e-6, 2e-6)))
    (warning,) = check_plausible(header(tmp_path, (0.5, 0.5, 0.5), "mm"))
    assert "implausible voxel size, 500 x 500 x 500 micrometres (NIfTI pixdim" in warning
    (warning,) = check_plausible(header(tmp_path, (0.005, 0.002, 0.002)))
    assert "microscopes make 0.05 to 100" in warning
    (warning,) = check_plausible(header(tmp_path, (5, 2, 2)), (5000, 2000, 2000))
    assert "5000 x 2000 x 2000 micrometres (voxel_size_um" in warning


def test_an_order_that_differs_from_the_files(tmp_path):
    found = header(tmp_path, (5, 1.6, 1.6))
    (warning,) = check_plausible(found, (1.6, 1.6, 5))
    assert "voxel_size_um is 1.6 x 1.6 x 5 (z, y, x), the file says 5 x 1.6 x 1.6" in warning
    assert check_plausible(found, (5, 1.6, 1.6001)) == []
    assert check_plausible(found, (10, 3.2, 3.2)) == []


def test_a_file_without_a_size(tmp_path):
    found = read_header(volume_files.tiff(tmp_path / "v", np.zeros((4, 5, 6), np.uint8)))
    assert check_plausible(found) == []
    assert check_plausible(found, (5, 2, 2)) == []
