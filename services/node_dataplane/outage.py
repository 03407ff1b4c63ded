"""Work that ends when the bus goes away, for those who can do something else then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from chassis.errors import Unavailable

T = TypeVar("T")


class Bus(Protocol):
    async def connected(self) -> None: ...

    async def away(self) -> None: ...


class Reach:
    """Whether there is a usable bus. `run` must be running."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._here = asyncio.Event()
        self._patient: set[asyncio.Timeout] = set()

    @property
    def here(self) -> bool:
        return self._here.is_set()

    async def returned(self) -> None:
        """Waits until there is a bus."""
        await self._here.wait()

    async def while_here(self, work: Callable[[], Awaitable[T]]) -> T:
        """The outcome of the work. Raises Unavailable as soon as there is no bus, and what the work raises."""
        if not self.here:
            raise Unavailable("the bus is away")
        patience = asyncio.timeout(None)
        try:
            async with patience:
                self._patient.add(patience)
                return await work()
        except TimeoutError as error:
            if patience.expired():
                raise Unavailable("the bus is away") from error
            raise
        finally:
            self._patient.discard(patience)

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._bus.connected()
            self._here.set()
            await self._bus.away()
            self._here.clear()
            for patience in self._patient:
                patience.reschedule(0.0)
