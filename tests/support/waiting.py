"""Waiting for something that comes true by itself: no sleeping for a time, a deadline instead."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tortie.lab.errors import LabError

T = TypeVar("T")

DEADLINE_S = 20.0
POLL_S = 0.005


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Returns once the condition holds; fails with `what` when it does not within DEADLINE_S."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():  # noqa: ASYNC110 - there is no event to wait for: the state is asked for
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None


async def eventually(condition: Callable[[], T], *, within_s: float = DEADLINE_S) -> T:
    """The first true value of the condition. AssertionError with its source and last value after the deadline.

    An AssertionError inside the condition counts as not yet.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        last: object
        try:
            value = condition()
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        if loop.time() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {inspect.getsource(condition).strip()} ({last!r})")
        await asyncio.sleep(POLL_S)


async def within(condition: Callable[[], Awaitable[T]], what: str, deadline_s: float = DEADLINE_S) -> T:
    """The first true value of an awaited condition. A LabError or AssertionError in it counts as not yet, and is what
    is told at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_s
    while True:
        last: object
        try:
            value = await condition()
            if value:
                return value
            last = value
        except (AssertionError, LabError) as error:
            last = error
        assert loop.time() < deadline, f"not within {deadline_s:g} s: {what}: {last}"
        await asyncio.sleep(0.02)
