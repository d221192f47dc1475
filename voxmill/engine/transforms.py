"""Lengths of the Fourier transforms of a box."""

import functools

from voxmill.config.networks import MSDNetSettings
from voxmill.engine.backend import Shape

_SMOOTH_PRIMES = (2, 3, 5, 7)


@functools.cache
def fft_length(least: int, lanes: int = 1) -> int:
    """The cheapest length of at least `least` whose prime factors are 2, 3, 5 and 7.

    Parameters
    ----------
    least : int
        Voxels of the box plus its margin.
    lanes : int
        Numbers in a vector, where the transformed axis is divided into vectors: an incomplete
        last one costs as much as a whole one.

    Examples
    --------
    >>> fft_length(37), fft_length(64)
    (40, 64)
    """
    return min(
        (n for n in range(least, 2 * least + 1) if _is_smooth(n)),
        key=lambda n: (-(-n // lanes) * lanes * (1 + 0.01 * _odd_factors(n)), n),
    )


def _is_smooth(n: int) -> bool:
    for prime in _SMOOTH_PRIMES:
        while n % prime == 0:
            n //= prime
    return n == 1


def _odd_factors(n: int) -> int:
    """Number of prime factors above 2: a pass for one of them is slower than one for 4 or 8."""
    count = 0
    for prime in _SMOOTH_PRIMES[1:]:
        while n % prime == 0:
            n //= prime
            count += 1
    return count


def least_lengths(settings: MSDNetSettings, box_shape: Shape) -> tuple[int, int, int]:
    """Voxels of a box (z, y, x) with the margins that its transforms need.

    A tap whose dilation is at least the box's edge only reads zeros, so that it needs no margin:
    the margin is less than the edge.
    """
    margins = [
        max((d for d in settings.dilations[: settings.depth] if d < n), default=0)
        for n in box_shape
    ]
    z, y, x = (n + margin for n, margin in zip(box_shape, margins, strict=True))
    return z, y, x


def lengths(
    settings: MSDNetSettings, box_shape: Shape, lanes: int = 16, even_x: bool = False
) -> tuple[int, int, int]:
    """Lengths of the transforms along z, y, x.

    Parameters
    ----------
    settings : MSDNetSettings
    box_shape : (3,) ints
        Voxels, z, y, x.
    lanes : int
        Numbers in a vector; the axis y is divided into vectors.
    even_x : bool
        Whether the length along x is to be even, where real transforms are half as long.
    """
    z, y, x = least_lengths(settings, box_shape)
    along_x = 2 * fft_length(-(-x // 2)) if even_x else fft_length(x)
    return fft_length(z), fft_length(y, lanes), along_x
