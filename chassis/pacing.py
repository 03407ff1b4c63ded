"""Dirty, then flush: many changes make one flush, soon after the first and never too often.

    mark() ──▶ dirty ──(min_s after the last flush; at once when it was long ago)──▶ flush()
                 ▲                                                                   │ raises BusError
                 └────────────────────────── again after retry_s ────────────────────┘

`max_s` bounds how long a steady stream of marks may push a flush away: while marks keep coming within `quiet_s` of each
other the flush waits for silence, but never longer than `max_s` after the first of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from chassis.errors import BusError


class Pacer:
    """Calls `flush` some time after `mark`. Times in seconds. `run` is the task that does it."""

    def __init__(self, min_s: float = 0.0, max_s: float = 1.0, retry_s: float = 1.0, *, quiet_s: float = 0.0) -> None:
        assert 0 <= min_s <= max_s
        self._min_s = min_s
        self._max_s = max_s
        self._retry_s = retry_s
        self._quiet_s = quiet_s
        self._dirty = asyncio.Event()
        self._marked_at = 0.0
        self._first_at = 0.0

    def mark(self) -> None:
        """Something changed. Cheap, synchronous, idempotent."""
        now = asyncio.get_running_loop().time()
        self._marked_at = now
        if not self._dirty.is_set():
            self._first_at = now
            self._dirty.set()

    @property
    def dirty(self) -> bool:
        return self._dirty.is_set()

    async def run(self, flush: Callable[[], Awaitable[None]]) -> None:
        """For ever: waits for marks and flushes. A BusError is tried again after `retry_s`; anything else ends it."""
        loop = asyncio.get_running_loop()
        flushed_at = loop.time() - self._max_s
        while True:
            await self._dirty.wait()
            while True:
                due = max(flushed_at + self._min_s, min(self._marked_at + self._quiet_s, self._first_at + self._max_s))
                wait = due - loop.time()
                if wait <= 0:
                    break
                await asyncio.sleep(wait)
            self._dirty.clear()
            try:
                await flush()
            except BusError:
                self.mark()
                await asyncio.sleep(self._retry_s)
            flushed_at = loop.time()
