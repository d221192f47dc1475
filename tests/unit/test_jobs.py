"""Overlap of reading, computing and writing."""

import threading

import pytest

from voxmill.runtime.jobs import overlapped

WAIT_S = 30


def test_every_item_is_read_computed_and_written_in_turn():
    written = []
    overlapped([1, 2, 3], lambda n: n * 10, lambda n, v: v + n, lambda n, v: written.append((n, v)))
    assert written == [(1, 11), (2, 22), (3, 33)]


def test_nothing_to_do():
    overlapped([], None, None, None)


def test_the_next_is_read_and_the_last_written_while_one_is_computed():
    reading = [threading.Event() for _ in range(3)]
    writing = [threading.Event() for _ in range(3)]
    computed = [threading.Event() for _ in range(3)]

    def read(n):
        reading[n].set()

    def compute(n, _):
        # Fails where reading or writing waits for the computation.
        assert n == 2 or reading[n + 1].wait(WAIT_S)
        assert n == 0 or writing[n - 1].wait(WAIT_S)
        computed[n].set()

    def write(n, _):
        writing[n].set()
        assert n == 2 or computed[n + 1].wait(WAIT_S)

    overlapped([0, 1, 2], read, compute, write)
    assert all(event.is_set() for event in computed)


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_an_error_of_any_stage_ends_it_and_keeps_what_was_written(stage):
    written = []

    def failing(name, value):
        if name == stage and value == 1:
            raise ValueError(f"{name} {value}")
        return value

    with pytest.raises(ValueError, match=f"{stage} 1"):
        overlapped(
            [0, 1, 2, 3],
            lambda n: failing("read", n),
            lambda n, _: failing("compute", n),
            lambda n, _: written.append(failing("write", n)),
        )
    assert written[:1] == [0] and 1 not in written and 3 not in written
