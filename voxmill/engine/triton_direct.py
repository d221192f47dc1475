"""Triton kernels of the direct engine for GPUs; `gpu_direct` calls them in order.

The contribution of one panel to the layers of one dilation is a matrix product: its rows are
voxels, its columns the feature maps of these layers, and it sums over 27 taps times the panel's
feature maps. The feature maps of a panel lie beside each other at each voxel, so that a tap reads
contiguous memory.

Layouts, slowest axis first:

    panel    [z][y][x][feature map, filled up to `channels`]
    sums     [slot][z][y][x]
    weights  [tap][feature map of the panel, filled up to `channels`][target, filled up]
"""

import triton
import triton.language as tl

# Triton compiles a variant for arguments that are 1 or multiples of 16. These sometimes are, such
# as the sizes of boxes, and a variant gains nothing.
_ANY = ("ready", "targets", "dilation", "channel", "count", "box_z", "box_y", "box_x")


@triton.jit
def _products(
    panel, weights, voxel, count, target, ready, channels, target_stride, box_z, box_y, box_x,
    dilation, TAPS: tl.constexpr, VOXELS: tl.constexpr, TARGETS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Contributions of the panel's first `ready` channels to `TARGETS` channels at `VOXELS`."""
    z, y, x = voxel // box_x // box_y, voxel // box_x % box_y, voxel % box_x
    total = tl.zeros([VOXELS, TARGETS], tl.float32)
    for tap in range(TAPS):
        if TAPS == 1:
            inside = voxel < count
            place = voxel.to(tl.int64)
        else:
            dz, dy, dx = tap // 9 - 1, tap // 3 % 3 - 1, tap % 3 - 1
            tz, ty, tx = z + dz * dilation, y + dy * dilation, x + dx * dilation
            inside = (voxel < count) & (tz >= 0) & (tz < box_z)
            inside &= (ty >= 0) & (ty < box_y) & (tx >= 0) & (tx < box_x)
            place = (tz.to(tl.int64) * box_y + ty) * box_x + tx
        for first in range(0, ready, 16):
            channel = first + tl.arange(0, 16)
            # Loads are whole vectors and include channels that are not ready, which another program
            # may be writing; their weights are zero.
            a = tl.load(
                panel + place[:, None] * channels + channel[None, :],
                mask=inside[:, None], other=0.0,
            )  # fmt: skip
            b = tl.load(
                weights + (tap * channels + channel)[:, None] * target_stride + target[None, :]
            )
            total = tl.dot(a, b, total, input_precision=PRECISION)
    return total


@triton.jit(do_not_specialize=_ANY)
def push(
    sums, slots, panel, weights, count, targets, ready, channels, target_stride,
    box_z, box_y, box_x, dilation,
    TAPS: tl.constexpr, VOXELS: tl.constexpr, TARGETS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add a panel's contributions to the sums in `slots` (one for each target)."""
    voxel = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    target = tl.program_id(1) * TARGETS + tl.arange(0, TARGETS)
    total = _products(
        panel, weights, voxel, count, target, ready, channels, target_stride, box_z, box_y, box_x,
        dilation, TAPS, VOXELS, TARGETS, PRECISION,
    )  # fmt: skip
    slot = tl.load(slots + target, mask=target < targets, other=0).to(tl.int64)
    to = sums + slot[None, :] * count + voxel[:, None]
    mask = (target < targets)[None, :] & (voxel < count)[:, None]
    tl.store(to, tl.load(to, mask=mask, other=0.0) + total, mask=mask)


@triton.jit(do_not_specialize=_ANY)
def finish(
    panel, sums, bias, weights, count, targets, ready, channel, channels, target_stride,
    box_z, box_y, box_x, dilation, PUSHED: tl.constexpr,
    TAPS: tl.constexpr, VOXELS: tl.constexpr, TARGETS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute a layer's feature maps, from its sums and its own panel, at `channel` and on."""
    voxel = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    target = tl.program_id(1) * TARGETS + tl.arange(0, TARGETS)
    total = _products(
        panel, weights, voxel, count, target, ready, channels, target_stride, box_z, box_y, box_x,
        dilation, TAPS, VOXELS, TARGETS, PRECISION,
    )  # fmt: skip
    mask = (target < targets)[None, :] & (voxel < count)[:, None]
    if PUSHED:
        from_sums = sums + target.to(tl.int64)[None, :] * count + voxel[:, None]
        total += tl.load(from_sums, mask=mask, other=0.0)
    total += tl.load(bias + target, mask=target < targets, other=0.0)[None, :]
    # Not a maximum, which would turn NaN into zero.
    total = tl.where(total < 0.0, 0.0, total)
    to = panel + voxel.to(tl.int64)[:, None] * channels + (channel + target)[None, :]
    tl.store(to, total, mask=mask)
