"""Training with the native engine: the MS-D network in the Fourier domain, with gradients.

Call `fourier_forward(network, batch)` in place of `network(batch)`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import fourier
from voxmill.engine.backend import Shape
from voxmill.networks.msdnet import MSDNet
from voxmill.runtime.errors import VoxmillError


def fourier_forward(
    network: MSDNet, batch: torch.Tensor, threads: int | None = None
) -> torch.Tensor:
    """Logits of a batch, differentiable with respect to the weights and the batch.

    The numbers are those of `network(batch)` up to rounding, in a fraction of the time and memory:
    instead of the input of every layer, the spectra of all feature maps and of their gradients are
    kept, about 8 bytes a voxel and feature map in float32.

    Parameters
    ----------
    network : MSDNet
        On the CPU, float32 or float64.
    batch : (batch, inputs, z, y, x) tensor
        The network's dtype.
    threads : int, optional
        By default torch's number of threads.

    Returns
    -------
    (batch, outputs, z, y, x) tensor

    Raises
    ------
    VoxmillError
        If the native engine can't run here, or the batch does not fit the network.
    MemoryError
        If the system does not give the memory; `voxmill.engine.fourier.predict_bytes` says how
        much it is.
    """
    if reason := fourier.available(network, batch.device.type):
        raise VoxmillError(f"training in the Fourier domain: {reason}")
    settings = network.settings
    dtype = network.final_weight.dtype
    if batch.ndim != 5 or batch.shape[1] != settings.inputs or batch.dtype != dtype:
        raise VoxmillError(
            f"training in the Fourier domain: expected a batch (batch, {settings.inputs}, z, y, x) "
            f"of {dtype}, found {tuple(batch.shape)} of {batch.dtype}"
        )
    parameters = torch.cat([tensor.reshape(-1) for tensor in fourier.tensors(network)])
    logits: torch.Tensor = _FourierFunction.apply(
        parameters, batch, settings, threads or torch.get_num_threads()
    )
    return logits


def release() -> None:
    """Free the memory that is kept for the next step."""
    _pool.clear()
    fourier.release()


class _Pool:
    """Engines and workspaces between steps: fresh pages take as long as some layers."""

    def __init__(self) -> None:
        self._free: dict[tuple[Any, ...], list[Any]] = {}
        self._lock = threading.Lock()

    def take(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        with self._lock:
            # Memory of other shapes is freed: the patches of one training have one shape.
            self._free = {k: v for k, v in self._free.items() if k[:3] == key[:3]}
            if self._free.get(key):
                return self._free[key].pop()
        return make()

    def give(self, key: tuple[Any, ...], item: Any) -> None:
        with self._lock:
            self._free.setdefault(key, []).append(item)

    def clear(self) -> None:
        with self._lock:
            self._free.clear()


_pool = _Pool()


class _Lease:
    """An engine of the pool, given back when the graph that needs it is deleted."""

    def __init__(
        self, settings: MSDNetSettings, box_shape: Shape, dtype: Any, training: bool
    ) -> None:
        self.key = (settings, tuple(box_shape), dtype, "training" if training else "evaluation")
        self.engine: fourier.Engine = _pool.take(
            self.key, lambda: fourier.Engine(settings, box_shape, dtype, training)
        )

    def __del__(self) -> None:
        if hasattr(self, "engine"):
            _pool.give(self.key, self.engine)


class _FourierFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        parameters: torch.Tensor,
        batch: torch.Tensor,
        settings: MSDNetSettings,
        threads: int,
    ) -> torch.Tensor:
        flat = parameters.detach().numpy()
        volumes = batch.detach().contiguous().numpy()
        training = any(ctx.needs_input_grad[:2])
        leases, logits = [], []
        for volume in volumes:
            lease = _Lease(settings, volume.shape[1:], flat.dtype, training)
            logits.append(torch.from_numpy(lease.engine.forward(flat, volume, threads)))
            if training:
                leases.append(lease)
        ctx.leases, ctx.threads = leases, threads
        ctx.save_for_backward(parameters)
        return torch.stack(logits)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, logits_gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        (parameters,) = ctx.saved_tensors
        flat = parameters.detach().numpy()
        gradient = torch.zeros_like(parameters)
        volume_gradients = []
        upstreams = logits_gradient.contiguous().numpy()
        key = (*ctx.leases[0].key[:3], "workspace")
        workspace = _pool.take(key, ctx.leases[0].engine.workspace)
        for lease, upstream in zip(ctx.leases, upstreams, strict=True):
            part, volume_gradient = lease.engine.backward(
                flat, upstream, workspace, ctx.threads, ctx.needs_input_grad[1]
            )
            gradient += torch.from_numpy(part)
            if volume_gradient is not None:
                volume_gradients.append(torch.from_numpy(volume_gradient))
        _pool.give(key, workspace)
        stacked = torch.stack(volume_gradients) if volume_gradients else None
        return gradient, stacked, None, None
