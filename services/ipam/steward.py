"""The duty that minds the records: the keeper of their life and the collector, on what the agents say.

    feed ENDPOINT, HOLDING --> Words --+--> Keeper: new or lost? read back
    core (nodes, epoch) ---------------+--> Collector: what is forgotten?
                                       +--> Doubles: what do two nodes list?

Only the replica with the lease follows the endpoints: the others answer requests without knowing them.
"""

from __future__ import annotations

import asyncio
import time

from bus_schemas.events import Event
from bus_schemas.subjects import ENDPOINT, EPOCH, HOLDING
from chassis.bus import Bus
from chassis.feed import Batch, Feed, Interest
from chassis.health import Health
from chassis.pacing import Pacer
from services.ipam.collector import Collector
from services.ipam.desired import NODE
from services.ipam.doubles import Doubles
from services.ipam.keeper import Allocator, Keeper
from services.ipam.settings import Settings
from services.ipam.words import Words

TOGETHER_S = 0.05
RETRY_S = 0.5


class Steward:
    def __init__(self, bus: Bus, allocator: Allocator, health: Health, settings: Settings) -> None:
        self._bus = bus
        self._allocator = allocator
        self._keeper = Keeper(bus, allocator, health, settings)
        self._collector = Collector(bus, allocator, settings)
        self._doubles = Doubles()
        self._health = health
        self._pacer = Pacer(TOGETHER_S, 1.0, RETRY_S)
        self._words = Words()
        self._in_sync = False
        self._open = asyncio.Event()

    def heard(self, batch: Batch) -> None:
        """What the core has just been told."""
        if self._allocator.core.life.closed:
            self._open.clear()
        else:
            self._open.set()
        nodes = [fact for fact in batch.facts if fact.family is NODE]
        if nodes or batch.lost or not self._open.is_set() or any(fact.family is EPOCH for fact in batch.facts):
            self._pacer.mark()
        if any(fact.value is None for fact in nodes):
            self._collector.look_soon()

    async def opened(self) -> None:
        """Returns when addresses may be given."""
        await self._open.wait()

    async def run(self) -> None:
        """For ever."""
        self._words, self._in_sync, self._doubles = Words(), False, Doubles()
        async with self._bus.follow(Interest(ENDPOINT), Interest(HOLDING)) as feed, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(feed), name="ipam words")
            tasks.create_task(self._collector.run(self._words, lambda: self._in_sync), name="ipam collector")
            self._pacer.mark()
            await self._pacer.run(self._tend)

    async def _follow(self, feed: Feed) -> None:
        while True:
            batch = await feed.next()
            for fact in batch.facts:
                self._words.apply(fact)
            for fact in batch.lost:
                if fact.family is HOLDING:
                    self._words.apply(fact)  # a word that the bus lost is said again when it is true
            self._in_sync = batch.in_sync
            shared = self._words.shared or self._doubles.watched
            if shared or not self._open.is_set() or any(fact.family is HOLDING for fact in batch.facts):
                self._pacer.mark()

    async def _tend(self) -> None:
        if not self._in_sync:
            return
        for again in (self._tell_doubles(), await self._keeper.tend(self._words)):
            if again is not None:
                asyncio.get_running_loop().call_later(again, self._pacer.mark)

    def _tell_doubles(self) -> float | None:
        """In how many seconds to look again; None: when something was heard."""
        now = time.time()
        news, again = self._doubles.look(self._words, self._allocator.core.ledger.handles, now)
        for what, address, message in news:
            self._bus.emit(Event(time=now, domain="ipam", what=what, object=address, message=message))
        self._health.note("addresses of two nodes", "; ".join(self._doubles.told) or None)
        return again
