"""A stack to practise the tutorial on: a TIFF without labels, and clicks as napari saves them.

Run it in the folder of voxmill: python docs/examples/make_practice_stack.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import tifffile

from voxmill.config.phantoms import PhantomSettings
from voxmill.phantoms.make_phantom import draw_phantom

# The box in which the tutorial clicks on every cell; voxels, z, y, x.
CLICKED = (64, 128, 128)


def write_practice_stack(folder):
    """Write `stack.tif` and `clicks.csv` into a folder.

    The stack is a synthetic volume. The clicks are the centres of its cells inside of the box,
    as far off as a hand is: half a voxel, standard deviation.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = PhantomSettings(seed=7, shape_vox=(64, 160, 192), voxel_size_um=(2.5, 1.6, 1.6))
    volume, centres = draw_phantom(settings)
    tifffile.imwrite(folder / "stack.tif", volume)
    clicks = centres + np.random.default_rng(0).normal(0, 0.5, centres.shape)
    clicks = clicks[((clicks >= 0) & (clicks < np.array(CLICKED))).all(axis=1)]
    rows = [f"{number},{z:.2f},{y:.2f},{x:.2f}\n" for number, (z, y, x) in enumerate(clicks)]
    (folder / "clicks.csv").write_text("index,axis-0,axis-1,axis-2\n" + "".join(rows))


if __name__ == "__main__":
    write_practice_stack(sys.argv[1] if len(sys.argv) > 1 else "practice")
