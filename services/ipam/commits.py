"""Group commit: the changes of many nodes go to the bus as one atomic batch.

The server puts a batch to disk before it answers, one batch of a stream after the other, and the price hardly depends
on its size. So while one batch is on its way all that comes meanwhile is gathered, and goes as the next one:

    worker n1 --+                                        +-- sequences --> n1
    worker n2 --+--> waiting --> one batch, <= MAX_WRITES +-- Conflict ---> n2, whose key it was; the others try again
    worker n3 --+                                        +-- sequences --> n3

Every change is still all or nothing, and a conflict is only for the changes whose keys conflicted. All of them are told
at once: in a storm over several replicas, a batch would otherwise be sent as often as it holds a conflict.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from chassis.bus import Bus, Write
from chassis.errors import BusError, Conflict, Rejected
from services.ipam import metrics

MAX_WRITES = 1000
"""What an atomic batch holds."""


class _Change:
    def __init__(self, writes: Sequence[Write], sequences: asyncio.Future[list[int]]) -> None:
        self.writes = writes
        self.sequences = sequences
        self.subjects = {write.family.subject(*write.key) for write in writes}


class Commits:
    """Made once a service; its work runs in `tasks`."""

    def __init__(self, bus: Bus, tasks: asyncio.TaskGroup) -> None:
        self._bus = bus
        self._tasks = tasks
        self._waiting: deque[_Change] = deque()
        self._running = False

    async def commit(self, writes: Sequence[Write]) -> list[int]:
        """All of the writes or none; their sequences, in order. Raises what `Bus.batch` raises."""
        assert len(writes) <= MAX_WRITES
        change = _Change(writes, asyncio.get_running_loop().create_future())
        self._waiting.append(change)
        if not self._running:
            self._running = True
            self._tasks.create_task(self._run(), name="ipam commits")
        return await change.sequences

    async def _run(self) -> None:
        # Whoever is ready in this turn of the loop comes along.
        await asyncio.sleep(0)
        while self._waiting:
            await self._write(self._gather())
        self._running = False

    def _gather(self) -> list[_Change]:
        """The longest run of waiting changes that fit in one batch and touch different keys."""
        gathered: list[_Change] = []
        subjects: set[str] = set()
        while self._waiting:
            coming = self._waiting[0].subjects
            if len(subjects) + len(coming) > MAX_WRITES or not subjects.isdisjoint(coming):
                break
            subjects |= coming
            gathered.append(self._waiting.popleft())
        return gathered

    async def _write(self, changes: list[_Change]) -> None:
        while changes:
            writes = [write for change in changes for write in change.writes]
            try:
                sequences = await self._bus.batch(writes)
            except (Conflict, Rejected) as error:
                changes = await self._without_the_guilty(changes, error)
            except BusError as error:
                _fail(changes, error)
                return
            else:
                metrics.WRITTEN.observe(len(writes))
                _share(changes, sequences)
                return

    async def _without_the_guilty(self, changes: list[_Change], error: Conflict | Rejected) -> list[_Change]:
        """Tells the changes at fault, and returns the others to be tried again; where it is not known which they are,
        each is tried alone."""
        guilty = changes
        if len(changes) > 1:
            named = error.subjects if isinstance(error, Conflict) else frozenset()
            guilty = [change for change in changes if not named.isdisjoint(change.subjects)]
        if not guilty:
            for change in changes:
                await self._write([change])
            return []
        _fail(guilty, error)
        return [change for change in changes if change not in guilty]


def _share(changes: list[_Change], sequences: list[int]) -> None:
    at = 0
    for change in changes:
        if not change.sequences.done():
            change.sequences.set_result(sequences[at : at + len(change.writes)])
        at += len(change.writes)


def _fail(changes: list[_Change], error: BusError) -> None:
    for change in changes:
        if not change.sequences.done():
            change.sequences.set_exception(error)
