"""The memory plan: blocks that partition the core, halving, predicted and measured peaks."""

import json
import logging
import os
import resource
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxmill.config.networks import ExportedSettings, MSDNetSettings
from voxmill.engine.backends import BACKENDS, forward
from voxmill.engine.gpu_spectra import SpectrumSizes
from voxmill.geometry import Box
from voxmill.networks import build
from voxmill.prediction.blocks import block_around
from voxmill.prediction.flips import over_flips
from voxmill.prediction.memory import box_bytes, plan_blocks, predict_in_blocks
from voxmill.runtime import free_memory
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.free_memory import free_bytes


def voxels(shape):
    return int(np.prod(shape))


@given(
    st.tuples(*[st.integers(1, 20)] * 3),
    st.tuples(*[st.integers(0, 5)] * 3),
    st.tuples(*[st.integers(0, 5)] * 3),
    st.integers(1, 4000),
)
def test_cores_partition_and_boxes_hold_the_halo(core_shape, margin, halo, budget):
    window = tuple(n + m for n, m in zip(core_shape, margin, strict=True))
    start = tuple(m // 2 for m in margin)
    core = Box.from_shape(core_shape, start)
    smallest = voxels([min(1 + 2 * h, n) for h, n in zip(halo, window, strict=True)])
    if budget < smallest:
        return
    count = np.zeros(window, int)
    for block in plan_blocks(window, core, halo, voxels, budget):
        count[block.core.slices] += 1
        assert voxels(block.box.shape) <= budget
        for axis in range(3):
            assert block.box.start[axis] == max(0, block.core.start[axis] - halo[axis])
            assert block.box.stop[axis] == min(window[axis], block.core.stop[axis] + halo[axis])
    assert count.sum() == voxels(core_shape)
    assert (count[core.slices] == 1).all()


def test_cuts_that_waste_less_padding():
    """The original volume at depth 100 in float16, with a halo of 48 voxels on 78 GiB.

    Cut at the longest edge, it was 4 x 3 x 2 blocks of 1.54 times its voxels, padding counted.
    """
    settings, volume, budget = MSDNetSettings(depth=100), (2304, 1280, 1024), int(0.85 * 78 * 2**30)
    needed = partial(box_bytes, BACKENDS["gpu-fourier"], settings, "float16", device="cuda")

    def waste(blocks):
        padded = [SpectrumSizes(settings, block.box.shape, "float16").padded for block in blocks]
        return sum(map(voxels, padded)) / voxels(volume)

    core = Box.from_shape(volume)
    parts = [block_around(part, (48,) * 3, volume, 1) for part in core.split((4, 3, 2))]
    assert waste(parts) == pytest.approx(1.54, abs=0.005)
    blocks = plan_blocks(volume, core, (48,) * 3, needed, budget)
    assert len(blocks) < len(parts) and waste(blocks) < 1.515
    total = sum(needed(block.box.shape) for block in blocks)
    for cuts in ((5, 2, 2), (4, 3, 2), (6, 2, 2), (5, 4, 1)):
        others = [block_around(part, (48,) * 3, volume, 1) for part in core.split(cuts)]
        assert total <= sum(needed(block.box.shape) for block in others)


def test_one_block_when_it_fits():
    blocks = plan_blocks((10, 10, 10), Box((1, 1, 1), (9, 9, 9)), (1, 1, 1), voxels, 1000)
    assert [b.box for b in blocks] == [Box((0, 0, 0), (10, 10, 10))]


def test_no_block_fits():
    with pytest.raises(VoxmillError, match=r"one voxel with its halo .* needs .* there are"):
        plan_blocks((9, 9, 9), Box((3, 3, 3), (6, 6, 6)), (3, 3, 3), voxels, 300)


@pytest.fixture
def tile():
    network = build("msdnet", MSDNetSettings(depth=3, dilations=(1, 2)))
    volume = np.random.default_rng(0).normal(size=(1, 20, 18, 22)).astype(np.float32)
    return network, volume, Box((0, 5, 4), (16, 14, 22))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_blocks_give_the_whole(tile, share):
    network, volume, core = tile
    halo = (network.settings.receptive_radius_vox,) * 3
    whole = forward(network, volume, backend="torch")
    budget = int(share * BACKENDS["torch"].predict_bytes(network.settings, (20, 18, 22), "float32"))
    found = predict_in_blocks(network, volume, core, halo, "torch", budget_bytes=budget)
    np.testing.assert_allclose(found, whole[:, :16, 5:14, 4:22], atol=1e-6)


def test_blocks_with_flips_give_the_whole_with_flips(tile):
    network, volume, core = tile
    halo = (network.settings.receptive_radius_vox,) * 3
    whole = over_flips(lambda v: forward(network, v, backend="torch"), volume, (0, 2))
    budget = BACKENDS["torch"].predict_bytes(network.settings, (20, 18, 22), "float32") // 2
    found = predict_in_blocks(
        network, volume, core, halo, "torch", budget_bytes=budget, flip_axes=(0, 2)
    )
    np.testing.assert_allclose(found, whole[:, :16, 5:14, 4:22], atol=1e-6)


def fail_above(monkeypatch, limit, error):
    """Let the reference run out of memory with boxes of more than `limit` voxels."""
    seen = []

    class Small(type(BACKENDS["torch"])):
        def run(self, network, volume, device, precision, threads):
            seen.append(volume.shape[1:])
            if volume[0].size > limit:
                raise error
            return super().run(network, volume, device, precision, threads)

    fields = {k: getattr(BACKENDS["torch"], k) for k in BACKENDS["torch"].__dataclass_fields__}
    monkeypatch.setitem(BACKENDS, "torch", Small(**fields))
    return seen


@pytest.mark.parametrize(
    "error",
    [MemoryError("no"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")],
)
def test_out_of_memory_halves_the_block(tile, monkeypatch, caplog, error):
    network, volume, core = tile
    halo = (network.settings.receptive_radius_vox,) * 3
    whole = forward(network, volume, backend="torch")
    seen = fail_above(monkeypatch, 4000, error)
    found = predict_in_blocks(network, volume, core, halo, "torch", budget_bytes=2**30)
    np.testing.assert_allclose(found, whole[:, :16, 5:14, 4:22], atol=1e-6)
    assert len(seen) > 2
    assert voxels(seen[0]) > 4000 >= voxels(seen[-1])
    assert any(
        r.levelno == logging.WARNING and "out of memory with a block of" in r.message
        for r in caplog.records
    )


def test_out_of_memory_at_one_voxel(tile, monkeypatch):
    network, volume, core = tile
    fail_above(monkeypatch, 0, MemoryError())
    with pytest.raises(VoxmillError, match=r"one voxel with its halo .* ran out of memory"):
        predict_in_blocks(network, volume, core, (1, 1, 1), "torch", budget_bytes=2**30)


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [("torch", "float32", 416), ("torch", "float16", 438), ("torch-fast", "float32", 452)],
)
def test_plans_for_gpus_are_not_those_of_onednn(name, precision, expected):
    settings, shape = MSDNetSettings(depth=100), (50, 60, 70)
    on_gpu = BACKENDS[name].predict_bytes(settings, shape, precision, "cuda:0")
    assert on_gpu == expected * voxels(shape)
    assert on_gpu < 0.99 * BACKENDS[name].predict_bytes(settings, shape, precision, "cpu")


@pytest.mark.parametrize(("name", "channels"), [("torch", 101), ("torch-fast", 10)])
def test_no_tensor_of_cudnn_has_too_many_elements(name, channels):
    backend, settings = BACKENDS[name], MSDNetSettings(depth=100)
    most = (2**31 - 1) // channels
    assert backend.predict_bytes(settings, (1, 1, most), "float32", "cuda") < 2**40
    assert backend.predict_bytes(settings, (1, 1, most + 1), "float32", "cuda") == 2**62
    # An H200 would have the bytes for more of them, but they are cut.
    blocks = plan_blocks(
        (300, 300, 300), Box.from_shape((300, 300, 300)), (10, 10, 10),
        lambda shape: backend.predict_bytes(settings, shape, "float32", "cuda"), 2**40,
    )  # fmt: skip
    assert len(blocks) == (2 if name == "torch" else 1)


def test_a_program_of_torch_export_needs_the_same_on_all_devices():
    settings = ExportedSettings(halo_vox=3, bytes_per_voxel=100, shape_multiple=8)
    of = [
        BACKENDS["torch"].predict_bytes(settings, (8, 9, 8), "float32", d) for d in ("cpu", "cuda")
    ]
    assert of == [100 * 8 * 16 * 8] * 2


def test_other_errors_are_not_swallowed(tile, monkeypatch):
    network, volume, core = tile
    fail_above(monkeypatch, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        predict_in_blocks(network, volume, core, (1, 1, 1), "torch", budget_bytes=2**30)


def test_free_memory_is_what_the_control_group_leaves(tmp_path):
    own = tmp_path / "own"
    own.write_text("0::/jobs/step\n")
    for name, limit in (("jobs", "1000"), ("jobs/step", "max")):
        folder = tmp_path / "root" / name
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text("700")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 50\n")
    assert list(free_memory._cgroup_free(tmp_path / "root", own)) == [350]


def test_free_memory_of_the_first_version_of_control_groups(tmp_path):
    own = tmp_path / "own"
    own.write_text("5:cpu:/a\n4:memory:/job\n")
    folder = tmp_path / "root" / "memory" / "job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("900")
    (folder / "memory.usage_in_bytes").write_text("300")
    assert list(free_memory._cgroup_free(tmp_path / "root", own)) == [600]


def test_free_memory_obeys_the_address_space(monkeypatch):
    before = free_bytes()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2**20
    monkeypatch.setattr(free_memory.resource, "getrlimit", lambda which: (limit, limit))
    assert free_bytes() <= 2**20 < before


MEASURE = """
    import json, sys
    import numpy as np, torch
    from voxmill.engine.backends import BACKENDS
    from voxmill.networks import build
    from voxmill.config.networks import MSDNetSettings

    name, precision, settings, shape = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    network = build("msdnet", MSDNetSettings(**settings))
    backend = BACKENDS[name]
    if backend.available(network, "cpu"):
        print(json.dumps(None)); raise SystemExit
    volume = np.zeros((network.settings.inputs, *shape), np.float32)
    # Load libraries and warm up on a box that needs hardly any memory.
    tiny = np.zeros((network.settings.inputs, 2, 2, 2), np.float32)
    backend.run(network, tiny, "cpu", precision, 1)
    volume += 1.0
    def peak():
        # Not ru_maxrss, which starts at the parent's value.
        lines = open("/proc/self/status").read().splitlines()
        return 1024 * int(next(l for l in lines if l.startswith("VmHWM")).split()[1])
    before = peak()
    backend.run(network, volume, "cpu", precision, 1)
    print(json.dumps([peak() - before, backend.predict_bytes(network.settings, shape, precision)]))
"""


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "float32") for name in BACKENDS if not name.startswith("gpu-")),
        ("fourier", "shared16"),
    ],
)
@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"depth": 30}, (60, 64, 68)),
        ({"depth": 12, "width": 3, "inputs": 2, "outputs": 2}, (64, 64, 64)),
    ],
)
def test_predicted_peak_is_near_the_measured(name, precision, settings, shape):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(MEASURE),
            json.dumps([name, precision, settings, shape]),
        ],
        capture_output=True,
        text=True,
        check=True,
        # Freed arrays go back to the system at once, as those of real boxes do (from 32 MiB).
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    result = json.loads(done.stdout)
    if result is None:
        pytest.skip("not available here")
    measured, predicted = result
    assert 0.85 * measured <= predicted <= 1.15 * measured, (measured / 1e6, predicted / 1e6)
