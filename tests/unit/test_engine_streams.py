"""Blocks on a device: copies overlap with computing, through buffers that are used again.

No GPU is needed: the calls to CUDA are made by an object that tests replace by one whose copies
happen as late as CUDA allows.
"""

import contextlib
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_engine_backends import random_network

from voxmill.engine import transfer
from voxmill.engine.backends import BACKENDS, forward
from voxmill.engine.transfer import Lane, pieces
from voxmill.geometry import Box
from voxmill.prediction import streams
from voxmill.prediction.blocks import Block
from voxmill.prediction.flips import over_flips
from voxmill.prediction.memory import box_bytes, predict_in_blocks
from voxmill.prediction.streams import DeviceRunner, GpuDevice
from voxmill.runtime.errors import VoxmillError

WAIT_S = 60  # of a test that fails; no test waits for time to pass


class LateCuda:
    """Copies that happen only when somebody waits for them; the device is the host."""

    def __init__(self):
        self.asked, self.flying, self.buffers = [], 0, 0

    def pinned(self, numbers):
        self.buffers += 1
        return torch.full((numbers,), torch.nan)

    def empty(self, shape):
        return torch.full(shape, torch.nan)

    def copy(self, to, source):
        assert to.is_contiguous() and source.is_contiguous(), "CUDA would wait for such a copy"
        self.flying += 1
        self.asked.append((self.flying, to.numel()))
        return to, source

    def wait(self, event):
        to, source = event
        to.copy_(source)
        self.flying -= 1


@given(
    st.tuples(*[st.integers(1, 3)], *[st.integers(1, 7)] * 3),
    st.integers(1, 60),
)
def test_pieces_partition_an_array(shape, most):
    count = np.zeros(shape, int)
    for part in pieces(shape, most):
        assert count[part].flags.c_contiguous
        assert count[part].size <= max(most, shape[3])
        assert torch.from_numpy(count)[part].is_contiguous()
        count[part] += 1
    assert (count == 1).all()


@pytest.mark.parametrize("most", [5, 12, 1000])  # shorter than a row, some rows, all at once
def test_a_lane_copies_both_ways_with_two_buffers(monkeypatch, most):
    monkeypatch.setattr(transfer, "BUFFER_NUMBERS", most)
    window = np.random.default_rng(0).random((2, 5, 7, 11), dtype=np.float32)
    box = window[:, 1:, 1:5, 2:9]
    cuda = LateCuda()
    lane = Lane(cuda)
    there = lane.to_device(box)
    np.testing.assert_array_equal(there, box)
    back = np.zeros_like(window)
    lane.to_host(there, back[:, 1:, 1:5, 2:9])
    np.testing.assert_array_equal(back[:, 1:, 1:5, 2:9], box)
    assert back[:, 0].max() == back[:, :, 0].max() == 0
    assert cuda.flying == 0
    assert max(flying for flying, _ in cuda.asked) == 2
    made = cuda.buffers
    lane.to_device(box)
    assert cuda.buffers == made == (4 if most == 5 else 2)


class Recorder:
    """A device that says what it does and waits until `before` of an event has happened."""

    def __init__(self, waits):
        self.waits, self.log = waits, []
        self.events = {}
        self.lock = threading.Lock()

    def event(self, name):
        with self.lock:
            return self.events.setdefault(name, threading.Event())

    def say(self, name):
        self.log.append(name)
        self.event(name).set()

    def upload(self, source):
        number = int(source[0, 0, 0, 0])
        self.say(("upload", number))
        return number, source.copy()

    def compute(self, given, core):
        number, box = given
        self.say(("compute", number))
        for name in self.waits.get(number, ()):
            assert self.event(name).wait(WAIT_S), f"{name} did not overlap with block {number}"
        return number, 10 * box[:, *core]

    def download(self, found, target):
        number, values = found
        target[...] = values
        self.say(("download", number))


def row_of_blocks(count, size=4):
    """A window along x whose block i is of value i, and its blocks with a halo of one voxel."""
    volume = np.repeat(np.arange(count, dtype=np.float32), size)[None, None, None]
    cores = [Box((0, 0, i * size + 1), (1, 1, (i + 1) * size)) for i in range(count)]
    return volume, [Block(core, Box((0, 0, i * size), core.stop)) for i, core in enumerate(cores)]


def test_the_next_block_arrives_and_the_last_one_leaves_while_one_is_computed():
    """Each block is computed until its neighbours have been copied: in turn, it would never end."""
    volume, blocks = row_of_blocks(5)
    waits = {i: [("upload", i + 1)] * (i < 4) + [("download", i - 1)] * (i > 0) for i in range(5)}
    device, result = Recorder(waits), np.full((1, 1, 1, 20), np.nan, np.float32)
    runner = DeviceRunner(device, result, (0, 0, 0))
    runner.run(volume, blocks)
    assert runner.done == 5
    assert ("download", 4) not in device.log, "the last one stays until it is fetched"
    runner.fetch()
    for number, block in enumerate(blocks):
        assert (result[:, *block.core.slices] == 10 * number).all()
    for stage in ("upload", "compute", "download"):
        assert [n for name, n in device.log if name == stage] == list(range(5))


def test_at_most_two_blocks_are_on_the_device():
    volume, blocks = row_of_blocks(6)
    device = Recorder({})
    DeviceRunner(device, np.empty((1, 1, 1, 24), np.float32), (0, 0, 0)).run(volume, blocks)
    for number in range(2, 6):
        sent, begun = ("upload", number), ("compute", number - 2)
        assert device.log.index(sent) > device.log.index(begun)


def test_pages_are_touched_before_results_arrive(monkeypatch):
    log = []
    monkeypatch.setattr(streams, "touch", lambda array: log.append("touch"))
    volume, blocks = row_of_blocks(2)
    device = Recorder({})
    device.log = log
    result = np.empty((1, 1, 1, 8), np.float32)
    DeviceRunner(device, result, (0, 0, 0)).run(volume, blocks)
    assert log.index("touch") < log.index(("download", 0))
    assert log.count("touch") == 1


def test_touching_writes_to_every_page():
    array = np.ones((1, 3, 32, 100), np.float32)
    streams.touch(array)
    assert array.reshape(-1)[::1024].max() == 0
    assert array.sum() == array.size - len(array.reshape(-1)[::1024])


# --- a GPU that is not there -------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """Lets "cuda" mean the host, with late copies; returns the two lanes' calls."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    both = LateCuda(), LateCuda()
    monkeypatch.setattr(streams, "lanes", lambda device: tuple(map(Lane, both)))
    return both


@pytest.fixture
def tile():
    network = random_network(depth=3, dilations=(1, 2), outputs=2)
    volume = np.random.default_rng(0).normal(size=(1, 20, 18, 22)).astype(np.float32)
    return network, volume, Box((0, 5, 4), (16, 14, 22))


def predict(tile, share=1.0, flip_axes=()):
    network, volume, core = tile
    halo = (network.settings.receptive_radius_vox,) * 3
    needed = box_bytes(BACKENDS["torch"], network.settings, "float32", (20, 18, 22), "cuda")
    return predict_in_blocks(
        network, volume, core, halo, "torch", "cuda",
        budget_bytes=int(share * needed), flip_axes=flip_axes,
    )  # fmt: skip


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("flip_axes", [(), (0, 2)])
def test_blocks_on_a_device_give_the_whole(gpu, tile, share, flip_axes):
    network, volume, _ = tile
    whole = over_flips(lambda v: forward(network, v, backend="torch"), volume, flip_axes)
    found = predict(tile, share, flip_axes)
    np.testing.assert_allclose(found, whole[:, :16, 5:14, 4:22], atol=1e-6)
    # The core alone comes back.
    assert sum(size for _, size in gpu[1].asked) == 2 * 16 * 9 * 18


def fail_at(monkeypatch, numbers, error=None):
    """Let the computations of these numbers, counted from 0, run out of memory."""
    shapes, real = [], GpuDevice.compute
    error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    def compute(self, given, core):
        shapes.append(tuple(given.shape[1:]))
        if len(shapes) - 1 in numbers:
            raise error
        return real(self, given, core)

    monkeypatch.setattr(GpuDevice, "compute", compute)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: shapes.append("emptied"))
    return shapes


def test_out_of_memory_is_tried_once_more_at_the_same_size(gpu, tile, monkeypatch, caplog):
    network, volume, _ = tile
    seen = fail_at(monkeypatch, {0})
    whole = forward(network, volume, backend="torch")[:, :16, 5:14, 4:22]
    np.testing.assert_allclose(predict(tile), whole, atol=1e-6)
    assert seen[1] == "emptied" and seen[0] == seen[2] and len(seen) == 3
    assert "voxels: once more at the same size" in caplog.text
    assert "half the size" not in caplog.text


def test_then_the_block_is_halved(gpu, tile, monkeypatch, caplog):
    network, volume, _ = tile
    seen = fail_at(monkeypatch, {0, 2})
    whole = forward(network, volume, backend="torch")[:, :16, 5:14, 4:22]
    np.testing.assert_allclose(predict(tile), whole, atol=1e-6)
    assert seen[0] == seen[2] and seen[1] == seen[3] == "emptied"
    assert len(seen) > 5 and np.prod(seen[4]) < np.prod(seen[0])
    assert "voxels: going on with blocks of half the size" in caplog.text


def test_blocks_that_are_done_are_not_computed_again(gpu, tile, monkeypatch):
    seen = fail_at(monkeypatch, set())
    predict(tile, 0.5)
    blocks = len(seen)
    assert blocks > 2
    seen = fail_at(monkeypatch, {2})
    predict(tile, 0.5)
    assert len([shape for shape in seen if shape != "emptied"]) == blocks + 1


@pytest.mark.parametrize(
    "text", ["CUDA error: an illegal memory access was encountered", "shape mismatch"]
)
def test_other_errors_are_not_taken_for_lack_of_memory(gpu, tile, monkeypatch, text):
    fail_at(monkeypatch, {0}, RuntimeError(text))
    with pytest.raises(RuntimeError, match=text):
        predict(tile)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")]
)
def test_a_device_without_memory_at_all(gpu, tile, monkeypatch, error):
    fail_at(monkeypatch, set(range(10_000)), error)
    with pytest.raises(VoxmillError, match=r"one voxel with its halo .* ran out of memory"):
        predict(tile)


def test_what_cuda_is_asked_for(monkeypatch):
    """The real calls, with their arguments recorded."""
    log = []

    class Event:
        def __init__(self, blocking):
            assert blocking

        def record(self, stream):
            log.append(("record", stream))

        def synchronize(self):
            log.append("waited")

    empty = torch.empty

    def pinned(*shape, pin_memory=False, **keywords):
        log.append(("empty", pin_memory))
        return empty(*shape, **keywords)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch, "empty", pinned)
    cuda = transfer.Cuda("cuda:0")
    cuda.device = "cpu"
    source = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    np.testing.assert_array_equal(Lane(cuda).to_device(source), source)
    assert log == [
        ("empty", False), ("empty", True), ("empty", True), ("record", "stream of cuda:0"), "waited"
    ]  # fmt: skip
    assert transfer.lanes.__wrapped__("cuda:0")[0].cuda is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("flip_axes", [(), (0, 2)])
def test_blocks_on_a_gpu_give_the_whole(monkeypatch, tile, share, flip_axes):
    network, volume, _ = tile
    monkeypatch.setattr(transfer, "BUFFER_NUMBERS", 500)  # several pieces a copy
    transfer.lanes.cache_clear()
    whole = over_flips(lambda v: forward(network, v, backend="torch"), volume, flip_axes)
    found = predict(tile, share, flip_axes)
    np.testing.assert_allclose(found, whole[:, :16, 5:14, 4:22], atol=1e-4)
    transfer.lanes.cache_clear()
