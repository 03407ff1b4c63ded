"""How a pod comes to its addresses.

    resource, namespace --wishes--> ipAddrsNoIpam ----------------> as they are
                                    a warm address that fits -----> at once            (later: `take_overs`)
                                    otherwise --------------------> rpc.ipam.assign
                                    floatingIPs, then ------------> rpc.ipam.assign, under a handle of their own

While the bus is away nobody can read what a pod's resource asks for. With TORTIE_OUTAGE_ADD start-closed a pod that
could have a warm address, as far as its runtime tells, starts with it *unread*: it is not announced, so no policy lets
a packet pass, until `closed_starts` has read the resource.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName, PodKey
from bus_schemas.ipam import Assigned, AssignRequest, Busy, PoolExhausted, Refused
from bus_schemas.resources import Namespace, Pod
from bus_schemas.subjects import ASSIGN, Rpc
from chassis.errors import Unavailable
from services.node_dataplane import identity
from services.node_dataplane.cni_protocol import Call, CniError, Code
from services.node_dataplane.endpoint_store import EndpointStore, Plugin, Warm
from services.node_dataplane.links import link_name
from services.node_dataplane.locks import KeyedLocks
from services.node_dataplane.outage import Reach
from services.node_dataplane.patience import turns
from services.node_dataplane.warm import Labels
from services.node_dataplane.wishes import Allowed, Wishes, floating_request, request, translated, wishes

OutageAdd = Literal["start-closed", "refuse"]


class Bus(Protocol):
    """What of the bus is used here."""

    async def request(self, rpc: Rpc, message: Any, *, timeout_s: float) -> Any: ...


class Resources(Protocol):
    """Single resources, without following all of their kind."""

    async def read(self, kind: type[Any], namespace: str, name: str) -> Any: ...

    async def await_pod(self, pod: PodKey, accept: Callable[[Pod], bool]) -> Pod: ...


class Stock(Protocol):
    """What `warm_pool.WarmPool` is to those who take from it."""

    def fits(self, wishes: Wishes, namespace: Labels | None) -> bool: ...

    def take(self, wishes: Wishes, namespace: Labels | None) -> Warm | None: ...


@dataclass
class Stage:
    """How far a call got, for the error of one that ran out of time."""

    text: str
    given_up: bool = False
    forgotten: bool = False
    """The connections of the addresses' former owners are forgotten already."""


class Asked(NamedTuple):
    wishes: Wishes
    namespace: Labels | None = None
    """Labels of the pod's namespace, where they are known."""
    unread: bool = False


def current(uid: str) -> Callable[[Pod], bool]:
    """Whether a resource is that of the pod with this uid; a runtime need not tell it."""
    return lambda resource: not uid or resource.metadata.uid in ("", uid)


class Addressing:
    def __init__(
        self,
        node: NodeName,
        *,
        store: EndpointStore,
        bus: Bus,
        reach: Reach,
        resources: Resources,
        warm: Stock,
        allowed: Callable[[], Allowed],
        mtu: Callable[[], int],
        outage_add: OutageAdd,
    ) -> None:
        """`allowed`: what FelixConfiguration lets pods ask for."""
        self._node = node
        self._store = store
        self._bus = bus
        self._reach = reach
        self._resources = resources
        self._warm = warm
        self._allowed = allowed
        self._mtu = mtu
        self.asked_mtu = 0
        """What the CNI configuration of the last pod said; 0: nothing."""
        self._outage_add = outage_add
        self.handles = KeyedLocks()
        """Held while a handle's address is being assigned or released."""

    async def plugin(self, call: Call, pod: PodKey, stage: Stage) -> Plugin:
        """What is to be plugged in; noted, and not yet durable. Raises CniError, BusError."""
        known = self._store.get(pod)
        if known is not None and not known.awaits_floating:
            return known
        if (other := self._store.of_link(link_name(pod))) is not None and other.pod != pod:
            raise CniError(Code.INVALID_CONFIGURATION, f"the names of {pod} and {other.pod} give the same link name")
        if call.config.nodename not in ("", self._node):
            raise CniError(
                Code.INVALID_CONFIGURATION,
                f"nodename is {call.config.nodename!r}, and this is the agent of {self._node}",
            )
        asked = await self._asked(call, pod, stage)
        plugin = known or await self._of_its_own(call, pod, asked, stage)
        return await self._floating(call, plugin, asked, stage) if asked.wishes.floating else plugin

    # --- what it asks for

    async def _asked(self, call: Call, pod: PodKey, stage: Stage) -> Asked:
        if not identity.has_resource(call):
            return Asked(wishes(call, {}, {}, self._allowed()))
        stage.text = f"waiting for the resource of the pod {pod}"
        if self._outage_add == "refuse":
            return await self._read(call, pod)
        while True:
            try:
                return await self._reach.while_here(lambda: self._read(call, pod))
            except Unavailable:
                blind = Asked(wishes(call, call.config.annotations or {}, {}, self._allowed()), unread=True)
                if not blind.wishes.floating and self._warm.fits(blind.wishes, None):
                    return blind
                await self._reach.returned()

    async def _read(self, call: Call, pod: PodKey) -> Asked:
        resource, namespace = await asyncio.gather(
            self._resources.await_pod(pod, current(identity.uid_of(call))),
            self._resources.read(Namespace, "", pod.namespace),
        )
        of_namespace = namespace.metadata if namespace is not None else None
        annotations = of_namespace.annotations if of_namespace is not None else {}
        return Asked(
            wishes(call, resource.metadata.annotations, annotations, self._allowed()),
            of_namespace.labels if of_namespace is not None else {},
        )

    # --- its own addresses

    async def _of_its_own(self, call: Call, pod: PodKey, asked: Asked, stage: Stage) -> Plugin:
        if asked.wishes.unassigned:
            return self._note(call, pod, asked, self._nobodys(pod, asked.wishes.unassigned))
        warm = self._warm.take(asked.wishes, asked.namespace)
        if warm is not None:
            stage.forgotten = True
            noted = self._note(call, pod, asked, warm.addresses)
            taken = msgspec.structs.replace(noted, takes_over=warm.handle)
            self._store.put(taken)
            return taken
        stage.text = "asking for an address"
        asking = request(call, self._node, asked.wishes)
        async with self.handles.of(asking.handle):
            return self._note(call, pod, asked, await self._assign(asking, stage))

    def _nobodys(self, pod: PodKey, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for plugin in self._store.all():
            if both := set(plugin.reached) & set(addresses):
                raise CniError(
                    Code.INVALID_CONFIGURATION, f"{', '.join(sorted(both))} is the address of {plugin.pod} on this node"
                )
        return addresses

    def _note(self, call: Call, pod: PodKey, asked: Asked, addresses: tuple[str, ...]) -> Plugin:
        unassigned = bool(asked.wishes.unassigned)
        handle = identity.handle_of(call)
        endpoint = Endpoint(
            node=self._node,
            namespace=pod.namespace,
            name=pod.name,
            container=call.container,
            uid=identity.uid_of(call),
            handle=HandleId("") if unassigned else handle,
            link=link_name(pod),
            addresses=addresses,
            labels=None if identity.has_resource(call) else call.config.labels or {},
        )
        plugin = Plugin(
            endpoint=endpoint,
            handle=handle,
            interface=call.interface,
            netns=call.netns,
            mac="",
            asked_mac=asked.wishes.mac,
            mtu=self._mtu_for(call.config.mtu),
            unassigned=unassigned,
            unread=asked.unread,
            sources=asked.wishes.sources,
        )
        self._store.put(plugin)
        return plugin

    def _mtu_for(self, configured: int) -> int:
        self.asked_mtu = configured
        return configured or self._mtu()

    # --- its floating ones

    async def _floating(self, call: Call, plugin: Plugin, asked: Asked, stage: Stage) -> Plugin:
        translated(asked.wishes.floating, plugin.endpoint.addresses)
        asking = floating_request(call, self._node, asked.wishes)
        plugin = msgspec.structs.replace(plugin, also=(asking.handle,))
        self._store.put(plugin)
        stage.text = "asking for the floating addresses"
        async with self.handles.of(asking.handle):
            given = await self._assign(asking, stage)
            floating = translated(given, plugin.endpoint.addresses)
            endpoint = msgspec.structs.replace(plugin.endpoint, floating=floating)
            plugin = msgspec.structs.replace(plugin, endpoint=endpoint)
            self._store.put(plugin)
        return plugin

    # --- the address service

    async def _assign(self, request: AssignRequest, stage: Stage) -> tuple[str, ...]:
        for turn in turns():
            try:
                reply = await self._bus.request(ASSIGN, request, timeout_s=turn.request_s)
            except Unavailable as error:
                reply = Busy(reason=f"the address service does not answer ({error})")
            match reply:
                case Assigned(addresses=addresses):
                    return addresses
                case PoolExhausted(reason=reason):
                    raise CniError(Code.TRY_AGAIN, f"no address to be had: {reason}")
                case Refused(reason=reason):
                    raise CniError(Code.INVALID_CONFIGURATION, f"the address service refuses: {reason}")
                case Busy(reason=reason):
                    stage.text = f"asking for an address: {reason}"
                    await asyncio.sleep(turn.pause_s)
        raise AssertionError("the turns have no end")
