"""Accuracy of the Fourier engines for GPUs in float16 at real depths, without a GPU.

    python benchmarks/gpu_accuracy.py

Triton's interpreter is too slow for that, so that torch does here what the kernels do, with the
same roundings: spectra and tables of kernels in float16, each in its unit, and products along x of
numbers rounded to TensorFloat-32; all sums are in float32. The tensor cores' own sums, which keep a
few bits less than float32, are not emulated. First, both ways are compared at depth 3.

Printed are the largest and the root mean square error of the logits, as shares of the largest
logit, and the largest error in probability, against PyTorch in float32.
"""

import argparse
import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import gpu_fourier, triton_fourier, triton_rows
from voxmill.networks import build, models

ROOT = Path(__file__).resolve().parent.parent
ENGINES = {"gpu-fourier": gpu_fourier.logits, "gpu-fused": gpu_fourier.fused_logits}
LEAST = 1e-5  # by how much, of the largest logit, the emulation and the interpreter may differ


class Launched:
    """A function in place of a kernel, whose grid it does not need."""

    def __init__(self, function):
        self.function = function

    def __getitem__(self, grid):
        return self.function


def kernel_table(
    table, weights, cosine_z, sine_z, cosine_y, sine_y, phases,
    first_line, lines, length_z, length_y, targets, sources, padded, **_,
):  # fmt: skip
    """See `voxmill.engine.triton_fourier`."""
    line = torch.arange(first_line, first_line + lines)
    rows = phases[:targets].long()

    def steps(cosine, sine, at):
        wave = torch.complex(cosine, sine)[rows][:, at]
        return torch.stack((wave.conj(), torch.ones_like(wave), wave))

    z, y = steps(cosine_z, sine_z, line // length_y), steps(cosine_y, sine_y, line % length_y)
    waves = (z[:, None] * y[None]).flatten(0, 1)  # tap, target, line
    found = torch.einsum("atl,apts->lpts", waves, weights.to(waves.dtype))
    found[:, 2] *= 1j
    to = table[: lines * 12 * targets * padded].view(lines, 2, 3, targets, padded, 2)
    to.zero_()
    for half, (left, right) in enumerate(((found.real, -found.imag), (found.imag, found.real))):
        to[:, half, ..., :sources, 0] = left
        to[:, half, ..., :sources, 1] = right


def pull(
    sums, spectra, table, cosine_x, sine_x, phases, scales, first_line, lines, columns, row_stride,
    map_stride, sums_stride, targets, sources, padded, ADD, **_,
):  # fmt: skip
    """See `voxmill.engine.triton_fourier`."""
    left = table[: lines * 12 * targets * padded].view(lines, 6 * targets, 2 * padded)
    here = spectra[:sources, :, first_line : first_line + lines, :columns].flatten(0, 1)
    found = left[..., : 2 * sources].float() @ here.float().transpose(0, 1)
    found = found.view(lines, 2, 3, targets, columns)
    rows = phases[:targets].long()
    found = found[:, :, 0] + found[:, :, 1] * cosine_x[rows] + found[:, :, 2] * sine_x[rows]
    found = (found * scales[:targets, None]).permute(2, 0, 3, 1)
    to = sums[:targets].flatten(1, 2)[:, first_line : first_line + lines]
    to.copy_(to + found if ADD else found)


def activate(
    real, logits, bias, weights, scale, length_z, length_y, length_x, real_stride,
    z, y, x, voxels, final_stride, outputs, **_,
):  # fmt: skip
    """See `voxmill.engine.triton_fourier`."""
    value = torch.relu(real[:z, :y, :x] * scale + bias[0])
    real.zero_()
    real[:z, :y, :x] = value
    for output in range(outputs):
        logits[output] += value * weights[output, 0]


def store_spectrum(spectra, spectrum, unit, lines, columns, *_, **__):
    """See `voxmill.engine.triton_fourier`."""
    numbers = spectrum.reshape(lines, columns, 2) * (1.0 / unit[0])
    spectra[:, :, :columns] = numbers.permute(2, 0, 1)


def product(a, b):
    """A product of numbers rounded to TensorFloat-32."""
    return torch.matmul(rounded(a), rounded(b))


def rounded(value):
    """The nearest number of 10 bits behind the point."""
    return ((value.contiguous().view(torch.int32) + 4096) & -8192).view(torch.float32)


def complex_product(a, b):
    """Of pairs of matrices."""
    return (
        product(a[0], b[0]) - product(a[1], b[1]),
        product(a[0], b[1]) + product(a[1], b[0]),
    )


def activate_rows(
    spectrum, logits, bias, weights, tables, scale, first, second, lines, length_y, columns,
    z, y, x, voxels, final_stride, outputs, ACTIVATE, TO_LOGITS, N1, K2, **_,
):  # fmt: skip
    """See `voxmill.engine.triton_rows`; all rows at once."""
    sizes = (N1, N1), (N1, K2), (K2, 2 * K2), (2 * K2, K2)
    both = torch.split(tables, [n for a, b in sizes for n in (a * b, a * b)])
    waves, turns, back, forth = (
        tuple(part.view(size) for part in both[2 * i : 2 * i + 2]) for i, size in enumerate(sizes)
    )
    length = first * second
    k1, k2 = torch.arange(N1)[:, None], torch.arange(K2)[None]
    k = k2 + second * k1
    used = (k1 < first) & (2 * k2 <= second)
    mirrored = 2 * k > length
    k = torch.where(mirrored, length - k, k).clamp(0, columns - 1)
    stored = used & ~(mirrored & ((k2 == 0) | (2 * k2 == second)))
    sign = torch.where(mirrored, -1.0, 1.0)
    flat = spectrum.reshape(lines, columns, 2)
    real, imaginary = (flat[:, k, part] * used for part in (0, 1))  # row, k1, k2
    real, imaginary = complex_product(waves, (real, imaginary * sign))
    turned = real * turns[0] - imaginary * turns[1]
    imaginary = real * turns[1] + imaginary * turns[0]
    value = product(turned, back[0]) - product(imaginary, back[1])  # row, j1, j2
    at = torch.arange(N1)[:, None] + first * torch.arange(2 * K2)[None]
    wanted = (torch.arange(N1)[:, None] < first) & (torch.arange(2 * K2)[None] < second) & (at < x)
    row = torch.arange(lines)
    inside = wanted & ((row // length_y < z) & (row % length_y < y))[:, None, None]
    value = value * scale + (bias[0] if ACTIVATE else 0.0)
    value = torch.where(inside, torch.relu(value) if ACTIVATE else value, 0.0)
    if TO_LOGITS:
        voxel = ((row // length_y * y + row % length_y) * x)[:, None, None] + at
        to = logits.view(outputs, -1)
        for output in range(outputs):
            to[output, voxel[inside]] += value[inside] * weights[output, 0]
        return
    real, imaginary = product(value, forth[0]), product(value, forth[1])
    turned = real * turns[0] - imaginary * turns[1]
    imaginary = real * turns[1] + imaginary * turns[0]
    real, imaginary = complex_product(waves, (turned, imaginary))
    flat[:, k[stored], 0] = real[:, stored]
    flat[:, k[stored], 1] = (-imaginary * sign)[:, stored]


@contextmanager
def emulated():
    """Torch in place of the kernels."""
    with ExitStack() as stack:
        for module, functions in (
            (triton_fourier, (kernel_table, pull, activate, store_spectrum)),
            (triton_rows, (activate_rows,)),
        ):
            for function in functions:
                stack.enter_context(
                    mock.patch.object(module, function.__name__, Launched(function))
                )
        yield


def check(engine) -> float:
    """Difference of the emulation and the interpreter, of the largest logit."""
    settings = MSDNetSettings(depth=3, width=2, outputs=2, dilations=(1, 2))
    network, volume = lively(settings), torch.randn(1, 4, 5, 9)
    expected = engine(network, volume, "float16")
    with emulated():
        found = engine(network, volume, "float16")
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    if error > LEAST:
        raise SystemExit(f"the emulation differs from the interpreter by {error:.2g}")
    return error


def lively(settings: MSDNetSettings):
    """A network as a training starts with, with biases and last weights that are not zero."""
    network = build("msdnet", settings, seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, values in network.named_parameters():
        if "bias" in name or "final" in name:
            values.data = 0.1 * torch.randn(values.shape, generator=generator)
    return network


def networks(depths):
    """Names and networks: with weights as a training starts with, and the shipped ones."""
    for depth in depths:
        yield f"depth {depth}, untrained", lively(MSDNetSettings(depth=depth))
    for path in sorted(ROOT.glob("models/*.safetensors")):
        card, network = models.load(path)
        if card.network == "msdnet":
            yield f"depth {card.settings['depth']}, models/{path.stem}", network


@torch.no_grad()
def main() -> None:
    """Print a row for each network and engine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, nargs="+", default=(10, 30, 50, 100))
    parser.add_argument("--edge", type=int, default=48, help="voxels of the box")
    given = parser.parse_args()
    torch.manual_seed(0)
    for name, engine in ENGINES.items():
        print(f"{name}: emulation and interpreter differ by {check(engine):.1g}")
    print("| network | engine | logits, largest | logits, RMS | probability, largest |")
    print("|---|---|---|---|---|")
    generator = np.random.default_rng(0)
    for name, network in networks(given.depths):
        shape = (network.settings.inputs, *[given.edge] * 3)
        volume = torch.from_numpy(generator.normal(0.5, 0.5, shape).astype(np.float32))
        expected = network(volume[None])[0]
        most = expected.abs().max()
        for engine, evaluate in ENGINES.items():
            with emulated():
                found = evaluate(network, volume, "float16")
            error = (found - expected).abs()
            probability = (found.sigmoid() - expected.sigmoid()).abs().max()
            print(
                f"| {name} | {engine} | {error.max() / most:.1e} "
                f"| {error.square().mean().sqrt() / most:.1e} | {probability:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
