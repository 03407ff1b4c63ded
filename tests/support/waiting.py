"""Waiting for something that comes true by itself: no sleeping for a time, a deadline instead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

DEADLINE_S = 20.0


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Returns once the condition holds; fails with `what` when it does not within DEADLINE_S."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():  # noqa: ASYNC110 - there is no event to wait for: the state is asked for
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None
