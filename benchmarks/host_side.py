"""The host's side of a prediction on a GPU, with a made-up device of known speed: no GPU is needed.

    python benchmarks/host_side.py

The device computes a block by waiting as long as one of that speed would take; the copies are real
(through the same buffers, into the same arrays as with a GPU). Printed are the seconds of computing
alone, of copying alone, of both as predictions run them, and of both in turn. The aim is a total
within 10 % of the larger of the first two. The first block's arrival and the last one's departure
overlap with nothing: with n equal blocks, of `u` seconds to arrive, `c` to compute and `d` to
leave, the best is `u + c + d + (n - 1) max(u, c, d)`, which is printed too (from the copies made in
turn).
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.engine.transfer import Lane
from voxmill.geometry import Box
from voxmill.prediction.blocks import plan_blocks
from voxmill.prediction.streams import DeviceRunner
from voxmill.runtime.jobs import overlapped


class HostMemory:
    """In place of CUDA: copies within the host's memory; that of the device is used again."""

    def __init__(self):
        self.held = []

    def pinned(self, numbers):
        return torch.zeros(numbers)

    def empty(self, shape):
        size = int(np.prod(shape))
        if len(self.held) < 3 or self.held[0].numel() < size:
            self.held = [torch.zeros(size) for _ in range(3)]
        self.held.append(self.held.pop(0))
        return self.held[-1][:size].view(*shape)

    def copy(self, to, source):
        to.copy_(source)

    def wait(self, event):
        pass


class MadeUp:
    """A device of known speed, in voxels a second; 0 computes in no time."""

    def __init__(self, speed: float, copies: bool = True) -> None:
        self.speed, self.copies = speed, copies
        self.up, self.down = Lane(HostMemory()), Lane(HostMemory())
        self.spent = {"up": 0.0, "down": 0.0}

    def upload(self, source):
        if not self.copies:
            return torch.empty(source.shape)
        start = time.perf_counter()
        found = self.up.to_device(source)
        self.spent["up"] += time.perf_counter() - start
        return found

    def compute(self, given, core):
        if self.speed:
            time.sleep(given[0].numel() / self.speed)
        return given[:, *core]  # a GPU would copy it, at its own speed

    def download(self, found, target):
        if self.copies:
            start = time.perf_counter()
            self.down.to_host(found, target)
            self.spent["down"] += time.perf_counter() - start


def seconds(device, volume, blocks, core, in_turn=False) -> float:
    """Of all blocks of a fresh result."""
    result = np.empty((1, *core.shape), np.float32)
    runner = DeviceRunner(device, result, core.start)
    runner.run(volume, blocks[:1])  # makes the buffers
    device.spent = dict.fromkeys(device.spent, 0.0)
    start = time.perf_counter()
    result = np.empty((1, *core.shape), np.float32)
    runner = DeviceRunner(device, result, core.start)
    for some in [[block] for block in blocks] if in_turn else [blocks]:
        runner.run(volume, some)
        runner.fetch()
    return time.perf_counter() - start


def seconds_of_tiles(device, volume, blocks, in_turn=False) -> float:
    """The same of tiles of one block each, every one with a result of its own."""

    def send(block):
        result = np.empty((1, *block.core.shape), np.float32)
        runner = DeviceRunner(device, result, block.core.start)
        runner.send(volume, block)
        return runner

    def compute(block, runner):
        runner.run(volume, [block])
        return runner

    def fetch(block, runner):
        runner.fetch()

    start = time.perf_counter()
    for some in [[block] for block in blocks] if in_turn else [blocks]:
        overlapped(some, send, compute, fetch)
    return time.perf_counter() - start


def main() -> None:
    """Measure at a speed at which the device is the slower one, and at one where it is faster."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volume", type=int, nargs=3, default=(640, 512, 512))
    parser.add_argument("--halo", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=24)
    parser.add_argument("--speeds", type=float, nargs="+", default=(20e6, 100e6, 1e9))
    given = parser.parse_args()
    core = Box.from_shape(given.volume)
    volume = np.random.default_rng(0).random((1, *given.volume), dtype=np.float32)
    most = core.size
    while len(blocks := plan_blocks(core.shape, core, (given.halo,) * 3, np.prod, most)) < (
        given.blocks
    ):
        most = int(0.9 * most)
    for what, measure in (
        ("blocks of one tile", partial(seconds, core=core)),
        ("tiles of one block", seconds_of_tiles),
    ):
        print(f"\n{len(blocks)} {what}, {volume.nbytes / 2**30:.2f} GiB in all, halo {given.halo}")
        print(
            "| device, Mvoxel/s | computing, s | copying, s | both, s | to the larger | at best "
            "| in turn, s |"
        )
        print("|---|---|---|---|---|---|---|")
        for speed in given.speeds:
            computing = measure(MadeUp(speed, copies=False), volume, blocks)
            copying = measure(MadeUp(0.0), volume, blocks)
            both = measure(MadeUp(speed), volume, blocks)
            device = MadeUp(speed)
            turns = measure(device, volume, blocks, in_turn=True)
            larger, stages = max(computing, copying), [computing, *device.spent.values()]
            best = (sum(stages) + (len(blocks) - 1) * max(stages)) / len(blocks)
            print(
                f"| {speed / 1e6:g} | {computing:.2f} | {copying:.2f} | {both:.2f} "
                f"| {both / larger:.2f} | {best / larger:.2f} | {turns:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
