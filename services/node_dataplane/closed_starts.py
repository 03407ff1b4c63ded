"""Pods that were started before their policy was in place: while the bus was away, or because their network
configuration says how long to wait at most (`policy_setup_timeout_seconds`).

Such a pod is closed: its link drops by default. What is left to do when the bus returns

    unread?  read its resource and its namespace: they ask for nothing but what it has -> announce it
                                                  for something else -> it stays closed, named, until it is deleted
    then     wait for its policy -> open

`/readyz` names every one of them until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from bus_schemas.codec import Malformed
from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import PodKey
from bus_schemas.resources import Namespace
from chassis.errors import BusError
from chassis.health import Health
from services.node_dataplane.addressing import Resources, current
from services.node_dataplane.endpoint_store import EndpointStore, Plugin
from services.node_dataplane.errors import StoreError
from services.node_dataplane.wishes import asked_beside

RETRY_S = 0.5
CAUSE = "pods that started closed"
NAMED = 10


class Policy(Protocol):
    async def in_place(self, endpoint: Endpoint) -> None: ...


class Announcements(Protocol):
    def announce(self, endpoint: Endpoint) -> None: ...


class ClosedStarts:
    def __init__(
        self,
        store: EndpointStore,
        resources: Resources,
        policy: Policy,
        announcements: Announcements,
        health: Health,
        changed: Callable[[], None],
        report: Callable[[str, str, str], None],
    ) -> None:
        """`changed` is called when something else is held; `report(what, object, message)` emits an event."""
        self._store = store
        self._resources = resources
        self._policy = policy
        self._announcements = announcements
        self._health = health
        self._changed = changed
        self._report = report
        self._waiting: dict[PodKey, str] = {}
        """And what for."""
        self._fresh: asyncio.Queue[Plugin] = asyncio.Queue()
        self._tasks: dict[PodKey, asyncio.Task[None]] = {}

    def adopt(self) -> None:
        """What an earlier life left."""
        for plugin in self._store.all():
            if plugin.unread:
                self._wait(plugin, "its resource was not read yet")

    def add(self, plugin: Plugin, why: str) -> None:
        """It was started, closed."""
        if plugin.pod in self._waiting:
            return  # The runtime asked twice.
        self._report("started_closed", str(plugin.pod), f"The pod was started closed: {why}.")
        self._wait(plugin, why)

    def _wait(self, plugin: Plugin, why: str) -> None:
        self._waiting[plugin.pod] = why
        self._fresh.put_nowait(plugin)
        self._note()

    def gone(self, pod: PodKey) -> None:
        if self._waiting.pop(pod, None) is not None:
            self._note()
        if (task := self._tasks.pop(pod, None)) is not None:
            task.cancel()

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                plugin = await self._fresh.get()
                now = self._store.get(plugin.pod)
                if now is not None and now.endpoint.container == plugin.endpoint.container:
                    self._tasks[plugin.pod] = tasks.create_task(self._open(plugin))

    async def _open(self, plugin: Plugin) -> None:
        if plugin.unread:
            beside = await self._read(plugin)
            if beside:
                told = f"{', '.join(beside)} asks for something else than it was given: delete the pod"
                self._waiting[plugin.pod] = told
                self._note()
                self._report("started_otherwise", str(plugin.pod), f"The pod started in an outage, and {told}.")
                return
            plugin = await self._announce(plugin)
        await self._policy.in_place(plugin.endpoint)
        self._waiting.pop(plugin.pod, None)
        self._note()
        self._report("opened", str(plugin.pod), "The policy of the pod, which was started closed, is in place.")

    async def _read(self, plugin: Plugin) -> tuple[str, ...]:
        """The annotations that ask for something that the pod has not got."""
        while True:
            try:
                resource = await self._resources.await_pod(plugin.pod, current(plugin.endpoint.uid))
                namespace = await self._resources.read(Namespace, "", plugin.pod.namespace)
            except (BusError, Malformed):
                await asyncio.sleep(RETRY_S)
                continue
            of_namespace = namespace.metadata.annotations if namespace is not None else {}
            return asked_beside(
                resource.metadata.annotations, of_namespace, plugin.endpoint.addresses, plugin.asked_mac
            )

    async def _announce(self, plugin: Plugin) -> Plugin:
        now = self._store.get(plugin.pod) or plugin
        plugin = msgspec.structs.replace(now, unread=False)
        self._store.put(plugin)
        self._announcements.announce(plugin.endpoint)
        self._changed()
        try:
            await self._store.save()
        except StoreError as error:
            self._health.note("endpoint store", str(error))  # Read again after a restart: no harm.
        return plugin

    def _note(self) -> None:
        text = "; ".join(f"{pod}: {why}" for pod, why in sorted(self._waiting.items())[:NAMED])
        more = len(self._waiting) - NAMED
        self._health.note(CAUSE, f"{text}{f' and {more} more' if more > 0 else ''}" if text else None)
