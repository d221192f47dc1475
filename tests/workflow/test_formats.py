"""Other kinds of files than a plain TIFF, through the workflow: the tiles hold the same voxels."""

import nibabel
import numpy as np
import pytest
import tifffile

from tests.workflow.conftest import SHAPE, make_project, make_volume


def as_gzipped_nifti(folder):
    image = nibabel.Nifti1Image(make_volume().T, np.diag([1.0, 1.0, 2.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, folder / "v.nii.gz")
    return "v.nii.gz"


def as_planes(folder):
    (folder / "planes").mkdir()
    for z, plane in enumerate(make_volume()):
        tifffile.imwrite(folder / "planes" / f"z{z}.tif", plane)
    return "planes"


def as_trailing_channel(folder):
    tifffile.imwrite(folder / "c.tif", make_volume()[..., None], photometric="minisblack")
    return "c.tif"


@pytest.mark.parametrize("write", [as_gzipped_nifti, as_planes, as_trailing_channel])
def test_tiles_are_cut_from_every_kind_of_file(tmp_path, write):
    project = make_project(tmp_path / "project")
    volumes = project.config["volumes"]
    volumes["v"]["path"] = write(project.folder)
    project.configure(volumes=volumes, tiles={"halo_vox": 0})
    project.snakemake("tiles")
    np.testing.assert_array_equal(cut(project), make_volume())
    assert project.path("v/unpacked.nii").exists() == (write is as_gzipped_nifti)


def cut(project):
    """The voxels of the tiles, put together."""
    found = np.empty(SHAPE, np.uint16)
    for path in project.path("v/tiles").glob("*.tif"):
        z, y, x = (int(part[1:]) for part in path.stem.split("_"))
        tile = tifffile.imread(path)
        found[tuple(slice(a, a + n) for a, n in zip((z, y, x), tile.shape, strict=True))] = tile
    return found


@pytest.mark.parametrize("choice", [{"channel": 1}, {"pattern": "*_C01_*"}])
def test_a_stack_of_a_folder_with_two_channels(tmp_path, choice):
    """Refused while planning; `channel` or `pattern` chooses one for the whole run."""
    project = make_project(tmp_path / "project")
    (project.folder / "planes").mkdir()
    for z, plane in enumerate(make_volume()):
        for channel, values in enumerate((plane // 2, plane)):
            name = f"UltraII_C0{channel}_xyz-Table Z{z:04d}.tif"
            tifffile.imwrite(project.folder / "planes" / name, values)
    volumes = project.config["volumes"]
    volumes["v"]["path"] = "planes"
    project.configure(volumes=volumes, tiles={"halo_vox": 0})
    refused = project.snakemake("-n", "tiles", ok=False)
    assert "found also C00, C01" in refused
    volumes["v"] |= choice
    project.configure(volumes=volumes, tiles={"halo_vox": 0})
    project.snakemake("tiles")
    np.testing.assert_array_equal(cut(project), make_volume())


def test_a_doubtful_voxel_size_is_told_while_planning(tmp_path):
    project = make_project(tmp_path / "project")
    volumes = project.config["volumes"]
    volumes["v"]["voxel_size_um"] = [2000, 1000, 1000]
    project.configure(volumes=volumes)
    told = project.snakemake("-n")
    assert told.count("volumes.v: v.tif: an implausible voxel size, 2000 x 1000 x 1000") == 1
