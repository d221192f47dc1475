"""Runs every path of the native engine in sanitized libraries; see test_engine_native.py.

sanitized.py FOLDER: reads `fourier.so`, `stencil.so`, `objects.so`, `case*.json` (settings) and
`case*.npz` (parameters, volume), writes `found*.npz` and `objects.npz`. It imports no
torch: the sanitizer's runtime comes first.
"""

import json
import sys
from pathlib import Path

import numpy as np

from voxmill.cells.labels import label_block
from voxmill.cells.outlines import outline_block
from voxmill.cells.seeds import Seeds
from voxmill.config.networks import MSDNetSettings
from voxmill.config.objects import ObjectSettings
from voxmill.engine import build, fourier, stencil
from voxmill.geometry import Box
from voxmill.networks.stored import StoredNetwork

THREADS = 2


def evaluate(settings: MSDNetSettings, parameters: np.ndarray, volume: np.ndarray) -> dict:
    """Logits in each precision, the gradients of their sum, and the stencil's probabilities."""
    found, shape = {}, volume.shape[1:]
    for dtype in (np.float32, np.float64):
        engine = fourier.Engine(settings, shape, dtype, training=True)
        numbers = parameters.astype(dtype), volume.astype(dtype)
        logits = engine.forward(*numbers, THREADS)
        upstream = np.ones_like(logits)
        gradient, volume_gradient = engine.backward(
            numbers[0], upstream, engine.workspace(), THREADS, volume_wanted=True
        )
        alone, _ = engine.backward(numbers[0], upstream, engine.workspace(), THREADS)
        np.testing.assert_array_equal(alone, gradient)
        engine.close()
        name = np.dtype(dtype).name
        found[f"logits_{name}"], found[f"gradient_{name}"] = logits, gradient
        found[f"volume_gradient_{name}"] = volume_gradient
    engine = fourier.Engine(settings, shape, shared16=True)
    found["logits_shared16"] = engine.forward(parameters, volume, THREADS)
    engine.close()
    found["stencil"] = stencil.run(stored(settings, parameters), volume, "cpu", "float32", THREADS)
    fourier.release()
    return found


def stored(settings: MSDNetSettings, parameters: np.ndarray) -> StoredNetwork:
    """The network of a flat array of parameters."""
    shapes, arrays, start = settings.tensor_shapes(), {}, 0
    kinds = [f"{kind}.{i}" for kind in ("weights", "biases") for i in range(settings.depth)]
    for name in [*kinds, "final_weight", "final_bias"]:
        stop = start + int(np.prod(shapes[name]))
        arrays[name] = parameters[start:stop].reshape(shapes[name])
        start = stop
    return StoredNetwork("msdnet", settings, arrays)


def objects() -> dict:
    """Labels and outlines of cells, some at the border of the volume and two in one voxel."""
    random = np.random.default_rng(5)
    values = np.kron(random.random((3, 4, 5)) > 0.3, np.ones((4, 4, 4))) * random.random(
        (12, 16, 20)
    )
    whole, places = Box.from_shape(values.shape), random.uniform(0, (11, 15, 19), (12, 3))
    seeds = Seeds(np.concatenate([places, places[:1]]), np.arange(1, 14))
    given = values, (0, 0, 0), whole, whole, seeds, (2, 1, 1)
    chosen = ObjectSettings(threshold=0.2, largest_radius_um=6.0)
    labels, outlines = label_block(*given, chosen), outline_block(*given, chosen, THREADS)
    return {"labels": labels, "outlines": outlines}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    build.build = lambda source, compiler_path: folder / f"{source}.so"
    for path in sorted(folder.glob("case*.npz")):
        given = np.load(path)
        settings = MSDNetSettings(**json.loads(path.with_suffix(".json").read_text()))
        found = evaluate(settings, given["parameters"], given["volume"])
        np.savez(folder / path.name.replace("case", "found"), **found)
    np.savez(folder / "objects.npz", **objects())
