"""How far apart the reads lie that keep a stream in the server's memory."""

from __future__ import annotations

import pytest

from chassis.jetstream import StreamState
from chassis.warmth import MOST, STRIDE, stride


@pytest.mark.parametrize(
    ("state", "apart"),
    [
        (StreamState(), 1),
        (StreamState(messages=1, bytes=10 * STRIDE, first_seq=1, last_seq=1), 1),
        (StreamState(messages=4_000, bytes=STRIDE, first_seq=1, last_seq=4_000), 4_000),
        (StreamState(messages=100_000, bytes=50 * STRIDE, first_seq=1, last_seq=100_000), 2_000),
    ],
    ids=["empty", "one that is larger than the stride", "as many as fit", "a large stream"],
)
def test_a_read_for_every_so_many_bytes(state: StreamState, apart: int) -> None:
    assert stride(state) == apart


def test_the_reads_of_a_stream_are_bounded_whatever_was_written_to_it() -> None:
    state = StreamState(messages=1_000, bytes=STRIDE, first_seq=1, last_seq=10**9)
    assert stride(state) * MOST >= 10**9
