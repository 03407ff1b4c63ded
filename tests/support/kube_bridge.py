"""A bridge in a task of its own, and what it puts on the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from bus_schemas.resources import Resource
from bus_schemas.subjects import DESIRED, EVENT
from chassis.bus import Bus
from chassis.feed import Interest
from chassis.health import Health
from chassis.heartbeat import Heartbeat
from chassis.runner import Context
from services.kube_bridge.client import Client
from services.kube_bridge.service import Bridge
from services.kube_bridge.settings import Settings
from services.kube_bridge.sources import KINDS_MIRRORED
from tests.support import waiting
from tests.support.kube_cluster import KubeCluster
from tests.support.nats import Nats

PATIENCE_S = 60.0
"""A machine that is busy with other things loses leases and finds them again."""

T = TypeVar("T")


async def eventually(condition: Callable[[], T], *, within_s: float = PATIENCE_S) -> T:
    return await waiting.eventually(condition, within_s=within_s)


_TOKENS = {family.name: kind.TOKEN for kind, family in DESIRED.items()}


class Replica:
    def __init__(self, nats: Nats, kube: KubeCluster, tasks: asyncio.TaskGroup, instance: str, **more: Any) -> None:
        told = {"kube_lease_name": kube.unique, "kube_lease_s": 5.0, "kube_absent_s": 0.5, "kube_retry_max_s": 0.5}
        told |= {"kube_status_per_s": 200.0, "kube_node_grace_s": 0.5}
        self.settings = Settings(
            nats_url=nats.url, instance=instance, health_listen="", kubeconfig=str(kube.kubeconfig), **{**told, **more}
        )
        self.health = Health()
        self.bridge: Bridge | None = None
        self._stopping = asyncio.Event()
        self._task = tasks.create_task(self._live())

    async def _live(self) -> None:
        async with (
            Bus.connect(self.settings, name="kube_bridge", health=self.health) as bus,
            Client.open(self.settings.kubeconfig) as client,
        ):
            context = Context(
                name="kube_bridge",
                settings=self.settings,
                bus=bus,
                health=self.health,
                log=structlog.get_logger(),
                stopping=self._stopping,
                heartbeat=Heartbeat(bus, "kube_bridge", self.settings.instance, self.health, started=0.0),
            )
            self.bridge = Bridge(context, client)
            await self.bridge.run()

    @property
    def leads(self) -> bool:
        return self.bridge is not None and self.bridge.lease.held

    @property
    def idle(self) -> bool:
        """Everything that it knows is on the bus."""
        return self.leads and self.bridge is not None and self.bridge.publication.pending == 0

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.wait([self._task])

    async def kill(self) -> None:
        """At once, wherever it stands; it gives nothing back."""
        assert self.bridge is not None
        self.bridge.election._lease = None
        self.bridge.lease._sequence = None
        self._task.cancel()
        await asyncio.wait([self._task])


class Mirrored:
    """What is desired, as it stands on the bus."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Resource] = {}
        """By (kind token, namespace, name)."""
        self.writes = 0
        self.removed: list[tuple[str, str, str]] = []
        self.events: list[Any] = []

    def get(self, kind: type[Resource], namespace: str, name: str) -> Any:
        return self.objects.get((kind.TOKEN, namespace, name))

    def of(self, kind: type[Resource], namespace: str | None = None) -> set[str]:
        return {key[2] for key in self.objects if key[0] == kind.TOKEN and namespace in (None, key[1])}

    async def follow(self, bus: Bus) -> None:
        interests = [*(Interest(DESIRED[kind]) for kind in KINDS_MIRRORED), Interest(EVENT)]
        async with bus.follow(*interests) as feed:
            while True:
                for fact in (await feed.next()).facts:
                    if fact.family == EVENT:
                        self.events.append(fact.value)
                        continue
                    key = (_TOKENS[fact.family.name], fact.key[0], fact.key[1])
                    self.writes += 1
                    if fact.value is None:
                        self.objects.pop(key, None)
                        self.removed.append(key)
                    else:
                        self.objects[key] = fact.value


@asynccontextmanager
async def mirrored(nats: Nats) -> AsyncIterator[tuple[Mirrored, Bus, asyncio.TaskGroup]]:
    async with nats.bus("test") as bus, asyncio.TaskGroup() as tasks:
        await bus.connected()
        seen = Mirrored()
        following = tasks.create_task(seen.follow(bus))
        yield seen, bus, tasks
        following.cancel()
