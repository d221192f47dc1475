"""Denoise one MR scan: fit a network to it (Deep Image Prior) and stop before it fits the noise.

Settings are in `voxmill.config.denoising`. A module imports only from those above it in this list:

- `bids`: scans of a BIDS folder. `scans`: the scans of a configuration.
- `noise`, `domain`: Rician noise, and the transform from a scan to the volume that is fitted.
- `precision`, `stopping`, `detail`, `metrics`: mixed precision, stopping rules, the restoring of
  detail, PSNR and SSIM.
- `devices`, `placement`: the devices of a fit, and the unit of the network on each.
- `fitting`: one iteration. `checkpoint`, `loop`: all iterations, resumed after a signal.
- `volume`: several fits of one array. `memory`: their predicted memory.
- `nifti`, `figures`, `record`: input and output.
- `denoise_scan`, `write_derivatives`: the jobs that the rules run.
"""
