"""voxmill: deep learning on 3D brain images that are too large for one GPU."""

import os

__version__ = "0.1.0"

# GCC's OpenMP lets threads spin for milliseconds before they sleep. Beside another busy process
# they spin while the thread that they wait for has no core, and a layer takes many times longer
# (benchmarks/crowded.py). Set here since the runtime reads it once, when torch or the engine loads.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
