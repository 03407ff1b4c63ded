"""Dirty, then flush. No timing is asserted: only what happens between which flushes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from chassis.errors import Unavailable
from chassis.pacing import Pacer
from tests.support.waiting import eventually


@asynccontextmanager
async def pacing(pacer: Pacer, flush: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(pacer.run(flush))
        try:
            yield
        finally:
            task.cancel()


async def test_many_marks_make_one_flush() -> None:
    flushed: list[int] = []
    pacer = Pacer(0.0, 1.0, 1.0)

    async def flush() -> None:
        flushed.append(1)

    for _ in range(100):
        pacer.mark()
    async with pacing(pacer, flush):
        await eventually(lambda: flushed == [1])
        assert not pacer.dirty
        pacer.mark()
        await eventually(lambda: flushed == [1, 1])


async def test_a_mark_during_a_flush_makes_another() -> None:
    flushed: list[int] = []
    pacer = Pacer(0.0, 1.0, 1.0)

    async def flush() -> None:
        flushed.append(1)
        if len(flushed) == 1:
            pacer.mark()

    pacer.mark()
    async with pacing(pacer, flush):
        await eventually(lambda: len(flushed) == 2)


async def test_an_outage_is_tried_again() -> None:
    flushed: list[int] = []
    pacer = Pacer(0.0, 0.0, 0.01)

    async def flush() -> None:
        flushed.append(1)
        if len(flushed) < 3:
            raise Unavailable("away")

    pacer.mark()
    async with pacing(pacer, flush):
        await eventually(lambda: len(flushed) == 3 and not pacer.dirty)
