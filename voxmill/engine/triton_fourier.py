"""Triton kernels of the Fourier engine for GPUs; `gpu_fourier` calls them in order.

A line is a pair of frequencies (kz, ky); kx varies along it. On a line, the spectrum of a 3 x 3 x 3
kernel with dilation d is `G0 + cos(kx d) Gs + i sin(kx d) Gd` with three complex numbers that
depend on the line alone. The contribution of all earlier feature maps to a panel of layers is
therefore one matrix product per line (real and imaginary parts written out, three products at
once), whose result is multiplied by the cosine and the sine. `kernel_table` computes the G from the
27 weights; `pull` computes the product on tensor cores, with sums in float32.

Layouts, slowest axis first:

    spectra  [feature map][re, im][line][kx, filled up to whole vectors]     float32 or float16
    sums     [feature map of the panel][line][kx][re, im]                    float32
    table    [line of a slab][re, im][G0, Gs, iGd][target][source][re, im]   as the spectra

Lines and sources are filled up with zeros to whole vectors of 16, so that loads are wide.
"""

import triton
import triton.language as tl

# Triton compiles a variant for arguments that are 1 or multiples of 16. These sometimes are, such
# as the sizes of boxes, and a variant gains nothing. Strides that always are multiples of 16 are
# left out of the list, so that loads are wide.
_ANY = ("first_line", "lines", "targets", "sources", "columns", "sums_stride")
_LAST = ("final_stride", "outputs")
_BOX = (
    "length_z",
    "length_y",
    "length_x",
    "box_z",
    "box_y",
    "box_x",
    "voxels",
    "outputs",
    "real_stride",
)
_UNALIGNED = ("bias", "final_weights", "phases", "unit")


@triton.jit(do_not_specialize=_ANY + _BOX, do_not_specialize_on_alignment=_UNALIGNED)
def kernel_table(
    table, weights, cosine_z, sine_z, cosine_y, sine_y, phases,
    first_line, lines, length_z, length_y, targets, sources, padded_sources,
    LINES: tl.constexpr, SOURCES: tl.constexpr,
):  # fmt: skip
    """Fill the table of a slab of lines, for one target and `SOURCES` sources a program.

    `weights` (9, 3, targets, sources) hold, for each tap along z and y, the combinations of the
    taps along x that belong to 1, cos and i sin. Row `phases[target]` of the cosines and sines is
    for the target's dilation.
    """
    local = tl.program_id(0) * LINES + tl.arange(0, LINES)
    source = tl.program_id(1) * SOURCES + tl.arange(0, SOURCES)
    target = tl.program_id(2)
    here = local < lines
    z, y = (first_line + local) // length_y, (first_line + local) % length_y
    phase = tl.load(phases + target)
    cz = tl.load(cosine_z + phase * length_z + z, mask=here, other=0.0)
    sz = tl.load(sine_z + phase * length_z + z, mask=here, other=0.0)
    cy = tl.load(cosine_y + phase * length_y + y, mask=here, other=0.0)
    sy = tl.load(sine_y + phase * length_y + y, mask=here, other=0.0)
    row = (local.to(tl.int64) * 6 * targets + target)[:, None]
    column = (2 * source)[None, :]
    inside = here[:, None] & (source < padded_sources)[None, :]
    for part in tl.static_range(3):
        real = tl.zeros([LINES, SOURCES], tl.float32)
        imaginary = tl.zeros([LINES, SOURCES], tl.float32)
        for tap in tl.static_range(9):
            # exp(i (z step * kz + y step * ky) d), steps -1, 0, 1.
            zr = cz if tap // 3 != 1 else tl.full([LINES], 1.0, tl.float32)
            zi = sz * (tap // 3 - 1)
            yr = cy if tap % 3 != 1 else tl.full([LINES], 1.0, tl.float32)
            yi = sy * (tap % 3 - 1)
            weight = tl.load(
                weights + ((tap * 3 + part) * targets + target) * sources + source,
                mask=source < sources, other=0.0,
            )[None, :]  # fmt: skip
            real += (zr * yr - zi * yi)[:, None] * weight
            imaginary += (zr * yi + zi * yr)[:, None] * weight
        if part == 2:  # times i
            real, imaginary = -imaginary, real
        upper = table + (row + part * targets) * 2 * padded_sources + column
        lower = table + (row + (3 + part) * targets) * 2 * padded_sources + column
        tl.store(upper, real, mask=inside)
        tl.store(upper + 1, -imaginary, mask=inside)
        tl.store(lower, imaginary, mask=inside)
        tl.store(lower + 1, real, mask=inside)


@triton.jit(do_not_specialize=_ANY, do_not_specialize_on_alignment=_UNALIGNED)
def pull(
    sums, spectra, table, cosine_x, sine_x, phases, scales,
    first_line, lines, columns, row_stride, map_stride, sums_stride, targets, sources,
    padded_sources,
    ADD: tl.constexpr, TARGETS: tl.constexpr, COLUMNS: tl.constexpr, SOURCES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums of `TARGETS` feature maps on `COLUMNS` frequencies of one line, over all sources.

    `map_stride` counts numbers from the real part of a map to its imaginary part, and from there to
    the next map; `sums_stride` counts complex numbers from map to map.
    """
    blocks = tl.cdiv(columns, COLUMNS)
    local = tl.program_id(0) // blocks
    x = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    line = (first_line + local).to(tl.int64)
    # Rows of the product: [re, im][G0, Gs, iGd, nothing][target]
    row = tl.arange(0, 8 * TARGETS)
    part = (row // TARGETS) % 4
    target = tl.program_id(1) * TARGETS + row % TARGETS
    used = (part < 3) & (target < targets)
    place = local.to(tl.int64) * 6 * targets + (row // (4 * TARGETS) * 3 + part) * targets + target
    left = table + (place * 2 * padded_sources)[:, None]
    right = spectra + (line * row_stride + x)[None, :]
    stored = (x < row_stride)[None, :]
    total = tl.zeros([8 * TARGETS, COLUMNS], tl.float32)
    for start in range(0, 2 * sources, 2 * SOURCES):
        k = start + tl.arange(0, 2 * SOURCES)
        filled = (k < 2 * padded_sources)[None, :]
        a = tl.load(left + k[None, :], mask=used[:, None] & filled, other=0.0)
        b = tl.load(
            right + k.to(tl.int64)[:, None] * map_stride,
            mask=(k < 2 * sources)[:, None] & stored, other=0.0,
        )  # fmt: skip
        total = tl.dot(a, b, total, input_precision=PRECISION)
    target = tl.program_id(1) * TARGETS + tl.arange(0, TARGETS)
    wanted = (target < targets)[:, None] & (x < columns)[None, :]
    phase = tl.load(phases + target, mask=target < targets, other=0)[:, None] * columns
    cosine = tl.load(cosine_x + phase + x[None, :], mask=wanted, other=0.0)
    sine = tl.load(sine_x + phase + x[None, :], mask=wanted, other=0.0)
    which = tl.arange(0, 4)[:, None, None]
    factor = tl.where(which == 1, cosine[None], tl.where(which == 2, sine[None], 0.0))
    factor = tl.where(which == 0, 1.0, factor)
    result = tl.sum(tl.reshape(total, [2, 4, TARGETS, COLUMNS]) * factor[None], axis=1)
    scale = tl.load(scales + target, mask=target < targets, other=0.0)
    result *= scale[None, :, None]
    spot = target.to(tl.int64)[:, None] * sums_stride + line * columns + x[None, :]
    to = sums + 2 * spot[None] + tl.arange(0, 2)[:, None, None]
    mask = wanted[None] & (tl.arange(0, 2) >= 0)[:, None, None]
    if ADD:
        result += tl.load(to, mask=mask, other=0.0)
    tl.store(to, result, mask=mask)


@triton.jit(do_not_specialize=_BOX + _LAST, do_not_specialize_on_alignment=_UNALIGNED)
def activate(
    real, logits, bias, final_weights, scale, length_z, length_y, length_x, real_stride,
    box_z, box_y, box_x, voxels, final_stride, outputs, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Scale, bias and ReLU inside of the box, zero outside, in place; add the map to the logits.

    `real` (length_z, length_y, length_x) is one feature map on the padded box, with `real_stride`
    numbers from row to row; `final_weights[0]`, `[final_stride]`, ... are its weights in the last
    layer; `logits` (outputs, z, y, x) belong to the box, and are left alone if `outputs` is 0.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    x = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    z, y = row // length_y, row % length_y
    inside = ((z < box_z) & (y < box_y))[:, None] & (x < box_x)
    padded = (row < length_z * length_y)[:, None] & (x < length_x)
    at = real + row.to(tl.int64)[:, None] * real_stride + x
    value = tl.load(at, mask=inside, other=0.0) * scale + tl.load(bias)
    # Not a maximum, which would turn NaN into zero.
    value = tl.where(inside, tl.where(value < 0.0, 0.0, value), 0.0)
    tl.store(at, value, mask=padded)
    to = logits + (z * box_y + y).to(tl.int64)[:, None] * box_x + x
    for output in range(outputs):
        weight = tl.load(final_weights + output * final_stride)
        tl.store(to, tl.load(to, mask=inside, other=0.0) + value * weight, mask=inside)
        to += voxels


@triton.jit(do_not_specialize=_ANY + _BOX, do_not_specialize_on_alignment=_UNALIGNED)
def store_spectrum(
    spectra, spectrum, unit, lines, columns, row_stride, map_stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Store one complex spectrum in its place, divided by `unit[0]` and rounded."""
    line = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    x = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    inside = (line < lines) & (x < columns)
    per_unit = 1.0 / tl.load(unit)
    at = spectrum + 2 * (line * columns + x)
    to = spectra + line * row_stride + x
    tl.store(to, tl.load(at, mask=inside, other=0.0) * per_unit, mask=inside)
    imaginary = tl.load(at + 1, mask=inside, other=0.0) * per_unit
    tl.store(to + map_stride, imaginary, mask=inside)
