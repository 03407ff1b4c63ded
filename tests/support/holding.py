"""Agents without a kernel: what an agent says about addresses, by the agent's own code, on a real bus.

A `FakeAgent` has the store, announcements, debts and word (`holding`) of the real one; its pods are entries of that
store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName, PodKey
from bus_schemas.ipam import Assigned, AssignReply, AssignRequest, Held
from bus_schemas.subjects import ASSIGN, ENDPOINT
from chassis.bus import Bus
from chassis.errors import BusError
from chassis.feed import Interest
from chassis.health import Health
from chassis.publication import Publication
from chassis.settings import ServiceSettings
from services.node_dataplane.announcements import Announcements
from services.node_dataplane.debts import Debts
from services.node_dataplane.endpoint_store import EndpointStore, Plugin
from services.node_dataplane.holding import Asking, HoldingReport
from services.node_dataplane.locks import KeyedLocks

REQUEST_S = 2.0


class FakeAgent:
    """Made by `agent`; what it is told to do it does as the real one's CNI verbs do, without a link."""

    def __init__(self, node: NodeName, bus: Bus, directory: Path) -> None:
        self.node = node
        self.health = Health()
        self.store = EndpointStore(directory)
        self.asking = Asking(bus)
        self.publication = Publication(bus, [Interest(ENDPOINT, (node,))], independent=True)
        self.announcements = Announcements(node, self.publication)
        self.beside: list[Held] = []
        """What is held beside pods."""
        self.holding = HoldingReport(node, bus, self.announcements, self.asking, (self._beside,))
        self.debts = Debts(node, self.store, self.announcements, bus, self.health)
        self.handles = KeyedLocks()
        self.killed = False
        """A process that was killed notes nothing more."""
        for plugin in self.store.all():
            self.announcements.announce(plugin.endpoint)

    def _beside(self) -> Iterable[Held]:
        return self.beside

    @property
    def addresses(self) -> dict[str, PodKey]:
        return {address: plugin.pod for plugin in self.store.all() for address in plugin.endpoint.addresses}

    async def ask(self, request: AssignRequest) -> AssignReply:
        """One attempt. Raises BusError."""
        reply: AssignReply = await self.asking.request(ASSIGN, request, timeout_s=REQUEST_S)
        return reply

    async def add(self, name: str, *, container: str = "", families: tuple[int, ...] = ()) -> AssignReply | None:
        """One attempt at ADD. None: nobody answered."""
        pod = PodKey("default", name)
        handle = HandleId(f"net.{container or name}")
        request = AssignRequest(node=self.node, handle=handle, namespace=pod.namespace, pod=pod.name, families=families)
        async with self.handles.of(handle):
            try:
                reply = await self.ask(request)
            except BusError:
                reply = None
            if self.killed:
                return None
            if not isinstance(reply, Assigned):
                self.store.owe(handle)  # it may have been given all the same
                self.debts.mark()
                await self.store.save()
                return reply
            endpoint = Endpoint(
                node=self.node,
                namespace=pod.namespace,
                name=pod.name,
                container=container or name,
                handle=handle,
                link=f"tor{name}"[:14],
                addresses=reply.addresses,
            )
            self.store.put(Plugin(endpoint=endpoint, handle=handle, interface="eth0", netns="", mac="", mtu=1500))
            self.announcements.announce(endpoint)
        await self.store.save()
        return reply

    async def delete(self, name: str) -> None:
        plugin = self.store.get(PodKey("default", name))
        if plugin is not None and not self.killed:
            self.announcements.withdraw(plugin.pod)
            self.store.remove(plugin.pod)
            self.store.owe(plugin.handle)
            self.debts.mark()
            await self.store.save()

    async def forget(self, name: str) -> None:
        """The pod is gone and nobody gives its address back: a leak."""
        if not self.killed:
            pod = PodKey("default", name)
            self.announcements.withdraw(pod)
            self.store.remove(pod)
            await self.store.save()

    async def run(self) -> None:
        self.announcements.complete()
        async with self.publication, asyncio.TaskGroup() as tasks:
            tasks.create_task(self.publication.run())
            tasks.create_task(self.announcements.run())
            tasks.create_task(self.holding.run())
            tasks.create_task(self.debts.run(self.handles))


@asynccontextmanager
async def agent(url: str, node: str, directory: Path) -> AsyncIterator[FakeAgent]:
    """One that runs while the context is open; leaving is a kill: nothing is said."""
    async with AsyncExitStack() as stack:
        settings = ServiceSettings(nats_url=url, instance=node, health_listen="")
        bus = await stack.enter_async_context(Bus.connect(settings, name="node_dataplane", health=Health()))
        made = FakeAgent(NodeName(node), bus, directory)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(made.run())
            try:
                yield made
            finally:
                made.killed = True
                running.cancel()
