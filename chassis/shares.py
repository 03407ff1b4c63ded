"""Which part of the keys each replica of a service writes: leases over a fixed number of partitions.

    key ──crc32 of its leading token──▶ partition (one of PARTITIONS) ──▶ its lease ──▶ at most one replica
    shard s of n = the partitions p with p mod n = s; who holds the first of them goes for the others, too

The number of shards only says how the partitions are spread. Replicas that are told different numbers (while a setting
is changed one replica after the other) still never write the same key, and no key is nobody's: what a shard was is
known by no name on the bus, so there is nothing to move and nothing to clean up.

Every replica that could write says so by a lease of its own (`<service>-at-<instance>`). From those each one knows how
many there are, and so how many shards are its fair part; who has more gives the last ones back, and the others, who
hear it, take them at once. With one shard, one replica writes and the others stand by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from zlib import crc32

from bus_schemas.subjects import LEASE, Key
from chassis.bus import Bus
from chassis.feed import Interest
from chassis.lease import Lease

PARTITIONS = 8


def partition(key: Key) -> int:
    """By the leading token alone: the segments of a group stay together, and so do the attachments of a node."""
    return crc32(key[0].encode()) % PARTITIONS


def fair(shards: int, replicas: int) -> int:
    """How many shards one of the replicas may hold, so that all of them are held."""
    return -(-shards // max(1, replicas))


class Shares:
    """One replica's leases; `run` is the task that takes, keeps and gives back."""

    def __init__(
        self, bus: Bus, service: str, instance: str, *, shards: int = 1, fit: Callable[[], bool] = lambda: True
    ) -> None:
        """`fit` as for a `Lease`. `shards`: 1 to PARTITIONS."""
        assert 1 <= shards <= PARTITIONS
        self._bus = bus
        self._shards = shards
        self._fit = fit
        self._present_prefix = f"{service}-at-"
        self._present: set[str] = set()
        """The replicas that could write, by the names of their leases."""
        self._presence = Lease(bus, f"{self._present_prefix}{instance}", instance, fit=fit)
        self.leases: Sequence[Lease] = [
            Lease(bus, f"{service}-{p}", instance, fit=partial(self._may_take, p), keep=partial(self._may_keep, p))
            for p in range(PARTITIONS)
        ]
        """By partition."""

    @property
    def held(self) -> bool:
        """Whether there is anything that this replica writes."""
        return any(lease.held for lease in self.leases)

    @property
    def leads(self) -> bool:
        """What one replica shall do for all is ours to do."""
        return self.leases[0].held

    def covers(self) -> Callable[[Key], bool]:
        """Whether a key is ours to write, as of now."""
        held = [lease.held for lease in self.leases]
        if all(held):
            return lambda key: True
        return lambda key: held[partition(key)]

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """`callback(held)` whenever a partition is taken or lost; `held`: whether there is any."""
        for lease in self.leases:
            lease.on_change(lambda _held: callback(self.held))

    def became_fit(self) -> None:
        """Looks again now rather than at the next turn."""
        for lease in (self._presence, *self.leases):
            lease.became_fit()

    async def run(self) -> None:
        """For ever; gives everything back when cancelled."""
        for head in self.leases[: self._shards]:
            head.on_change(lambda _held: self._look_again())
        async with asyncio.TaskGroup() as tasks:
            for lease in (*self.leases, self._presence):
                tasks.create_task(lease.run())
            await self._follow()

    async def _follow(self) -> None:
        """Hears who is there, and what is given back."""
        async with self._bus.follow(Interest(LEASE)) as feed:
            while True:
                gone = False
                before = len(self._present)
                for fact in (await feed.next()).facts:
                    (name,) = fact.key
                    if fact.value is None:
                        gone = True
                        self._present.discard(name)
                    elif name.startswith(self._present_prefix):
                        self._present.add(name)
                if gone or len(self._present) != before:
                    self._look_again()

    def _look_again(self) -> None:
        for lease in self.leases:
            lease.became_fit()

    def _heads(self) -> list[int]:
        """The shards that we hold."""
        return [shard for shard in range(self._shards) if self.leases[shard].held]

    def _fair(self) -> int:
        return fair(self._shards, len(self._present))

    def _may_take(self, at: int) -> bool:
        shard = at % self._shards
        if at == shard:
            return self._fit() and len(self._heads()) < self._fair()
        return self.leases[shard].held

    def _may_keep(self, at: int) -> bool:
        heads = self._heads()
        return at % self._shards in heads[: self._fair()]
