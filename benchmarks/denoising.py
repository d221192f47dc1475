"""Compare denoisers on a real T1 scan with added Rician noise.

    python benchmarks/denoising.py --scan ixi002_t1.nii.gz --mask ixi002_t1_brain_mask.nii.gz

The noise level is a percentage of the crop's maximum. All methods get it, ours too unless
--estimate is set. Needs `pip install bm4d dipy`. Writes table.md, results.json and one picture per
noise level. Finished rows are kept in results.json, so that a killed run continues with the others.
"""

import argparse
import dataclasses
import json
import platform
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from denoising_methods import METHODS

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising import figures
from voxmill.denoising.devices import resolve_devices, resolve_precision
from voxmill.denoising.metrics import compare
from voxmill.denoising.noise import add_rician
from voxmill.denoising.volume import denoise_volume
from voxmill.runtime.files import read_json, write_json, write_text

OURS = "Deep Image Prior (ours)"


def main():
    options = parse()
    scan, mask, affine = read_crop(options.scan, options.mask, options.crop, options.offset)
    about = setup(options, scan)
    options.output.mkdir(parents=True, exist_ok=True)
    for percent in options.noise:
        shown = {}
        for seed in options.seeds:
            noisy = add_rician(scan, percent / 100 * float(scan.max()), seed)
            for method in (*METHODS, OURS):
                volume = finished(options, method, percent, seed)
                if volume is None:
                    volume, row = measure(method, noisy, percent, scan, mask, seed, options)
                    keep(options, about, volume, {"method": method, "percent": percent} | row)
                shown.setdefault(method, volume)
        draw(options.output / f"denoising_{percent:g}.png", shown, scan, affine, percent)
    rows = read_json(options.output / "results.json")["rows"]
    write_text(options.output / "table.md", table(rows, about))
    print(table(rows, about))


def volume_path(options, method, percent, seed):
    """Path of a denoised volume."""
    return options.output / f"{percent:g}_{seed}_{[*METHODS, OURS].index(method)}.npy"


def finished(options, method, percent, seed):
    """Read the volume of an earlier run; None if there is none."""
    path = volume_path(options, method, percent, seed)
    return np.load(path) if path.exists() else None


def keep(options, about, volume, row):
    """Add a row to results.json, then save its volume."""
    path = options.output / "results.json"
    rows = read_json(path)["rows"] if path.exists() else []
    same = ("method", "percent", "seed")
    rows = [r for r in rows if any(r[key] != row[key] for key in same)]
    write_json(path, {"setup": about, "rows": [*rows, row]})
    np.save(volume_path(options, row["method"], row["percent"], row["seed"]), volume)
    print(json.dumps(row), flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--mask", type=Path, required=True)
    parser.add_argument("--crop", type=int, default=0, help="side of the central cube; 0: all")
    parser.add_argument(
        "--offset", type=int, nargs=3, default=[0, 0, 0], help="of the cube's centre, voxels"
    )
    parser.add_argument("--noise", type=float, nargs="+", default=[3, 5, 9], help="percent")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", type=Path, help="YAML of the section `denoising`")
    parser.add_argument("--devices", nargs="+", default=["auto"])
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--estimate", action="store_true", help="ours estimates the noise level")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/denoising"))
    return parser.parse_args()


def read_crop(scan_path, mask_path, side, offset=(0, 0, 0)):
    """Read a cube around the centre of the mask, or the whole scan if `side` is 0.

    Returns
    -------
    scan, mask : (i, j, k) arrays
    affine : (4, 4) array
        That of the whole scan.
    """
    image, mask_image = nibabel.load(scan_path), nibabel.load(mask_path)
    mask = np.asarray(mask_image.dataobj) > 0
    scan = np.asarray(image.dataobj, dtype=np.float32)
    if not side:
        return scan, mask, image.affine
    centre = np.argwhere(mask).mean(axis=0).astype(int) + np.array(offset)
    window = tuple(slice(c - side // 2, c - side // 2 + side) for c in centre)
    if any(s.start < 0 or s.stop > n for s, n in zip(window, scan.shape, strict=True)):
        sys.exit(
            f"--crop {side} --offset {offset}: the cube exceeds the scan's {scan.shape} voxels"
        )
    return scan[window], mask[window], image.affine


def measure(method, noisy, percent, scan, mask, seed, options):
    """Denoise with one method; returns the volume and its row of the table."""
    start = time.perf_counter()
    sigma = percent / 100 * float(scan.max())
    if method != OURS:
        volume = np.asarray(METHODS[method](noisy, sigma), np.float32)
        row = {"seed": seed, "seconds": time.perf_counter() - start}
        return volume, row | compare(volume, scan, mask)
    settings = yaml.safe_load(options.settings.read_text()) if options.settings else {}
    settings |= {"seed": seed} | ({} if options.estimate else {"sigma": sigma})
    chosen = DenoiseSettings.from_dict(settings)
    devices = resolve_devices(options.devices, chosen.precision)
    chosen = dataclasses.replace(chosen, precision=resolve_precision(chosen.precision, devices))
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    fitted = denoise_volume(
        noisy, chosen, devices, reference=scan, mask=mask,
        checkpoint_path=options.output / f"{sigma:.4f}_{seed}.pt",
    )  # fmt: skip
    history = [row for row in fitted.rows if "psnr" in row]
    best = max(history, key=lambda r: r["psnr"])
    row = compare(fitted.volume, scan, mask) | {"seconds": fitted.rows[-1]["seconds"]}
    row |= {
        "seed": seed,
        "iterations": len(fitted.rows),
        "result_of_iterations": list(fitted.best_iterations),
        "reason": fitted.reason,
        "plain": compare(fitted.plain, scan, mask),
        "best_psnr_in_hindsight": best["psnr"],
        "best_iteration_in_hindsight": best["iteration"],
        "last_psnr": history[-1]["psnr"],
        "history": [{k: r[k] for k in ("fit", "iteration", "statistic", "psnr")} for r in history],
    }
    return fitted.volume, row


def setup(options, scan):
    return {
        "scan": options.scan.name,
        "shape": list(scan.shape),
        "offset": options.offset,
        "maximum": float(scan.max()),
        "settings": yaml.safe_load(options.settings.read_text()) if options.settings else {},
        "machine": platform.processor() or platform.machine(),
        "devices": options.devices,
    }


def table(rows, about):
    lines = [
        f"{about['scan']}, {' x '.join(map(str, about['shape']))} voxels; mean over the seeds. "
        "PSNR (dB) and SSIM over all voxels | in the brain mask.",
        "",
        "| noise | method | PSNR | SSIM | PSNR, mask | SSIM, mask | seconds | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for percent in sorted({row["percent"] for row in rows}):
        for method in (*METHODS, OURS):
            group = [r for r in rows if (r["method"], r["percent"]) == (method, percent)]
            if group:
                means = {
                    key: np.mean([row[key] for row in group])
                    for key in ("psnr", "ssim", "psnr_mask", "ssim_mask", "seconds")
                }
                lines.append(
                    f"| {percent:g} % | {method} | {means['psnr']:.2f} | {means['ssim']:.3f} | "
                    f"{means['psnr_mask']:.2f} | {means['ssim_mask']:.3f} | "
                    f"{means['seconds']:.1f} | {len(group)} |"
                )
    ours = [row for row in rows if row["method"] == OURS]
    if ours:
        gap = max(row["best_psnr_in_hindsight"] - row["plain"]["psnr"] for row in ours)
        lines += ["", f"Before its detail is restored, the result lies at most {gap:.2f} dB below "
                  f"the best iteration in hindsight, in {len(ours)} fits."]  # fmt: skip
    return "\n".join(lines) + "\n"


def draw(path, shown, scan, affine, percent):
    kept = {name: volume for name, volume in shown.items() if name != "BM4D"}
    ours = kept[OURS]
    figures.draw_planes(
        path, {**kept, "reference": scan}, affine,
        residual=shown["noisy"] - ours, sigma=percent / 100 * float(scan.max()),
        title=f"Rician noise of {percent:g} % of the maximum (residual: of ours)",
    )  # fmt: skip


if __name__ == "__main__":
    main()
