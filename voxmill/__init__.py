"""voxmill: deep learning on 3D brain images that are too large for one GPU."""

__version__ = "0.1.0"
