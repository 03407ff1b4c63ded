"""What the server has forgotten is slow to write, so whoever leads does not let it forget.

A stream in files lies in blocks of 4 MB. To write a key is to take its last value away, and for that the server needs
the block where that value lies in memory, with an index of its subjects. A block that was not read for ten seconds is
forgotten; to read it again takes the server 2 to 5 ms, more from a real disk, and all writes of the stream wait. One
change of a pod meets up to three such blocks: its own, its group's, its attachment's. In a large cluster that is the
common case and not the exception, because the more blocks there are, the longer each is left alone.

    the leader, every PERIOD_S ──▶ reads one message of every STRIDE bytes ──▶ all blocks stay in the server's memory

The reads go to the replica that leads the stream, the one whose answer a writer waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bus_schemas.subjects import Stream
from chassis import jetstream
from chassis.bus import Bus
from chassis.errors import Rejected, Unavailable
from chassis.jetstream import StreamState
from chassis.session import Session

PERIOD_S = 4.0
"""Well below the ten seconds after which a server forgets, so that one late turn does no harm."""
STRIDE = 1_000_000
"""A quarter of a block: messages are not all of one size."""
MOST = 1000
"""Reads of one stream in one turn at most. Where values were replaced a million times, blocks are many and small."""


def stride(state: StreamState) -> int:
    """How many sequences lie between two reads."""
    by_bytes = STRIDE * state.messages // max(1, state.bytes)
    by_number = -(-(state.last_seq - state.first_seq + 1) // MOST)
    return max(1, by_bytes, by_number)


class Warmth:
    """`run` is the task that reads."""

    def __init__(self, bus: Bus, streams: Sequence[Stream], *, limit_bytes: int, wanted: Callable[[], bool]) -> None:
        """`limit_bytes`: what the streams may take of the server's memory; the ones that do not fit, in their order,
        are left alone. `wanted`: asked at each turn."""
        self._bus = bus
        self._streams = streams
        self._limit_bytes = limit_bytes
        self._wanted = wanted

    async def run(self) -> None:
        """For ever. That a server does not answer is no fault of the service: the next turn asks again."""
        while True:
            await asyncio.sleep(PERIOD_S)
            if not self._limit_bytes or not self._wanted():
                continue
            try:
                await self.turn()
            except (Unavailable, Rejected) as error:
                self._bus.health.note("warmth", f"the server may have to read its files for each write: {error}")
            else:
                self._bus.health.note("warmth", None)

    async def turn(self) -> int:
        """How many reads it took. Raises Unavailable, Rejected."""
        session = await self._bus.session()
        left = self._limit_bytes
        reads = 0
        for stream in self._streams:
            info = await jetstream.stream_info(session, stream)
            if info is None or not info.state.messages or info.state.bytes > left:
                continue
            left -= info.state.bytes
            reads += await _read(session, stream, info.state)
        return reads


async def _read(session: Session, stream: Stream, state: StreamState) -> int:
    step = stride(state)
    reads = 0
    at: int | None = state.first_seq
    while at is not None and at <= state.last_seq:
        at = await jetstream.touch(session, stream, at)
        reads += 1
        if at is not None:
            at += step
    return reads
