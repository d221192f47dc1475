"""Measure each choice of the denoiser: one crop, one noise level, one change at a time.

    python benchmarks/denoising_ablation.py --scan SCAN --mask MASK

Every variant is denoising_small.yaml with the changes of denoising_ablation.yaml, for a fixed
number of iterations, so that the curve shows where it is best and how fast it overfits. Finished
variants are kept in ablation.json; a killed run continues with the others.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from denoising import read_crop

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising.devices import resolve_devices
from voxmill.denoising.metrics import compare
from voxmill.denoising.noise import add_rician
from voxmill.denoising.volume import denoise_volume
from voxmill.runtime.files import read_json, write_json, write_text

HERE = Path(__file__).resolve().parent


def main():
    options = parse()
    scan, mask, _ = read_crop(options.scan, options.mask, options.crop)
    sigma = options.noise / 100 * float(scan.max())
    noisy = add_rician(scan, sigma, options.seed)
    base = yaml.safe_load((HERE / "denoising_small.yaml").read_text())
    base |= {"sigma": sigma, "seed": options.seed, "stop": {"rule": "fixed"}}
    base |= {"iterations": options.iterations}
    path = options.output / "ablation.json"
    rows = read_json(path)["rows"] if path.exists() else []
    for name, changes in yaml.safe_load((HERE / "denoising_ablation.yaml").read_text()).items():
        if any(row["variant"] == name for row in rows):
            continue
        settings = DenoiseSettings.from_dict(merged(base, changes or {}))
        fitted = denoise_volume(
            noisy, settings, resolve_devices(options.devices, settings.precision),
            reference=scan, mask=mask,
        )  # fmt: skip
        best = max((row for row in fitted.rows if "psnr" in row), key=lambda row: row["psnr"])
        row = {"variant": name, "last": compare(fitted.volume, scan, mask)}
        row |= {"best": {k: best[k] for k in ("iteration", "psnr", "ssim", "psnr_mask")}}
        rows.append(row | {"seconds": fitted.rows[-1]["seconds"]})
        write_json(path, {"shape": list(scan.shape), "noise_percent": options.noise, "rows": rows})
        print(json.dumps(rows[-1]), flush=True)
    write_text(options.output / "ablation.md", table(rows, scan.shape, options))
    print(table(rows, scan.shape, options))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--mask", type=Path, required=True)
    parser.add_argument("--crop", type=int, default=40, help="side of the central cube")
    parser.add_argument("--noise", type=float, default=9, help="percent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--devices", nargs="+", default=["auto"])
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/ablation"))
    return parser.parse_args()


def merged(base, changes):
    """Merge `changes` into `base`, nested keys one by one."""
    result = dict(base)
    for key, value in changes.items():
        inner = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if inner else value
    return result


def table(rows, shape, options):
    lines = [
        f"{' x '.join(map(str, shape))} voxels, {options.noise:g} % Rician noise, "
        f"{options.iterations} iterations, seed {options.seed}.",
        "",
        "| variant | best PSNR | at iteration | last PSNR | last SSIM | seconds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['variant']} | {row['best']['psnr']:.2f} | {row['best']['iteration']} | "
        f"{row['last']['psnr']:.2f} | {row['last']['ssim']:.3f} | {row['seconds']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
