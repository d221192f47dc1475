"""Lengths of the Fourier transforms of a box: pure geometry."""

import functools

_SMOOTH_PRIMES = (2, 3, 5, 7)


@functools.cache
def fft_length(least: int, lanes: int = 1) -> int:
    """Length of a transform: at least `least`, made of 2, 3, 5 and 7, cheap to compute.

    Parameters
    ----------
    least : int
        Voxels of the box plus its margin.
    lanes : int
        Numbers in a vector, where the transformed axis is cut in vectors: what is left of the
        last one is paid for too.
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
    """Number of prime factors above 2, each of them a slower pass than one of 4 or 8."""
    count = 0
    for prime in _SMOOTH_PRIMES[1:]:
        while n % prime == 0:
            n //= prime
            count += 1
    return count


def lengths(settings, box_shape, lanes: int = 16) -> tuple[int, int, int]:
    """Lengths of the transforms along z, y, x.

    A dilation as large as the box reaches from nowhere in it to nowhere in it, so the margin is
    never more than the box less one.
    """
    margins = [
        max((d for d in settings.dilations[: settings.depth] if d < n), default=0)
        for n in box_shape
    ]
    z, y, x = (n + margin for n, margin in zip(box_shape, margins, strict=True))
    return fft_length(z), fft_length(y, lanes), fft_length(x)
