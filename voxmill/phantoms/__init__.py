"""Synthetic volumes whose ground truth is known exactly, for the demo, training and tests.

- `parts`, `make_phantom`: a light-sheet volume and the centres of its cells. `parts` draws light
  into an array; `make_phantom` adds blur and noise and writes TIFF and CSV.
- `make_scan`: an MR scan with its noise-free image and brain mask, written as NIfTI.

Settings are in `voxmill.config`. `make_scan` uses the noise model of `voxmill.denoising`.
"""
