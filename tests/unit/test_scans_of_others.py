"""Scans as other programs leave them: odd units, NaN, axes of length 1, links, other formats."""

import gzip
import json
import struct

import nibabel
import numpy as np
import pytest
from test_denoising_denoise import SETTINGS, SMALL

from voxmill.denoising import bids, scans
from voxmill.denoising.denoise_scan import denoise_scan
from voxmill.denoising.nifti import read_like, read_scan, write_like
from voxmill.phantoms.make_scan import draw_scan
from voxmill.runtime.errors import VoxmillError

DATA = np.arange(60, dtype="float32").reshape(3, 4, 5)


def save(path, data=DATA, size=1.0, unit="mm", shift=0.0, kind=nibabel.Nifti1Image):
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = np.array([-90, 50, 10]) * size
    affine[0, 3] += shift
    image = kind(data, affine)
    if hasattr(image.header, "set_xyzt_units"):
        image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(
    ("size", "unit", "doubted"),
    [
        (0.0009, "meter", False),
        (1.0, "mm", False),
        (0.025, "mm", False),
        (25.0, "micron", False),
        (0.0008, "mm", True),
        (25.0, "mm", True),
        (1.0, "micron", True),
    ],
)
def test_voxels_of_any_size(tmp_path, caplog, size, unit, doubted):
    scan = read_scan(save(tmp_path / "s.nii", size=size, unit=unit))
    assert np.array_equal(scan.data, DATA)
    assert ("is the unit wrong" in caplog.text) == doubted
    write_like(tmp_path / "o.nii", scan.data, scan)
    assert nibabel.load(tmp_path / "o.nii").header == nibabel.load(tmp_path / "s.nii").header


def test_an_affine_without_volume_is_singular_in_any_unit(tmp_path):
    for size in (1.0, 0.0008):
        path = save(tmp_path / "s.nii", size=size)
        content = bytearray(path.read_bytes())
        content[296:312] = content[280:296]  # srow_y becomes srow_x
        path.write_bytes(content)
        with pytest.raises(VoxmillError, match="affine is singular"):
            read_scan(path)


@pytest.mark.parametrize(("size", "unit"), [(0.8, "micron"), (0.0008, "mm"), (1.0, "mm")])
def test_a_grid_is_compared_in_voxels(tmp_path, size, unit):
    scan = read_scan(save(tmp_path / "s.nii", size=size, unit=unit))
    near = save(tmp_path / "m.nii", size=size, unit=unit, shift=0.01 * size)
    assert read_like(near, scan, "mask").shape == DATA.shape
    far = save(tmp_path / "f.nii", size=size, unit=unit, shift=size)
    with pytest.raises(VoxmillError, match="lies elsewhere"):
        read_like(far, scan, "mask")


def test_axes_of_length_1(tmp_path):
    scan = read_scan(save(tmp_path / "s.nii"))
    for ones in ((1,), (1, 1), (1, 1, 1)):
        path = save(tmp_path / "m.nii", DATA.reshape(*DATA.shape, *ones))
        assert np.array_equal(read_like(path, scan, "mask"), DATA)
        read = read_scan(path)
        assert np.array_equal(read.data, DATA)
        write_like(tmp_path / "o.nii", read.data, read)
        assert nibabel.load(tmp_path / "o.nii").shape == DATA.shape
    series = save(tmp_path / "t.nii", np.stack([DATA, DATA + 1], -1)[..., None])
    assert np.array_equal(read_scan(series, volume=1).data, DATA + 1)
    with pytest.raises(VoxmillError, match="expected a mask of the shape"):
        read_like(series, scan, "mask")


def test_nan_is_refused_or_filled(tmp_path, caplog):
    data = DATA + 1
    data[0] = np.nan
    path = save(tmp_path / "s.nii", data)
    with pytest.raises(VoxmillError, match=r"20 of 60 voxels .*set `denoising\.fill_nan: 0`"):
        read_scan(path)
    filled = read_scan(path, fill_nan=0.0)
    assert (filled.data[0] == 0).all()
    assert np.array_equal(filled.data[1:], data[1:])
    assert "20 of 60 voxels are not finite, set to 0" in caplog.text
    caplog.clear()
    assert np.array_equal(read_scan(save(tmp_path / "t.nii"), fill_nan=7.0).data, DATA)
    assert not caplog.text


def test_a_scan_with_a_background_of_nan_is_denoised(tmp_path, capsys):
    clean, noisy = (np.asarray(image, "float32") for image in draw_scan(SMALL)[:2])
    noisy = np.abs(noisy)
    outside = np.zeros(noisy.shape, bool)
    outside[:2] = True
    for name, image in (("scan", noisy), ("reference", clean)):
        save(tmp_path / f"{name}.nii", np.where(outside, np.nan, image).astype("float32"), size=8.0)
    names = ("output_path", "record_path", "history_path", "planes_path", "curves_path")
    ends = ("out.nii", "r.json", "h.csv", "p.png", "c.png")
    files = {name: str(tmp_path / end) for name, end in zip(names, ends, strict=True)}

    def run(**settings):
        denoise_scan(
            scan_path=str(tmp_path / "scan.nii"), reference_path=str(tmp_path / "reference.nii"),
            checkpoint_path=str(tmp_path / "fit.pt"), devices=["cpu"],
            settings=SETTINGS | {"sigma": 20.0} | settings, **files,
        )  # fmt: skip

    with pytest.raises(SystemExit):
        run()
    assert "voxels are NaN or infinite" in capsys.readouterr().err
    run(fill_nan=0)
    assert np.isfinite(nibabel.load(tmp_path / "out.nii").get_fdata()).all()
    assert json.loads((tmp_path / "r.json").read_text())["settings"]["fill_nan"] == 0


def test_what_is_no_scan_says_what_to_do(tmp_path):
    def refused(path, match):
        with pytest.raises(VoxmillError, match=match):
            read_scan(path)

    colours = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(save(tmp_path / "rgb.nii", colours), r"found colours \(RGB\). Save one channel")
    waves = save(tmp_path / "c.nii", DATA.astype("complex64"))
    refused(waves, "found complex64. Save the magnitude")
    refused(save(tmp_path / "m.mgz", kind=nibabel.MGHImage), "found MGHImage. .*`mri_convert")
    refused(save(tmp_path / "a.img", kind=nibabel.AnalyzeImage), "Image. Convert it, .*nibabel")
    (tmp_path / "d.dcm").write_bytes(bytes(128) + b"DICM" + bytes(300))
    refused(tmp_path / "d.dcm", "dcm2niix")
    (tmp_path / "g.nii").write_bytes(gzip.compress(waves.read_bytes()))
    refused(tmp_path / "g.nii", "It is gzipped: rename it to .nii.gz")
    (tmp_path / "p.nii.gz").write_bytes(waves.read_bytes())
    refused(tmp_path / "p.nii.gz", "It is not gzipped: rename it to .nii")
    (tmp_path / "e.nii.gz").write_bytes(b"")
    refused(tmp_path / "e.nii.gz", "expected a NIfTI image")
    with pytest.raises(VoxmillError, match=r"expected a NIfTI file .*mri_convert"):
        scans.load({"scans": {"x": {"path": "brain.mgz"}}, "denoising": {}})


@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz"])
def test_a_header_that_announces_too_much_allocates_nothing(tmp_path, name):
    path = save(tmp_path / "s.nii")
    content = bytearray(path.read_bytes())
    content[42:48] = struct.pack("<3h", 32000, 32000, 32000)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(VoxmillError, match="cannot be read: the header announces 131072000000000"):
        read_scan(tmp_path / name)


def dataset(root):
    anat = root / "sub-01" / "anat"
    anat.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    return anat


def test_hidden_files_of_a_data_set_are_left_out(tmp_path):
    anat = dataset(tmp_path)
    save(anat / "sub-01_T1w.nii.gz")
    (anat / "._sub-01_T1w.nii.gz").write_bytes(b"\0\5\x16\7")
    assert [scan.path.name for scan in bids.find_scans(tmp_path)] == ["sub-01_T1w.nii.gz"]


def test_links_that_are_not_fetched(tmp_path):
    anat = dataset(tmp_path)
    save(anat / "sub-01_run-1_T1w.nii.gz")
    link = anat / "sub-01_run-2_T1w.nii.gz"
    link.symlink_to("../../.git/annex/objects/ab/cd/MD5E-s9.nii.gz")
    match = r"1 of 2 scans can't be read, .*run-2_T1w.nii.gz: .*not fetched yet: run `datalad get"
    with pytest.raises(VoxmillError, match=match):
        bids.find_scans(tmp_path)
    with pytest.raises(VoxmillError, match="this scan can't be read: its content is not fetched"):
        read_scan(link)
    with pytest.raises(VoxmillError, match=r"scans\.x\.path: .*not fetched yet"):
        scans.load({"scans": {"x": {"path": str(link)}}, "denoising": {}})
    link.unlink()
    link.write_text("../../.git/annex/objects/ab/cd/MD5E-s9.nii.gz")  # as on Windows
    with pytest.raises(VoxmillError, match="not fetched yet"):
        bids.find_scans(tmp_path)
    link.unlink()
    link.symlink_to("elsewhere.nii.gz")
    with pytest.raises(VoxmillError, match=r"a link to elsewhere\.nii\.gz, which does not exist"):
        bids.find_scans(tmp_path)
