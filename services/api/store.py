"""The mirror kept alive, and the one way in which the api writes.

    feed ---> Core.apply ---> watches are woken
    commit:   Core.decide ---> one atomic batch ---> wait until the mirror shows it ---> the decision
                   ^---- Conflict: read those keys again, decide anew

A commit returns when the mirror has it, so whoever writes and then reads through this replica sees its own write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from random import uniform
from typing import Any
from uuid import uuid4

from bus_schemas.manifests import Accepted
from bus_schemas.resources import Resource
from bus_schemas.subjects import DESIRED, Fact, Family, Key
from chassis.bus import Bus, Interest
from chassis.bus import Write as BusWrite
from chassis.errors import BusError, Conflict, Unavailable
from chassis.health import Health
from services.api.core import READS, Core
from services.api.kinds import Kind
from services.api.requests import Apply, Decision, Planned, Refused, Request, Stamp, Write
from services.api.standing import STANDING
from services.api.watch import Watch

ATTEMPTS = 8
"""How often a commit is decided anew when other writers are faster."""
BACKOFF_S = 0.01
STANDING_RETRY_S = 1.0
STANDING_NOTE = "standing objects"
MIRROR_TIMEOUT_S = 2.0
"""How long a commit waits to see itself in the mirror; what it wrote stands even if that takes longer."""


class Watcher:
    """A Watch and the event that wakes whoever serves it."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.woken = asyncio.Event()
        self.woken.set()


class Store:
    def __init__(self, bus: Bus, health: Health) -> None:
        self.core = Core()
        self._bus = bus
        self._health = health
        self._in_sync = False
        self._moved = asyncio.Event()
        self._writing = asyncio.Lock()
        self._watchers: set[Watcher] = set()
        self._lost: dict[tuple[Family[Any], Key], Fact] = {}
        self._lost_some = asyncio.Event()
        health.fail("mirror", "the desired state has not been read yet")

    async def mirror(self) -> None:
        """For ever: keeps the core equal to the bus."""
        async with self._bus.follow(*map(Interest, READS)) as feed:
            while True:
                batch = await feed.next()
                for fact in batch.facts:
                    self.core.apply(fact)
                    for kind, key in self.core.shown(fact):
                        self._tell(kind, key)
                for fact in batch.lost:
                    self._lose(fact)
                for unreadable in batch.unreadable:
                    self.core.cannot_read(unreadable.subject, str(unreadable))
                if batch.in_sync and not self._in_sync:
                    self._in_sync = True
                    self._health.ok("mirror")
                moved, self._moved = self._moved, asyncio.Event()
                moved.set()

    def _lose(self, fact: Fact) -> None:
        """A wiped stream holds the key no longer. What was desired stays (`restore`); what others said of their own
        doing stays until they say it again."""
        if self.core.kind_of(fact.family) is not None:
            self._lost[fact.family, fact.key] = fact
            self._lost_some.set()

    def _tell(self, kind: Kind, key: tuple[str, str]) -> None:
        stored = self.core.resource(kind, key)
        beside = self.core.said_of(stored.resource) if stored is not None and self._watchers else None
        for watcher in self._watchers:
            if watcher.watch.change(kind, key, stored, beside):
                watcher.woken.set()

    def readable(self) -> str:
        """Why an answer from the mirror may be out of date; empty: it is not. Raises Unavailable before the first
        snapshot, when there is nothing to answer from."""
        away = self._health.causes.get("bus", "")
        if not self._in_sync:
            raise Unavailable(away or "the desired state has not been read yet: ask again")
        return away

    @property
    def current(self) -> bool:
        """The mirror is complete and the bus is there."""
        return self._in_sync and "bus" not in self._health.causes

    @contextmanager
    def watching(self, kinds: Sequence[Kind], wanted: Callable[[Kind, Resource], bool]) -> Iterator[Watcher]:
        """A watcher of the kinds that begins with what there is now."""
        first = [
            (stored, self.core.said_of(stored.resource))
            for kind in kinds
            for stored in self.core.resources(kind)
            if wanted(kind, stored.resource)
        ]
        watcher = Watcher(Watch(lambda kind, resource: kind in kinds and wanted(kind, resource), first))
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def wake(self) -> None:
        """Wakes every watcher, so that it sees that the service stops."""
        for watcher in self._watchers:
            watcher.woken.set()

    async def commit(self, request: Request, *, dry_run: bool = False) -> Decision:
        """Decides and writes, all or nothing. Raises Unavailable, Rejected, and Conflict when others are always
        faster."""
        self.readable()
        async with self._writing:
            fresher: dict[Key, Fact] = {}
            for attempt in range(1, ATTEMPTS + 1):
                decision = self.core.decide(request, _stamp(), fresher)
                if dry_run or not isinstance(decision, Planned) or not decision.writes:
                    return decision
                try:
                    sequences = await self._bus.batch([_bus_write(write) for write in decision.writes])
                except Conflict as conflict:
                    if attempt == ATTEMPTS:
                        raise
                    await asyncio.sleep(uniform(0, BACKOFF_S * attempt))
                    fresher |= await self._read(decision.writes, conflict)
                else:
                    await self._heard(decision.writes, sequences)
                    return decision
        raise AssertionError("the last attempt returns or raises")

    async def _read(self, writes: Sequence[Write], conflict: Conflict) -> dict[Key, Fact]:
        """What the keys are now. A value that cannot be read is no object, but it has a sequence to write upon."""
        keys: list[tuple[Family[Any], Key]] = [(DESIRED[write.kind], write.key) for write in writes]
        fresher: dict[Key, Fact] = {}
        for write, (family, key), found in zip(writes, keys, await self._bus.get_many(keys), strict=True):
            if isinstance(found, Fact):
                fresher[write.kind.TOKEN, *write.key] = found
            elif conflict.subject == family.subject(*key) and conflict.actual:
                fresher[write.kind.TOKEN, *write.key] = Fact(family, key, None, conflict.actual)
        return fresher

    async def _heard(self, writes: Sequence[Write], sequences: Sequence[int]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(MIRROR_TIMEOUT_S):
                for write, sequence in zip(writes, sequences, strict=True):
                    while not self._shows(write, sequence):
                        await self._moved.wait()

    def _shows(self, write: Write, sequence: int) -> bool:
        stored = self.core.resource(write.kind, write.key)
        return write.resource is None if stored is None else stored.sequence >= sequence

    # --- what every cluster has

    async def stand(self) -> None:
        """Writes what must exist in every cluster and does not, once the mirror knows."""
        while not self._in_sync:
            await self._moved.wait()
        while missing := [r for r in STANDING if self.core.resource(type(r), r.key) is None]:
            try:
                decision = await self.commit(Apply([Accepted(resource, (), at) for at, resource in enumerate(missing)]))
            except BusError as error:
                hindrance = str(error)
            else:
                hindrance = decision.error if isinstance(decision, Refused) else ""
            if hindrance:
                self._health.note(STANDING_NOTE, f"what every cluster has is not written yet: {hindrance}")
                await asyncio.sleep(STANDING_RETRY_S)
        self._health.note(STANDING_NOTE, None)

    # --- a wiped bus

    async def restore(self) -> None:
        """For ever: writes again what a wiped or re-created stream lost, as far as nobody else has.

        Silence deletes nothing: what people asked for stands until somebody deletes it, and the mirror may be the only
        place that still knows it."""
        while True:
            await self._lost_some.wait()
            self._lost_some.clear()
            await self._bus.connected()
            for fact in list(self._lost.values()):
                kind = self.core.kind_of(fact.family)
                stored = self.core.resource(kind, (fact.key[0], fact.key[1])) if kind is not None else None
                try:
                    if stored is not None:
                        await self._bus.swap(fact.family, fact.key, stored.resource, expected=0)
                except Conflict:
                    self._lost.pop((fact.family, fact.key), None)  # somebody has written it: that counts
                except Unavailable:
                    self._lost_some.set()
                    break
                else:
                    self._lost.pop((fact.family, fact.key), None)


def _bus_write(write: Write) -> BusWrite:
    return BusWrite(DESIRED[write.kind], write.key, write.resource, expected=write.expected)


def _stamp() -> Stamp:
    now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    return Stamp(now, iter(lambda: str(uuid4()), None))
