"""Reads of many nodes' workers go to the bus as one: while one is under way, all that are asked for meanwhile wait for
the next.

    worker n1 --+                                          +--> n1
    worker n2 --+--> waiting --> one read, <= MAX_KEYS -----+--> n2

A worker reads again what its answer rests on, or what another writer changed; it must not be told what was read before
it asked. So it never joins a read that is under way already.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from bus_schemas.subjects import Fact, Family, Key
from chassis.bus import Bus
from chassis.errors import BusError, Unreadable

MAX_KEYS = 500
"""One direct get."""

Where = tuple[Family[Any], Key]


class _Question(NamedTuple):
    keys: Sequence[Where]
    answer: asyncio.Future[list[Fact | Unreadable]]


class Reads:
    """Made once a service, for keys of one stream; its work runs in `tasks`."""

    def __init__(self, bus: Bus, tasks: asyncio.TaskGroup) -> None:
        self._bus = bus
        self._tasks = tasks
        self._waiting: deque[_Question] = deque()
        self._running = False

    async def get_many(self, keys: Sequence[Where]) -> list[Fact | Unreadable]:
        """As `Bus.get_many`."""
        question = _Question(keys, asyncio.get_running_loop().create_future())
        self._waiting.append(question)
        if not self._running:
            self._running = True
            self._tasks.create_task(self._run(), name="ipam reads")
        return await question.answer

    async def _run(self) -> None:
        # Whoever is ready in this turn of the loop comes along.
        await asyncio.sleep(0)
        while self._waiting:
            await self._read(self._gather())
        self._running = False

    def _gather(self) -> list[_Question]:
        """At least one."""
        gathered = [self._waiting.popleft()]
        keys = set(gathered[0].keys)
        while self._waiting and len(keys) + len(self._waiting[0].keys) <= MAX_KEYS:
            gathered.append(self._waiting.popleft())
            keys.update(gathered[-1].keys)
        return gathered

    async def _read(self, questions: list[_Question]) -> None:
        keys = list(dict.fromkeys(key for question in questions for key in question.keys))
        try:
            found = dict(zip(keys, await self._bus.get_many(keys), strict=True))
        except BusError as error:
            for question in questions:
                if not question.answer.done():
                    question.answer.set_exception(error)
            return
        for question in questions:
            if not question.answer.done():
                question.answer.set_result([found[key] for key in question.keys])
