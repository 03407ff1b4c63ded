"""Who writes for a service with several replicas: a key with a time to live, held by compare-and-swap.

    absent or ours ──swap──▶ held ──swap every RENEW──▶ held
                                │ Conflict                  │ no answer until the deadline
                                ▼                           ▼
                              lost ◀───────────────────── lost ──▶ look again every POLL

`held` is true only until a deadline of our own clock that lies before the server's: a process that was paused finds its
lease gone when it wakes. What a late writer could still send is fenced by the sequences of its own keys. A holder that
restarts under the same name takes its lease again at once; one that leaves gives it back. Who is not `fit` (does not
know yet what its predecessor did) leaves it to others. So does one who finds that a living replica has its name: each
would take the other for its own former life. Who shall not `keep` it any longer gives it back at its next turn.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress

from bus_schemas.status import Lease as LeaseMessage
from bus_schemas.subjects import LEASE, Key
from chassis.bus import Bus
from chassis.errors import BusError, Conflict, Unreadable

TTL_S = 3.0
RENEW_S = 1.0
POLL_S = 0.5
SAFETY = 0.9
"""The share of the time to live for which we believe in it."""


class Lease:
    """`run` is the task that takes and keeps it. `holder` must be unique among the replicas."""

    def __init__(
        self,
        bus: Bus,
        service: str,
        holder: str,
        *,
        ttl_s: float = TTL_S,
        fit: Callable[[], bool] = lambda: True,
        keep: Callable[[], bool] = lambda: True,
    ) -> None:
        """`fit`: whether this replica may take it; asked of one that would become the holder. `keep`: whether it shall
        go on holding it; asked of the holder."""
        self._bus = bus
        self._key = (service,)
        self._service = service
        self._holder = holder
        self._ttl_s = ttl_s
        self._sequence: int | None = None
        self._until = 0.0
        self._fit = fit
        self._keep = keep
        self._became_fit = asyncio.Event()
        self._overwritten = False
        """Somebody else wrote over what we held: whoever has our name there is not our former life."""
        self._callbacks: list[Callable[[bool], None]] = []
        self._told = False

    @property
    def held(self) -> bool:
        return asyncio.get_running_loop().time() < self._until

    @property
    def leads(self) -> bool:
        """What one replica shall do for all is ours to do."""
        return self.held

    def covers(self) -> Callable[[Key], bool]:
        """Whether a key is ours to write: one lease is for all of them."""
        held = self.held
        return lambda key: held

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """`callback(held)` runs in the event loop whenever it is taken or lost."""
        self._callbacks.append(callback)

    def became_fit(self) -> None:
        """Looks again now rather than at the next turn."""
        self._became_fit.set()

    async def run(self) -> None:
        """For ever; gives the lease back when cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                if self.held and not self._keep():
                    await self._give_back()
                else:
                    await self._step()
                self._tell()
                pause = RENEW_S * self._ttl_s / TTL_S if self._sequence is not None else POLL_S
                pause *= random.uniform(0.8, 1.0)
                if self.held:
                    pause = min(pause, max(0.0, self._until - loop.time()) + 0.001)
                await self._wait(pause)
                self._tell()
        finally:
            await self._give_back()

    async def _wait(self, pause: float) -> None:
        try:
            async with asyncio.timeout(pause):
                await self._became_fit.wait()
        except TimeoutError:
            return
        self._became_fit.clear()

    async def _step(self) -> None:
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._ttl_s / 2):
                if self._sequence is None:
                    self._sequence = await self._expected() if self.held or self._fit() else None
                    if self._sequence is None:
                        self._until = 0.0
                        return
                message = LeaseMessage(service=self._service, holder=self._holder, until=time.time() + self._ttl_s)
                self._sequence = await self._bus.swap(
                    LEASE, self._key, message, expected=self._sequence, ttl_s=self._ttl_s
                )
            self._until = started + self._ttl_s * SAFETY
        except Conflict:
            self._overwritten = True
            self._sequence = None
            self._until = 0.0
        except (BusError, TimeoutError):
            self._sequence = None  # the outcome is unknown: look, and take it again if it is ours

    async def _expected(self) -> int | None:
        """The sequence to swap on, or None: somebody else holds it."""
        (found,) = await self._bus.get_many([(LEASE, self._key)])
        # unreadable: what no holder can have written is as good as absent
        holder = None if isinstance(found, Unreadable) or found.value is None else found.value.holder
        doubled = holder == self._holder and self._overwritten
        if holder != self._holder:
            self._overwritten = False
        self._bus.health.note(
            f"lease {self._service}",
            f"another replica of {self._service} is called {self._holder} too, and leads: give each a name of its own "
            "(TORTIE_INSTANCE)"
            if doubled
            else None,
        )
        return found.sequence if holder in (None, self._holder) and not doubled else None

    def _tell(self) -> None:
        held = self.held
        if held != self._told:
            self._told = held
            for callback in self._callbacks:
                callback(held)

    async def _give_back(self) -> None:
        sequence, self._sequence = self._sequence, None
        was_held, self._until = self.held, 0.0
        self._tell()
        if sequence is not None and was_held:
            with suppress(BusError, TimeoutError):  # it expires by itself
                async with asyncio.timeout(0.5):
                    await self._bus.swap(LEASE, self._key, None, expected=sequence)
