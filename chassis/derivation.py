"""How a service lives that derives keys from what others say: facts into its core, what the core wants onto the bus.

    feed ──▶ hear(batch) ──▶ pacer ──▶ derive() ──▶ Publication ──▶ bus ◀── Warmth
                                                        ▲ while the lease is held ▲

Every replica computes, one writes, or each its shards (`chassis.shares`). Nothing is derived before the feed is in
sync: a core that has seen half of the world would take away the other half's keys.

A replica takes the lease only when what it derived rests on everything that the bus held when its present connection
began. One that was cut off, and came back when its successor was gone too, would otherwise write what it believed
before over what was written since: a door that had been closed would stand open until it has caught up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from bus_schemas.codec import Message
from bus_schemas.subjects import Family
from chassis.feed import Batch, Feed, Interest
from chassis.jetstream import MAX_BATCH
from chassis.lease import Lease
from chassis.pacing import Pacer
from chassis.packer import Packer
from chassis.publication import Publication
from chassis.runner import Context
from chassis.shares import Shares
from chassis.warmth import Warmth


class Derivation:
    """One replica of a service. `reads` are followed whole; `writes` in the order of dependency (`Publication`)."""

    def __init__(
        self,
        context: Context[Any],
        service: str,
        *,
        reads: Sequence[Family[Any]],
        writes: Sequence[Family[Any]],
        pacer: Pacer,
        shards: int | None = None,
        names: Callable[[Message], Iterable[str]] = lambda message: (),
        warm_bytes: int = 0,
        packed: Sequence[Family[Any]] = (),
    ) -> None:
        """`shards`: into how many the keys are parted among the replicas; None: one replica writes all. `names`: see
        `Publication`. `warm_bytes`: how much of the streams that it reads and writes the server shall keep in memory,
        see `Warmth`. `packed`: families of which packs are kept for their many readers, see `Packer`."""
        self._reads = [Interest(family) for family in reads]
        self._bus = context.bus
        self._stopping = context.stopping
        self._pacer = pacer
        self._feed: Feed | None = None
        self._rests_on = 0
        """The session of the feed that what is wanted rests on, see `Feed.current`."""
        instance = context.settings.instance
        self.lease: Lease | Shares = (
            Lease(context.bus, service, instance, fit=self._fit)
            if shards is None
            else Shares(context.bus, service, instance, shards=shards, fit=self._fit)
        )
        interests = [Interest(family) for family in writes]
        self.publication = Publication(context.bus, interests, lease=self.lease, names=names)
        streams = list(dict.fromkeys(family.stream for family in (*writes, *reads)))
        self._warmth = Warmth(context.bus, streams, limit_bytes=warm_bytes, wanted=self._leads_at_ease)
        self._packer = Packer(
            context.bus, packed, wanted=lambda: self._leads_at_ease() and not self.publication.pending
        )

    async def run(
        self,
        hear: Callable[[Batch], None],
        derive: Callable[[], Awaitable[bool | None]],
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        """Until the service is told to stop. `hear` takes a batch of facts in; `derive` tells the publication what is
        wanted now, paced, and never before the feed is in sync; when it says False it cannot say, and the replica is
        not fit to lead; `settled` is told, perhaps many times, that all of it
        is on the bus."""

        async def flush() -> None:
            rests_on = self._feed.current if self._feed is not None else 0
            derived = await derive()
            if derived is not False and rests_on != self._rests_on:
                self._rests_on = rests_on
                self.lease.became_fit()
            await self.publication.write()

        self.publication.on_equal = settled
        async with self.publication, asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self.lease.run(), name="lease"),
                tasks.create_task(self.publication.run(), name="publication"),
                tasks.create_task(self._read(hear), name="feed"),
                tasks.create_task(self._pacer.run(flush), name="flush"),
                tasks.create_task(self._warmth.run(), name="warmth"),
                tasks.create_task(self._packer.run(), name="packs"),
            ]
            await self._stopping.wait()
            for task in running:
                task.cancel()

    async def _read(self, hear: Callable[[Batch], None]) -> None:
        async with self._bus.follow(*self._reads) as feed:
            self._feed = feed
            feed.on_read = self._read_again
            while True:
                batch = await feed.next()
                hear(batch)
                if batch.in_sync:
                    self._pacer.mark()

    def _read_again(self) -> None:
        """There may be nothing new; but what is wanted rests on the present session once it is derived again."""
        if self._feed is not None and self._feed.in_sync:
            self._pacer.mark()

    def _leads_at_ease(self) -> bool:
        """And does not just read or write everything for the first time."""
        in_sync = self._feed is not None and self._feed.in_sync
        return self.lease.leads and in_sync and self.publication.pending <= MAX_BATCH

    def _fit(self) -> bool:
        return self._feed is not None and 0 < self._rests_on == self._feed.current
