"""The numerics alone: a box of voxels in, probabilities out.

`backends` has the registry and `forward`; each backend is a module of its own: `stencil` and
`fourier` (C++ in `native/`, compiled by `build`), `gpu_fourier` and `gpu_direct` (Triton kernels),
`torch_backends` (the reference), `runtimes` (OpenVINO and ONNX Runtime). On GPUs `trial` chooses
among them, `transfer` copies boxes there and back, `cufft` transforms, and `gpu_passes` do what is
between a map's sums and its spectrum. `autograd` computes gradients for training. Jobs, memory
plans and files are above it, in `voxmill.prediction`; the engine imports `voxmill.networks` and
`voxmill.runtime` alone.
"""
