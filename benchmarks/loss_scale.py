"""What float16 loses of a fit's gradients at a loss scale, emulated on the CPU.

    python benchmarks/loss_scale.py --voxels 256 256 150

The loss is a mean over voxels, so each voxel's gradient falls with their number. A smaller volume
(`--edge`) whose loss is multiplied by the ratio of the two numbers has the gradients of the larger
one, voxel by voxel. Feature maps and their gradients are rounded to float16 after each layer, sums
are float32 as on tensor cores, and the gradients of the weights are compared with those of a pass
without rounding. What is left at large scales is the rounding of float16 itself.
"""

import argparse
import math
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.config.denoising import DenoiseSettings
from voxmill.config.scans import ScanPhantomSettings
from voxmill.denoising.fitting import Fit
from voxmill.denoising.placement import place_units, unit_names
from voxmill.networks.skip3d import Activation, Conv, Norm
from voxmill.phantoms.make_scan import draw_scan
from voxmill.runtime.files import write_text

LAYERS = (Conv, Norm, Activation)
KINDS = ("weight of a convolution", "weight of a norm", "bias of a norm")


def begin(target: torch.Tensor, settings, iterations: int) -> dict[str, torch.Tensor]:
    """Weights after some iterations in float32."""
    fit = Fit(target, settings, _on_cpu(settings), level=0.1)
    for _ in range(iterations):
        fit.step()
    return fit.network.state_dict()


class Rounded(torch.autograd.Function):
    """Rounds feature maps, and on the way back their gradient, to float16."""

    @staticmethod
    def forward(ctx, maps):
        return maps.half().float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.half().float()


def gradients(target: torch.Tensor, settings, weights: dict, factor: float | None) -> dict:
    """Gradients of all weights, in float64; with a factor on the loss, those of float16."""
    fit = Fit(target, settings, _on_cpu(settings), level=0.1)
    fit.network.load_state_dict(weights)
    if factor is not None:
        for module in fit.network.modules():
            if isinstance(module, LAYERS):
                module.register_forward_hook(lambda m, inputs, maps: Rounded.apply(maps))
    (fit.loss(1)[0] * (factor or 1.0)).backward()
    named = fit.network.named_parameters()
    return {name: weight.grad.double() / (factor or 1.0) for name, weight in named}


def _on_cpu(settings) -> dict[str, torch.device]:
    return place_units(unit_names(settings), [torch.device("cpu")])


def kind_of(name: str, weight: torch.Tensor) -> str:
    """Which of `KINDS` a parameter belongs to; the head's bias to none."""
    if weight.dim() == 5:
        return KINDS[0]
    if name.startswith("units.head"):
        return ""
    return KINDS[2] if name.endswith("bias") else KINDS[1]


def errors(found: dict, expected: dict) -> dict[str, list[float]]:
    """The error of each parameter's gradient, relative to its length, sorted, by kind."""
    lists: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for name, gradient in expected.items():
        if kind := kind_of(name, gradient):
            lists[kind].append(float((found[name] - gradient).norm() / gradient.norm()))
    return {kind: sorted(values) for kind, values in lists.items()}


def noisy_scan(edge: int) -> torch.Tensor:
    """A synthetic scan from 0 to 1 with noise of a tenth."""
    shape = ScanPhantomSettings(shape_vox=(edge,) * 3, voxel_size_mm=180 / edge)
    clean = torch.from_numpy(draw_scan(shape)[0]).float()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return clean / clean.max() + 0.1 * noise


def main() -> None:
    """Compare the scales, then write loss_scale.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, nargs=3, default=(256, 256, 150))
    parser.add_argument("--edge", type=int, default=40, help="of the volume that is computed")
    parser.add_argument("--iterations", type=int, default=10, help="in float32 before it")
    parser.add_argument("--exponents", type=int, nargs="+", default=[16, 20, 24, 28])
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"))
    given = parser.parse_args()
    plain = DenoiseSettings()
    target = noisy_scan(given.edge)
    ratio = target.numel() / math.prod(given.voxels)
    weights = begin(target, plain, given.iterations)
    expected = gradients(target, plain, weights, None)
    print("median and largest error of a parameter's gradient:")
    lines = [f"| loss scale | {' | '.join(KINDS)} |", "|---|" + "---|" * len(KINDS)]
    for exponent in given.exponents:
        found = gradients(target, plain, weights, ratio * 2.0**exponent)
        cells = " | ".join(
            f"{100 * values[len(values) // 2]:.2f} %, {100 * values[-1]:.2f} %"
            for values in errors(found, expected).values()
        )
        lines.append(f"| 2^{exponent} | {cells} |")
        print(lines[-1], flush=True)
    write_text(given.output / "loss_scale.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
