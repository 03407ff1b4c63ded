"""What one ipam does on behalf of all: its duties, while it holds the lease `ipam-duties`.

    lease taken --> every duty begins      lease lost --> every duty is cancelled, and begins anew at who takes it next

Requests are answered by every replica; a duty is what nobody asks for and two should not do side by side: to look for
forgotten addresses, to give Services theirs. The lease keeps the work single, not the records safe: whatever a duty
writes is compare-and-swap like all else here, so one that was cancelled too late does no harm.

A duty is a coroutine that never returns. It deals with what the bus does (`BusError`) itself; anything else that it
raises ends the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from chassis.bus import Bus
from chassis.lease import Lease

LEASE = "ipam-duties"

Duty = Callable[[], Coroutine[Any, Any, None]]


class Duties:
    """`duties` by name. `fit`: whether this replica has read what it needs; say `became_fit` when that comes about."""

    def __init__(self, bus: Bus, instance: str, duties: Mapping[str, Duty], *, fit: Callable[[], bool]) -> None:
        self._duties = duties
        self._lease = Lease(bus, LEASE, instance, fit=fit)
        self._changed = asyncio.Event()
        self._lease.on_change(lambda held: self._changed.set())

    def became_fit(self) -> None:
        self._lease.became_fit()

    async def run(self) -> None:
        """For ever."""
        running: list[asyncio.Task[None]] = []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lease.run(), name=f"lease {LEASE}")
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._lease.held and not running:
                    running = [tasks.create_task(duty(), name=f"ipam {name}") for name, duty in self._duties.items()]
                elif not self._lease.held and running:
                    for task in running:
                        task.cancel()
                    await asyncio.wait(running)
                    running = []
