"""The pass along x of the Fourier engine for GPUs, as one Triton kernel; `gpu_rows` calls it.

A row is a line along x of the box whose axes z and y have been transformed back. From its spectrum
the kernel makes its voxels, adds the bias, applies the ReLU, and makes the spectrum of what comes
out, so that a row is read once and written once.

A row has `n1 * n2` voxels. Voxel `j1 + n1 * j2` and frequency `k2 + n2 * k1` are related by sums
over `n1` and over `n2` numbers with factors `exp(2 pi i j1 k2 / (n1 n2))` between them (Cooley and
Tukey 1965, doi:10.1090/S0025-5718-1965-0178586-1); the sums are matrix products. As voxels are
real, `k2 <= n2 / 2` suffices, and half of the sums over `n2`. Neither direction moves numbers
between the products: the shape is all that changes.

    frequencies   [k1][row][k2]  --cos, sin (j1, k1)-->  [j1][row][k2]  --factors-->
    voxels        [j1, row][k2]  --cos, sin (k2, j2)-->  [j1, row][j2]
    ... bias and ReLU, and the same three steps back

`tables` has, one after another: cosines and sines (n1, n1), factors (n1, k2), the real sums
(k2, n2), where a frequency that stands for its mirror counts twice, and the way back (n2, k2); all
are filled up with zeros to the powers of two `N1`, `K2` and `2 * K2`.
"""

import triton
import triton.language as tl

_SIZES = ("first", "second", "rows", "length_y", "columns", "box_z", "box_y", "box_x")
_LAST = ("voxels", "final_stride", "outputs")
_UNALIGNED = ("bias", "final_weights")


@triton.jit
def _product(a, b, ROUND: tl.constexpr):
    """A matrix product on tensor cores: of numbers rounded to TensorFloat-32, or of float32."""
    if ROUND:
        return tl.dot(_rounded(a), _rounded(b), input_precision="tf32")
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def _rounded(value):
    """The nearest number of 10 bits behind the point; the tensor cores alone would cut."""
    bits = value.to(tl.int32, bitcast=True)
    near = ((bits + 4096) & -8192).to(tl.float32, bitcast=True)
    return tl.where(value == value, near, value)  # NaN stays NaN


@triton.jit
def _complex_product(a, b, real, imaginary, ROUND: tl.constexpr):
    """(a + i b) (real + i imaginary), of matrices."""
    upper = _product(a, real, ROUND) - _product(b, imaginary, ROUND)
    return upper, _product(a, imaginary, ROUND) + _product(b, real, ROUND)


@triton.jit
def _table(tables, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Two matrices, one after another."""
    at = tables + tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return tl.load(at), tl.load(at + ROWS * COLUMNS)


@triton.jit(do_not_specialize=_SIZES + _LAST, do_not_specialize_on_alignment=_UNALIGNED)
def activate_rows(
    spectrum, logits, bias, final_weights, tables, scale, first, second, rows, length_y, columns,
    box_z, box_y, box_x, voxels, final_stride, outputs,
    ACTIVATE: tl.constexpr, TO_LOGITS: tl.constexpr, ROUND: tl.constexpr,
    N1: tl.constexpr, K2: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Scale, bias and ReLU inside of the box, zero outside; from spectrum to spectrum, or logits.

    `spectrum` (z, y, columns) is complex, of rows of `first * second` voxels, and changed in place.
    With `TO_LOGITS` it is left, and the voxels, each times `final_weights[0]`, `[final_stride]`,
    ..., are added to `logits` (outputs, z, y, x), which belong to the box. Without `ACTIVATE` they
    are only scaled. A program computes `ROWS` rows.
    """
    cos1, sin1 = _table(tables, N1, N1)
    turn_cos, turn_sin = _table(tables + 2 * N1 * N1, N1, K2)
    at = tables + 2 * N1 * (N1 + K2)
    back_cos, back_sin = _table(at, K2, 2 * K2)
    forth_cos, forth_sin = _table(at + 4 * K2 * K2, 2 * K2, K2)
    turn_cos, turn_sin = turn_cos[:, None, :], turn_sin[:, None, :]
    # Where frequencies [k1][row][k2] are: those above the half are mirrored, and conjugate.
    k1, k2 = tl.arange(0, N1)[:, None, None], tl.arange(0, K2)[None, None, :]
    k = k2 + second * k1
    length = first * second
    used = (k1 < first) & (2 * k2 <= second)
    mirrored = 2 * k > length
    k = tl.where(mirrored, length - k, k)
    sign = tl.where(mirrored, -1.0, 1.0)
    # A frequency and its mirror are both there if k2 is 0 or n2 / 2: one of them is stored.
    stored = used & ~(mirrored & ((k2 == 0) | (2 * k2 == second)))
    # Where voxels [j1, row][j2] are.
    j1, j2 = (tl.arange(0, N1 * ROWS) // ROWS)[:, None], tl.arange(0, 2 * K2)[None, :]
    x = j1 + first * j2
    wanted = (j1 < first) & (j2 < second) & (x < box_x)
    offset = tl.load(bias) if ACTIVATE else 0.0
    first_row = tl.program_id(0) * ROWS
    row = (first_row + tl.arange(0, ROWS))[None, :, None]
    place = spectrum + 2 * (row.to(tl.int64) * columns + k)
    inside = (row < rows) & (row // length_y < box_z) & (row % length_y < box_y)
    real = tl.load(place, mask=used & inside, other=0.0).reshape(N1, ROWS * K2)
    imaginary = tl.load(place + 1, mask=used & inside, other=0.0) * sign
    imaginary = imaginary.reshape(N1, ROWS * K2)
    real, imaginary = _complex_product(cos1, sin1, real, imaginary, ROUND)
    real = real.reshape(N1, ROWS, K2)
    imaginary = imaginary.reshape(N1, ROWS, K2)
    turned = (real * turn_cos - imaginary * turn_sin).reshape(N1 * ROWS, K2)
    imaginary = (real * turn_sin + imaginary * turn_cos).reshape(N1 * ROWS, K2)
    value = _product(turned, back_cos, ROUND) - _product(imaginary, back_sin, ROUND)

    flat = (first_row + tl.arange(0, N1 * ROWS) % ROWS)[:, None]
    z, y = flat // length_y, flat % length_y
    inside = wanted & (flat < rows) & (z < box_z) & (y < box_y)
    value = value * scale + offset
    if ACTIVATE:  # not a maximum, which would turn NaN into zero
        value = tl.where(value < 0.0, 0.0, value)
    value = tl.where(inside, value, 0.0)
    if TO_LOGITS:
        to = logits + (z * box_y + y).to(tl.int64) * box_x + x
        for output in range(outputs):
            weight = tl.load(final_weights + output * final_stride)
            tl.store(to, tl.load(to, mask=inside, other=0.0) + value * weight, mask=inside)
            to += voxels
    else:
        real = _product(value, forth_cos, ROUND).reshape(N1, ROWS, K2)
        imaginary = _product(value, forth_sin, ROUND).reshape(N1, ROWS, K2)
        turned = (real * turn_cos - imaginary * turn_sin).reshape(N1, ROWS * K2)
        imaginary = (real * turn_sin + imaginary * turn_cos).reshape(N1, ROWS * K2)
        # The sums with exp(+...): what comes out is conjugate to the spectrum.
        real, imaginary = _complex_product(cos1, sin1, turned, imaginary, ROUND)
        write = stored & (row < rows)
        tl.store(place, real.reshape(N1, ROWS, K2), mask=write)
        tl.store(place + 1, -imaginary.reshape(N1, ROWS, K2) * sign, mask=write)
