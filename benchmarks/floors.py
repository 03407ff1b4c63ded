"""What the parts cost by themselves, taken in the same rounds as the whole: one hop over the bus, one call of `nft`."""

from __future__ import annotations

import subprocess
import time
from itertools import count

from bus_schemas.status import Status
from bus_schemas.subjects import STATUS
from chassis.bus import Bus
from chassis.feed import Interest
from tests.support.netns import Namespace


class BusFloor:
    """One message written by one connection and heard by another."""

    def __init__(self, writer: Bus, reader: Bus) -> None:
        self._writer = writer
        self._feed = reader.follow(Interest(STATUS, ("bench",)))
        self._numbers = count(1)
        self.times: list[float] = []

    async def take(self) -> None:
        number = next(self._numbers)
        message = Status(component="bench", instance="floor", started=number, ready=True)
        began = time.perf_counter()
        await self._writer.put(STATUS, ("bench", "floor"), message, ttl_s=5)
        while True:
            batch = await self._feed.next()
            if any(fact.value is not None and fact.value.started == number for fact in batch.facts):
                break
        self.times.append((time.perf_counter() - began) * 1e3)

    async def __aenter__(self) -> BusFloor:
        await self._writer.connected()
        await self._feed.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._feed.__aexit__(*exc_info)


class NftFloor:
    """The nft program adds an element to a set."""

    def __init__(self, namespace: Namespace, set_: str) -> None:
        """`set_` is a set of IPv4 addresses there: family, table and name."""
        self._namespace = namespace
        self._set = set_.split()
        self._numbers = count(1)
        self.times: list[float] = []

    @classmethod
    def alone(cls, namespace: Namespace) -> NftFloor:
        """With a set that is all there is."""
        namespace.run("nft", "add table inet t; add set inet t s { type ipv4_addr; }")
        return cls(namespace, "inet t s")

    def take(self) -> None:
        number = next(self._numbers)
        with self._namespace.inside():
            began = time.perf_counter()
            address = f"10.9.{number >> 8}.{number & 255}"
            subprocess.run(["nft", "add", "element", *self._set, "{", address, "}"], check=True)
            self.times.append((time.perf_counter() - began) * 1e3)
