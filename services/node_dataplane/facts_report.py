"""Tells what the node found out about itself.

    addresses --> address.<node>, which others reach the node by; it stays while the agent is silent
    NodeFacts --> facts.<node> with a time to live, and a file in the state directory, for people and for the next life

From the file an agent that starts knows which address was in force: it stays, as if the agent had never ended.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_interface
from pathlib import Path

import msgspec

from bus_schemas.ids import NodeName
from bus_schemas.node_addresses import NodeAddresses
from bus_schemas.node_facts import FACTS_FILE, FACTS_INTERVAL_S, FACTS_TTL_S, NodeFacts
from bus_schemas.subjects import NODE_ADDRESSES, NODE_FACTS
from chassis.bus import Bus
from chassis.errors import BusError
from chassis.feed import Interest
from chassis.health import Health
from chassis.pacing import Pacer
from chassis.publication import Publication
from services.node_dataplane.own_address import OwnAddress
from services.node_dataplane.uplink import Uplink

RETRY_S = 0.5
NOTES = "node facts"
"""In health."""
Report = Callable[[str, str, str], None]


class FactsReport:
    def __init__(self, node: NodeName, bus: Bus, health: Health, directory: Path, report: Report) -> None:
        self._node = node
        self._bus = bus
        self._health = health
        self._path = directory / FACTS_FILE
        self._report = report
        self.publication = Publication(bus, [Interest(NODE_ADDRESSES, (node,))], independent=True)
        self._pacer = Pacer(0.0, 0.0, RETRY_S)
        self._addresses: NodeAddresses | None = None
        self._facts: NodeFacts | None = None
        self._changes: list[str] = []
        """Sentences of events yet to be told: with its address a node loses its connection to the bus, too."""
        self._news = asyncio.Event()

    def recall(self, kept: Mapping[int, OwnAddress]) -> None:
        """Give back to each family what the file says was in force. One that cannot be read is as none."""
        try:
            facts = msgspec.json.decode(self._path.read_bytes(), type=NodeFacts)
        except (OSError, msgspec.MsgspecError):
            return
        for fact in facts.addresses:
            try:
                network = ip_interface(fact.address)
            except ValueError:
                continue
            if fact.family in kept and network.version == fact.family and facts.node == self._node:
                kept[fact.family].remember(Uplink(fact.device, fact.mtu, network), fact.since, fact.method)

    def say(self, addresses: NodeAddresses, facts: NodeFacts) -> None:
        if self._addresses != addresses:
            self._tell_changes(self._addresses, addresses)
            first, self._addresses = self._addresses is None, addresses
            self.publication.want(NODE_ADDRESSES, (self._node,), addresses)
            if first:
                self.publication.complete()
            self._pacer.mark()
        before = self._facts
        if before is None or msgspec.structs.replace(before, time=0.0) != facts:
            self._facts = msgspec.structs.replace(facts, time=time.time())
            self._keep(self._facts)
            self._news.set()

    def _tell_changes(self, before: NodeAddresses | None, after: NodeAddresses) -> None:
        for family in (4, 6):
            was, now = (a.of(family) if a is not None else None for a in (before, after))
            if was is not None and now is not None and was.address != now.address:
                self._changes.append(f"The node's address is {now.address}, no longer {was.address}.")
                self._news.set()

    def _keep(self, facts: NodeFacts) -> None:
        beside = self._path.with_suffix(".new")
        try:
            beside.write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=1) + b"\n")
            os.replace(beside, self._path)
        except OSError as error:
            self._health.note(NOTES, f"{self._path} cannot be written: {error.strerror}")
        else:
            self._health.note(NOTES, None)

    async def run(self) -> None:
        """For ever. The publication runs by itself: what others change is mended."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.publication.run())
            tasks.create_task(self._pacer.run(self.publication.flush))
            tasks.create_task(self._tell())

    async def _tell(self) -> None:
        pause: float = FACTS_INTERVAL_S
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            pause = FACTS_INTERVAL_S
            if self._facts is None:
                continue
            try:
                await self._bus.put(NODE_FACTS, (self._node,), self._facts, ttl_s=FACTS_TTL_S)
            except BusError:
                pause = RETRY_S  # Health says why.
                continue
            changes, self._changes = self._changes, []
            for sentence in changes:
                self._report("address_changed", self._node, sentence)
