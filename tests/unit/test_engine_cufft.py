"""Transforms in place: what cuFFT is asked for, by a stand-in that computes on the host."""

import ctypes

import numpy as np
import pytest
import torch

from voxmill.engine import cufft
from voxmill.engine.cufft import (
    CufftPlanes,
    CufftTransforms,
    TorchPlanes,
    TorchTransforms,
    real_view,
)
from voxmill.runtime.free_memory import is_out_of_memory

C2C, R2C, C2R = 0x29, 0x2A, 0x2C


def numbers(address, count, kind):
    size = np.dtype(kind).itemsize
    return np.frombuffer((ctypes.c_char * (count * size)).from_address(address.value), kind)


class HostCufft:
    """The functions of cuFFT that are used, as its documentation has them; for in-place plans."""

    def __init__(self, refuse="", code=0):
        self.refuse, self.code = refuse, code
        self.plans, self.destroyed, self.workspaces = {}, [], {}

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "refuse"):
            return lambda *arguments: self.code
        return object.__getattribute__(self, name)

    def cufftCreate(self, plan):
        plan._obj.value = 7 + len(self.plans)
        self.plans[plan._obj.value] = {}
        return 0

    def cufftSetAutoAllocation(self, plan, automatic):
        assert automatic.value == 0
        return 0

    def cufftSetStream(self, plan, stream):
        self.plans[plan.value]["stream"] = stream.value
        return 0

    def cufftMakePlanMany64(
        self, plan, rank, n, inembed, istride, idist, onembed, ostride, odist, kind, batch, size
    ):
        about = self.plans[plan.value]
        about |= {"n": tuple(n), "kind": kind.value, "batch": batch.value}
        if kind.value == C2C:  # neighbours belong to different transforms
            assert (rank.value, istride.value, ostride.value) == (2, batch.value, batch.value)
            assert tuple(n) == tuple(inembed) == tuple(onembed)
            assert idist.value == odist.value == 1
            size._obj.value = 300
            return 0
        assert (rank.value, istride.value, ostride.value, batch.value) == (3, 1, 1, 1)
        half, whole = (onembed, inembed) if kind.value == R2C else (inembed, onembed)
        assert tuple(half) == (n[0], n[1], n[2] // 2 + 1)
        assert tuple(whole) == (n[0], n[1], 2 * half[2])
        assert idist.value == np.prod(tuple(inembed)) and odist.value == np.prod(tuple(onembed))
        size._obj.value = 100 if kind.value == R2C else 200
        return 0

    def cufftSetWorkArea(self, plan, address):
        self.workspaces[plan.value] = address.value
        return 0

    def _both(self, plan, address, kind):
        assert self.plans[plan.value]["kind"] == kind
        z, y, x = self.plans[plan.value]["n"]
        count = z * y * (x // 2 + 1)
        complexes = numbers(address, count, np.complex64).reshape(z, y, -1)
        reals = numbers(address, 2 * count, np.float32).reshape(z, y, -1)
        return complexes, reals, (z, y, x)

    def cufftExecC2R(self, plan, source, target):
        assert source.value == target.value
        complexes, reals, shape = self._both(plan, source, C2R)
        found = np.fft.irfftn(complexes, shape, norm="forward", axes=(0, 1, 2))
        reals[..., : shape[2]] = found
        reals[..., shape[2] :] = np.nan  # cuFFT promises nothing about these
        return 0

    def cufftExecR2C(self, plan, source, target):
        assert source.value == target.value
        complexes, reals, shape = self._both(plan, source, R2C)
        complexes[:] = np.fft.rfftn(reals[..., : shape[2]].copy())
        return 0

    def cufftExecC2C(self, plan, source, target, direction):
        assert source.value == target.value
        about = self.plans[plan.value]
        count = int(np.prod(about["n"])) * about["batch"]
        values = numbers(source, count, np.complex64).reshape(*about["n"], about["batch"])
        transform = {-1: np.fft.fft2, 1: np.fft.ifft2}[direction.value]
        norm = {-1: "backward", 1: "forward"}[direction.value]
        values[:] = transform(values, axes=(0, 1), norm=norm)
        return 0

    def cufftDestroy(self, plan):
        self.destroyed.append(plan.value)
        return 0


@pytest.mark.parametrize("shape", [(3, 5, 8), (4, 1, 6), (2, 3, 7)])
@pytest.mark.parametrize("kind", ["cuFFT", "torch"])
def test_both_ways_in_place(shape, kind):
    library = HostCufft()
    both = (
        TorchTransforms(shape)
        if kind == "torch"
        else CufftTransforms(shape, torch.device("cpu"), library)
    )
    volume = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    spectrum = torch.zeros(*shape[:2], shape[2] // 2 + 1, dtype=torch.complex64)
    real = real_view(spectrum)
    assert real.data_ptr() == spectrum.data_ptr()
    real[..., : shape[2]] = volume
    both.forward(real)
    torch.testing.assert_close(spectrum, torch.fft.rfftn(volume), rtol=1e-5, atol=1e-5)
    back = both.inverse(spectrum)
    assert back.data_ptr() == spectrum.data_ptr()
    torch.testing.assert_close(back[..., : shape[2]], volume * volume.numel(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 5, 8), (4, 1, 6)])
@pytest.mark.parametrize("kind", ["cuFFT", "torch"])
def test_planes_both_ways_in_place(shape, kind):
    both = (
        TorchPlanes() if kind == "torch" else CufftPlanes(shape, torch.device("cpu"), HostCufft())
    )
    volume = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(volume)
    both.forward(spectrum)
    torch.testing.assert_close(spectrum, torch.fft.rfftn(volume), rtol=1e-5, atol=1e-5)
    rows = both.inverse(spectrum)
    assert rows.data_ptr() == spectrum.data_ptr()
    expected = torch.fft.rfft(volume) * shape[0] * shape[1]
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-4)


def test_one_workspace_for_both_plans_and_none_left_behind():
    library = HostCufft()
    both = CufftTransforms((2, 2, 4), torch.device("cpu"), library)
    assert len(set(library.workspaces.values())) == 1 and len(library.workspaces) == 2
    assert both._workspace.numel() == 200
    del both
    assert sorted(library.destroyed) == sorted(library.plans)


@pytest.mark.parametrize(
    ("name", "code", "short"),
    [
        ("cufftMakePlanMany64", 2, True),
        ("cufftExecR2C", 5, False),
        ("cufftCreate", 1, False),
    ],
)
def test_what_cufft_refuses_is_an_error(name, code, short):
    with pytest.raises(RuntimeError, match=rf"{name}: .*\({code}\)") as told:
        both = CufftTransforms((2, 2, 4), torch.device("cpu"), HostCufft(name, code))
        both.forward(torch.zeros(2, 2, 6))
    assert is_out_of_memory(told.value) == short


@pytest.mark.parametrize(("cuda", "name"), [("12.6", "libcufft.so.11"), ("13.0", "libcufft.so.12")])
def test_the_library_is_that_of_the_cuda_of_torch(monkeypatch, caplog, cuda, name):
    monkeypatch.setattr(cufft.ctypes, "CDLL", lambda asked: f"loaded {asked}")
    assert cufft.library.__wrapped__(cuda) == f"loaded {name}"

    def absent(asked):
        raise OSError("no such file")

    monkeypatch.setattr(cufft.ctypes, "CDLL", absent)
    assert cufft.library.__wrapped__(cuda) is None
    assert f"{name}: no such file; transforms by torch.fft copy more" in caplog.text


def test_a_device_takes_cufft_if_it_is_there(monkeypatch):
    assert isinstance(cufft.transforms((2, 2, 2), torch.device("cpu")), TorchTransforms)
    monkeypatch.setattr(cufft, "library", lambda cuda: None)
    assert isinstance(cufft.transforms((2, 2, 2), torch.device("cuda")), TorchTransforms)
    made = []
    monkeypatch.setattr(cufft, "library", lambda cuda: "cuFFT")
    monkeypatch.setattr(cufft, "CufftTransforms", lambda *given: made.append(given))
    cufft.transforms((2, 2, 2), torch.device("cuda"))
    assert made == [((2, 2, 2), torch.device("cuda"), "cuFFT")]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("shape", [(30, 35, 48), (7, 64, 50), (5, 3, 7)])
def test_cufft_itself(shape):
    device = torch.device("cuda", 0)
    both = cufft.transforms(shape, device)
    assert isinstance(both, CufftTransforms), "cuFFT can't be loaded"
    volume = torch.randn(shape, device=device)
    spectrum = torch.zeros(*shape[:2], shape[2] // 2 + 1, dtype=torch.complex64, device=device)
    real_view(spectrum)[..., : shape[2]] = volume
    both.forward(real_view(spectrum))
    torch.testing.assert_close(spectrum, torch.fft.rfftn(volume), rtol=1e-4, atol=1e-3)
    back = both.inverse(spectrum)[..., : shape[2]]
    torch.testing.assert_close(back / volume.numel(), volume, rtol=1e-4, atol=1e-4)
    planes = cufft.plane_transforms(shape, device)
    assert isinstance(planes, CufftPlanes)
    rows = torch.fft.rfft(volume)
    planes.forward(rows)
    torch.testing.assert_close(rows, torch.fft.rfftn(volume), rtol=1e-4, atol=1e-3)
    back = planes.inverse(rows) / (shape[0] * shape[1])
    torch.testing.assert_close(back, torch.fft.rfft(volume), rtol=1e-4, atol=1e-4)
