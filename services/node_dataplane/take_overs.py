"""Tells the address service whose its warm addresses have become, whenever the bus is there.

A pod takes a warm address without asking; what is owed afterwards is that the address passes from the warm handle to
the pod's, in one write of the address service. Until that is confirmed the node lists the warm handle as held, and when
the pod goes before, both handles are given back. A refusal cannot be while the node lists the handle: it is told
loudly, and asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from bus_schemas.ids import NodeName, PodKey
from bus_schemas.ipam import Assigned, AssignRequest, Busy, Held, PoolExhausted, Refused
from bus_schemas.subjects import ASSIGN, Rpc
from chassis.errors import BusError
from chassis.health import Health
from services.node_dataplane.endpoint_store import EndpointStore, Plugin
from services.node_dataplane.errors import StoreError
from services.node_dataplane.locks import KeyedLocks

REQUEST_S = 5.0
RETRY_S, LONGEST_RETRY_S = 0.5, 10.0
TOGETHER_S = 0.05
"""Pods that come within this of each other are told of together, when they have started: it is one write of the address
service, and nobody waits for it."""
CAUSE = "addresses to take over"


class Bus(Protocol):
    async def request(self, rpc: Rpc, message: Any, *, timeout_s: float) -> Any: ...


class TakeOvers:
    def __init__(
        self,
        node: NodeName,
        store: EndpointStore,
        bus: Bus,
        health: Health,
        changed: Callable[[], None],
        report: Callable[[str, str, str], None],
    ) -> None:
        """`changed` is called when something else is held; `report(what, object, message)` emits an event."""
        self._node = node
        self._store = store
        self._bus = bus
        self._health = health
        self._changed = changed
        self._report = report
        self._told: set[PodKey] = set()
        self._wake = asyncio.Event()
        self._wake.set()

    def mark(self) -> None:
        """A pod has taken a warm address."""
        self._wake.set()

    def held(self) -> Iterable[Held]:
        """For `holding`: what the endpoints on the bus do not tell, or not under this handle."""
        for plugin in self._store.all():
            if plugin.takes_over:
                yield Held(handle=plugin.takes_over, addresses=plugin.endpoint.addresses, use="warm")
            elif (plugin.unread or plugin.awaits_floating) and not plugin.unassigned:
                yield Held(handle=plugin.handle, addresses=plugin.endpoint.addresses, use="workload")

    async def run(self, handles: KeyedLocks) -> None:
        """For ever. `handles` are held while one is asked for, so that none is given back meanwhile."""
        retry_s = RETRY_S
        while True:
            await self._wake.wait()
            await asyncio.sleep(TOGETHER_S)
            self._wake.clear()
            waiting = [plugin.pod for plugin in self._store.all() if plugin.takes_over]
            problems = await asyncio.gather(*(self._take_over(pod, handles) for pod in waiting))
            left = [f"{pod}: {problem}" for pod, problem in zip(waiting, problems, strict=True) if problem]
            self._health.note(CAUSE, "; ".join(left[:5]) or None)
            if left:
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)
                self._wake.set()
            else:
                retry_s = RETRY_S

    async def _take_over(self, pod: PodKey, handles: KeyedLocks) -> str:
        """What stands in the way, or empty."""
        plugin = self._store.get(pod)
        if plugin is None:
            return ""
        async with handles.of(plugin.handle):
            plugin = self._store.get(pod)
            if plugin is None or not plugin.takes_over:
                return ""  # It went meanwhile.
            if plugin.handle in self._store.owed:
                return f"what the handle {plugin.handle} held before is still to be given back"
            try:
                await self._store.save()  # Who takes over what he does not remember would give it to another pod, too.
            except StoreError as error:
                return str(error)
            request = AssignRequest(
                node=self._node,
                handle=plugin.handle,
                namespace=pod.namespace,
                pod=pod.name,
                takes_over=plugin.takes_over,
                addresses=plugin.endpoint.addresses,
            )
            try:
                reply = await self._bus.request(ASSIGN, request, timeout_s=REQUEST_S)
            except BusError as error:
                return f"the address service does not answer ({error})"
            return await self._answered(pod, plugin, reply)

    async def _answered(self, pod: PodKey, asked: Plugin, reply: object) -> str:
        now = self._store.get(pod)
        if now is None or now.takes_over != asked.takes_over:
            return ""  # It went meanwhile: both handles are owed.
        match reply:
            case Assigned(addresses=addresses) if set(addresses) == set(asked.endpoint.addresses):
                self._store.put(msgspec.structs.replace(now, takes_over=""))
                self._told.discard(pod)
                self._changed()
                try:
                    await self._store.save()
                except StoreError as error:
                    return str(error)  # Asked again after a restart: no harm.
                return ""
            case Busy(reason=reason):
                return str(reason)
            case Refused(reason=reason) | PoolExhausted(reason=reason):
                problem = f"{', '.join(asked.endpoint.addresses)} is not given to it: {reason}"
            case _:
                problem = f"unexpected answer {reply!r}"
        if pod not in self._told:
            self._told.add(pod)
            self._report("take_over_refused", str(pod), f"The pod holds a warm address, but {problem}")
        return problem
