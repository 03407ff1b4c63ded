"""What a reader of a feed believes: a task that reads the feed and keeps every key's last value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bus_schemas.routes import Route
from bus_schemas.subjects import Fact, Key
from chassis.bus import Bus
from chassis.feed import Batch, Feed, Interest


class Mirror:
    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.values: dict[Key, Any] = {}
        self.sequences: dict[Key, int] = {}
        self.batches: list[Batch] = []
        self.facts: list[Fact] = []
        self.lost: set[Key] = set()
        self.in_sync = False

    @property
    def nodes(self) -> dict[str, str]:
        """Of routes: cidr -> node."""
        return {key[0]: value.node for key, value in self.values.items()}

    def told(self, *key: str) -> list[Any]:
        """Every value that this key was told with, in order."""
        return [fact.value for fact in self.facts if fact.key == key]

    async def read(self) -> None:
        while True:
            batch = await self.feed.next()
            self.batches.append(batch)
            self.facts.extend(batch.facts)
            for fact in batch.facts:
                self.sequences[fact.key] = fact.sequence
                if fact.value is None:
                    self.values.pop(fact.key, None)
                else:
                    self.values[fact.key] = fact.value
            self.lost |= {fact.key for fact in batch.lost}
            self.in_sync = batch.in_sync


@asynccontextmanager
async def mirror(bus: Bus, *interests: Interest, packed: bool = False) -> AsyncIterator[Mirror]:
    async with bus.follow(*interests, packed=packed) as feed, asyncio.TaskGroup() as tasks:
        reader = Mirror(feed)
        task = tasks.create_task(reader.read())
        try:
            yield reader
        finally:
            task.cancel()


def route(node: str, cidr: str = "10.244.0.0/26") -> Route:
    """A small message: its node tells one version of it from another."""
    return Route(cidr=cidr, node=node)  # type: ignore[arg-type]
