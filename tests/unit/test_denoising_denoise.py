"""Domain, metrics, phantom, pictures, record, and the whole job that denoises a scan."""

import dataclasses
import json

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from voxmill.config.denoising import DenoiseSettings
from voxmill.config.scans import ScanPhantomSettings
from voxmill.denoising import figures, noise
from voxmill.denoising.denoise_scan import denoise_scan
from voxmill.denoising.domain import make_domain, padding
from voxmill.denoising.fitting import Fit
from voxmill.denoising.metrics import compare, psnr
from voxmill.phantoms.make_scan import draw_scan, make_scan
from voxmill.runtime.errors import VoxmillError

torch.set_num_threads(1)
SMALL = ScanPhantomSettings(shape_vox=(12, 15, 13), voxel_size_mm=8.0, noise_percent=6, seed=1)
SETTINGS = {
    "network": {"inputs": 2, "down": [4, 4], "up": [4, 4], "skip": [2, 2]},
    "iterations": 6,
    "metrics_every": 2,
    "input": "recorrupted",
}


def spheres():
    return draw_scan(dataclasses.replace(SMALL, shape_vox=(20, 20, 20)))[0]


@pytest.mark.parametrize("kind", ["rician", "rician_bias", "gaussian"])
def test_domain_and_back(kind):
    clean = spheres()
    scan = noise.add_rician(clean, 20.0, seed=0)
    settings = DenoiseSettings(noise=kind, sigma=20.0)
    domain = make_domain(scan, settings)
    target = domain.forward(scan)
    side = settings.network.least_side_vox
    assert target.shape == (side,) * 3
    assert target.min() == pytest.approx(0.05)
    assert target.max() == pytest.approx(0.95)
    back = domain.inverse(target)
    assert back.shape == scan.shape
    bright = scan > 10 * 20.0
    # At large signals the bias is only about sigma^2 / 2nu.
    np.testing.assert_allclose(back[bright], scan[bright], atol=2.0)
    if kind == "gaussian":
        np.testing.assert_allclose(back, scan, atol=1e-3)


@pytest.mark.parametrize("kind", ["rician", "rician_bias"])
@pytest.mark.parametrize("signal", [0.0, 20.0, 60.0, 200.0])
def test_mean_of_fitted_noise_comes_back_without_bias(kind, signal):
    scan = np.full((60, 60, 60), signal)
    scan[0, 0, 0] = 400.0
    noisy = noise.add_rician(scan, 20.0, seed=1)
    domain = make_domain(noisy, DenoiseSettings(noise=kind, sigma=20.0))
    # Where the signal is constant, a perfect denoiser gives the mean of the target.
    target = domain.forward(noisy)
    fitted = np.full_like(target, target.mean())
    assert domain.inverse(fitted)[1, 1, 1] == pytest.approx(signal, abs=3.0)


def test_noise_level_is_estimated_and_its_absence_an_error():
    clean = draw_scan(ScanPhantomSettings(shape_vox=(48, 56, 48)))[0]
    noisy = noise.add_rician(clean, 20.0, seed=2)
    domain = make_domain(noisy, DenoiseSettings())
    assert domain.sigma == pytest.approx(20.0, rel=0.15)
    bright = clean > 200
    deviation = (domain.forward(noisy) - domain.forward(clean))[bright].std()
    assert domain.level == pytest.approx(deviation, rel=0.15)
    with pytest.raises(VoxmillError, match="setting sigma: no noise level could be estimated"):
        make_domain(np.zeros((8, 8, 8)), DenoiseSettings())


@given(st.tuples(*[st.integers(1, 40)] * 3), st.integers(1, 40))
def test_padding_reaches_the_least_side_and_is_undone(shape, least):
    pads = padding(shape, least)
    padded = tuple(side + sum(pad) for side, pad in zip(shape, pads, strict=True))
    assert all(side >= least for side in padded)
    assert all(p == s for p, s in zip(padded, shape, strict=True) if s >= least)
    scan = np.random.default_rng(0).uniform(0, 9, shape)
    scan.flat[0] = 10.0
    settings = DenoiseSettings(noise="gaussian", sigma=1.0)
    domain = dataclasses.replace(
        make_domain(np.pad(scan, 1), settings), pads=pads, low=0.0, high=10.0
    )
    np.testing.assert_allclose(domain.inverse(domain.forward(scan)), scan, atol=1e-4)


def test_metrics_are_scikit_images():
    reference = spheres()
    volume = reference + np.random.default_rng(0).normal(0, 10, reference.shape).astype("f4")
    mask = reference > 0
    found = compare(volume, reference, mask)
    top = reference.max()
    assert found["psnr"] == pytest.approx(
        peak_signal_noise_ratio(reference, volume, data_range=top), rel=1e-6
    )
    assert found["ssim"] == pytest.approx(
        structural_similarity(reference, volume, data_range=top), rel=1e-6
    )
    assert found["psnr_mask"] == pytest.approx(
        peak_signal_noise_ratio(reference[mask], volume[mask], data_range=top), rel=1e-6
    )
    assert set(compare(volume, reference)) == {"psnr", "ssim"}
    assert psnr(0.0, 1.0) == float("inf")
    assert psnr(0.01, 1.0) == pytest.approx(20.0)


def test_phantom_is_a_brain_on_a_black_background():
    volume, mask = draw_scan(ScanPhantomSettings())
    again, _ = draw_scan(ScanPhantomSettings())
    other, _ = draw_scan(ScanPhantomSettings(seed=1))
    assert np.array_equal(volume, again)
    assert not np.array_equal(volume, other)
    assert (volume[~mask] == 0).all()
    assert 0.2 < mask.mean() < 0.4
    inside = volume[mask]
    # Fluid, grey and white matter are each there.
    shares = np.histogram(inside, (0, 180, 330, 600))[0] / inside.size
    assert (shares > 0.05).all()
    with pytest.raises(VoxmillError, match=r"phantom\.shape_vox: expected three integers >= 8"):
        ScanPhantomSettings(shape_vox=(4, 20, 20))
    with pytest.raises(VoxmillError, match="shape_vox: expected three"):
        ScanPhantomSettings(shape_vox=(20, 20))


def test_planes_are_drawn_upright(tmp_path):
    # One bright octant: left, back, bottom in the world, whatever the order of the array.
    volume = np.zeros((10, 12, 14))
    volume[:5, :6, :7] = 1.0
    figures.draw_planes(tmp_path / "a.png", {"v": volume}, np.eye(4))
    turned = np.flip(volume.transpose(2, 0, 1), axis=1)
    affine = np.array([[0, -1, 0, 9], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    figures.draw_planes(tmp_path / "b.png", {"v": turned}, affine)
    first, second = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "ab")
    assert np.array_equal(first, second)
    # Low is at the bottom: the lower half of the sagittal plane holds its bright part.
    assert (first < 250).any()


def write_inputs(folder, **changes):
    paths = {name: str(folder / f"{name}.nii.gz") for name in ("scan", "reference", "mask")}
    make_scan(
        scan_path=paths["scan"],
        reference_path=paths["reference"],
        mask_path=paths["mask"],
        settings=dataclasses.asdict(dataclasses.replace(SMALL, **changes)),
    )
    return paths


def arguments(folder, paths, settings=None, **changes):
    outputs = {
        "output_path": "denoised.nii.gz", "record_path": "denoising.json",
        "history_path": "denoising.csv", "planes_path": "denoised.png",
        "curves_path": "denoising.png", "checkpoint_path": ".denoising.pt",
    }  # fmt: skip
    return {
        "scan_path": paths["scan"],
        "settings": SETTINGS | (settings or {}),
        "devices": ["cpu"],
        **{key: str(folder / name) for key, name in outputs.items()},
        **changes,
    }


def test_the_whole_job(tmp_path):
    paths = write_inputs(tmp_path)
    denoise_scan(
        **arguments(tmp_path, paths, threads=1, settings={"preview_every": 3}),
        reference_path=paths["reference"],
        mask_path=paths["mask"],
        log_path=tmp_path / "log.txt",
    )
    raw, out = nibabel.load(paths["scan"]), nibabel.load(tmp_path / "denoised.nii.gz")
    assert out.shape == raw.shape
    assert out.get_data_dtype() == raw.get_data_dtype() == np.int16
    assert np.array_equal(out.affine, raw.affine)
    assert out.header.get_xyzt_units() == raw.header.get_xyzt_units()
    assert not np.array_equal(out.dataobj, raw.dataobj)

    record = json.loads((tmp_path / "denoising.json").read_text())
    assert DenoiseSettings.from_dict(record["settings"]).iterations == 6
    assert record["stop_reason"] == "all 6 iterations done"
    assert record["iterations"] == 6
    assert record["seed"] == 0
    assert record["peak_bytes"]["host"] > record["planned_peak_bytes"]["cpu"] > 0
    assert {"voxmill", "python", "torch", "numpy"} <= set(record["versions"])
    assert set(record["placement"].values()) == {"cpu"}
    assert {"psnr", "ssim", "psnr_mask", "ssim_mask"} == set(record["metrics"]["denoised"])
    assert record["best_in_hindsight"]["iteration"] in (2, 4, 6)
    table = pd.read_csv(tmp_path / "denoising.csv")
    assert table["iteration"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["loss"].notna().all()
    assert table["psnr_mask"].notna().tolist() == [False, True, False, True, False, True]
    for name in ("denoised.png", "denoising.png"):
        assert min(Image.open(tmp_path / name).size) > 200
    assert not (tmp_path / ".denoising.pt").exists()
    assert not (tmp_path / ".denoising.png").exists()
    assert "memory plan: cpu" in (tmp_path / "log.txt").read_text()


def test_a_job_that_was_killed_after_its_outputs_is_not_begun_again(tmp_path, monkeypatch):
    """Snakemake then removes the outputs and does the job again."""
    paths, settings = write_inputs(tmp_path), {"fits": 2}
    denoise_scan(**arguments(tmp_path, paths, settings))
    names = ("denoised.nii.gz", "denoising.json", "denoising.csv")
    first = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / name).unlink()
    step = Fit.step
    monkeypatch.setattr(Fit, "step", lambda fit: pytest.fail("iteration 0 again"))
    denoise_scan(**arguments(tmp_path, paths, settings))
    for name in ("denoised.nii.gz", "denoising.csv"):
        assert (tmp_path / name).read_bytes() == first[name]
    # Other settings are another fit, without a warning about the old one.
    monkeypatch.setattr(Fit, "step", step)
    denoise_scan(**arguments(tmp_path, paths, settings | {"iterations": 3}))
    assert pd.read_csv(tmp_path / "denoising.csv")["iteration"].max() == 3


def test_a_volume_of_a_series_without_reference(tmp_path):
    paths = write_inputs(tmp_path)
    single = nibabel.load(paths["scan"])
    series = np.stack([np.asarray(single.dataobj) // 2, np.asarray(single.dataobj)], axis=3)
    nibabel.save(nibabel.Nifti1Image(series, single.affine), tmp_path / "scan.nii")
    paths["scan"] = str(tmp_path / "scan.nii")
    denoise_scan(**arguments(tmp_path, paths, volume=1))
    assert nibabel.load(tmp_path / "denoised.nii.gz").shape == single.shape
    record = json.loads((tmp_path / "denoising.json").read_text())
    assert record["scan"]["volume"] == 1
    assert "metrics" not in record


def test_same_seed_same_bytes(tmp_path):
    paths = write_inputs(tmp_path)
    found = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        denoise_scan(**arguments(tmp_path / run, paths))
        found.append(np.asarray(nibabel.load(tmp_path / run / "denoised.nii.gz").dataobj))
    assert np.array_equal(*found)


def refused(capsys, folder, paths, message, settings=None, **changes):
    with pytest.raises(SystemExit) as ended:
        denoise_scan(**arguments(folder, paths, settings=settings, **changes))
    assert ended.value.code == 1
    assert message in capsys.readouterr().err
    assert not (folder / "denoised.nii.gz").exists()


def test_bad_input_is_refused_before_the_fit(tmp_path, capsys):
    paths = write_inputs(tmp_path)
    other = write_inputs(tmp_path / "other", shape_vox=(12, 15, 14))
    said = "expected a reference of the shape of"
    refused(capsys, tmp_path, paths, said, reference_path=other["reference"])
    refused(capsys, tmp_path, paths, "the CPU has no fast arithmetic", {"precision": "float16"})
    refused(capsys, tmp_path, paths, "cpu is named twice", devices=["cpu", "cpu"])
    if not torch.cuda.is_available():
        refused(capsys, tmp_path, paths, "expected 1 GPU(s), found 0", devices=["cuda:0"])
    refused(capsys, tmp_path, paths, "expected auto, cpu, cuda:0", devices=["gpu"])
    refused(capsys, tmp_path, paths, "denoising: unknown key 'epochs'", {"epochs": 3})
    image = nibabel.load(paths["scan"])
    data = np.asarray(image.dataobj).astype(np.int16)
    data[0, 0, 0] = -3
    nibabel.save(nibabel.Nifti1Image(data, image.affine), tmp_path / "negative.nii")
    negative = {"scan": str(tmp_path / "negative.nii")}
    refused(capsys, tmp_path, negative, "cannot have; set `noise: gaussian`")
    empty = tmp_path / "empty.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros(data.shape, np.uint8), image.affine), empty)
    refused(capsys, tmp_path, paths, "voxels above 0, found none", mask_path=str(empty))
    refused(capsys, tmp_path, paths, "maximum above 0", reference_path=str(empty))
    thin = tmp_path / "thin.nii"
    nibabel.save(nibabel.Nifti1Image(data[:, :, :5], image.affine), thin)
    said = "SSIM needs at least 7 voxels"
    refused(capsys, tmp_path, {"scan": str(thin)}, said, {"noise": "gaussian"},
            reference_path=str(thin))  # fmt: skip
