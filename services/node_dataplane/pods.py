"""The life of a pod on this node: plugged in, checked, unplugged. The CNI's verbs, in the order that keeps every crash
recoverable.

    ADD   node ready -> address (rpc) -> endpoint noted, durable -> announced -> link, route -> policy in the kernel
          -> answer
    DEL   policy, route gone -> endpoint withdrawn, debt of the address noted, durable -> link gone, its connections
          forgotten -> answer
          ... and later, whenever the bus is there: the withdrawal is published, then the address is released

A node is ready once it knows its pools and nodes (a pod's MTU depends on them) and its policy table is in the kernel: a
link made before would be open. Each step may be repeated. Verbs of one pod are serialised; those of different pods are
not. A DEL names a container, so one that comes late for an older incarnation releases that one's address and touches
nothing of the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName, PodKey
from bus_schemas.ipam import Assigned, AssignRequest, Busy, PoolExhausted, Refused
from bus_schemas.resources import Namespace, Pod
from bus_schemas.subjects import ASSIGN, Rpc
from chassis.errors import BusError, Unavailable
from services.node_dataplane import cni_protocol as cni
from services.node_dataplane import identity, wishes
from services.node_dataplane.cni_protocol import Call, CniError, Code
from services.node_dataplane.endpoint_store import EndpointStore, Plugin
from services.node_dataplane.errors import LinkError, StoreError
from services.node_dataplane.links import PodLink, PodLinks, link_name
from services.node_dataplane.locks import KeyedLocks
from services.node_dataplane.reaper import Reaper
from services.node_dataplane.routes import Row, host
from services.node_dataplane.routing import RouteTable, cidr_of

RETRY_S = 0.2
"""Between requests to an address service that is busy or away, while a CNI call still has time."""
REQUEST_S = 5.0
READY = "waiting for the node to be ready"
POLICY = "policy not in place"


class Bus(Protocol):
    """What of the bus is used here."""

    async def request(self, rpc: Rpc, message: Any, *, timeout_s: float) -> Any: ...


class Resources(Protocol):
    """Single resources, without following all of their kind."""

    async def read(self, kind: type[Any], namespace: str, name: str) -> Any: ...

    async def await_pod(self, pod: PodKey, accept: Callable[[Pod], bool]) -> Pod: ...


class Policy(Protocol):
    """What `enforcement.Enforcement` is to the pods."""

    def plug(self, endpoint: Endpoint) -> None: ...

    def unplug(self, pod: PodKey) -> None: ...

    async def in_place(self, endpoint: Endpoint) -> None: ...

    def obstacle(self, pod: PodKey) -> str: ...


class Connections(Protocol):
    """What the kernel remembers of flows."""

    async def forget(self, addresses: Iterable[str]) -> None: ...


class Announcements(Protocol):
    """Endpoints on the bus."""

    def announce(self, endpoint: Endpoint) -> None: ...

    def withdraw(self, pod: PodKey) -> None: ...


class Pods:
    def __init__(
        self,
        node: NodeName,
        *,
        store: EndpointStore,
        links: PodLinks,
        reaper: Reaper,
        routes: RouteTable,
        connections: Connections,
        policy: Policy,
        announcements: Announcements,
        bus: Bus,
        resources: Resources,
        debts: Callable[[], None],
        mtu: Callable[[], int],
        ready: Callable[[], Awaitable[object]],
        obstacle: Callable[[], str],
        deadline_s: float,
    ) -> None:
        """`debts` is called when a handle is owed; `ready` returns once pods can be taken; `obstacle` says why none can
        be taken now, or "" when it can."""
        self._node = node
        self._store = store
        self._links = links
        self._reaper = reaper
        self._routes = routes
        self._connections = connections
        self._policy = policy
        self._announcements = announcements
        self._bus = bus
        self._resources = resources
        self._debts = debts
        self._mtu = mtu
        self._ready = ready
        self._obstacle = obstacle
        self._deadline_s = deadline_s
        self._adding: dict[str, tuple[_Stage, asyncio.Timeout]] = {}
        """ADDs under way, by container."""
        self._verbs = KeyedLocks()
        self.handles = KeyedLocks()
        """Held while a handle's address is being assigned or released."""
        self._handlers = {
            "ADD": self._add,
            "DEL": self._del,
            "CHECK": self._check,
            "GC": self._gc,
            "STATUS": self._status,
            "VERSION": self._version,
        }

    async def handle(self, env: Mapping[str, str], stdin: str) -> tuple[int, str]:
        """(exit code, standard output) of one call of the plugin."""
        version = cni.VERSIONS[-1]
        try:
            call = cni.parse(env, stdin)
            version = call.config.version
            return 0, await self._handlers[call.command](call)
        except CniError as error:
            return 1, cni.failure(version, error)
        except StoreError as error:
            return 1, cni.failure(version, CniError(Code.IO_FAILURE, str(error)))
        except OSError as error:
            return 1, cni.failure(version, CniError(Code.IO_FAILURE, error.strerror or str(error)))

    # --- ADD

    async def _add(self, call: Call) -> str:
        pod = identity.pod_of(call)
        async with self._verbs.of(pod):
            stage = _Stage(READY)
            before = self._store.get(pod)
            repeated = before is not None and before.endpoint.container == call.container
            if repeated and before is not None and before.interface != call.interface:
                raise CniError(
                    Code.UNSUPPORTED_FIELD, f"the container is attached as {before.interface} already; one link a pod"
                )
            try:
                async with asyncio.timeout(self._deadline_s) as deadline:
                    with self._interruptible(call.container, stage, deadline):
                        await self._ready()
                        if before is not None and not repeated:
                            await self._unplug(before)  # Its DEL never came, or came not yet.
                        plugin = await self._plugin(call, pod, stage)
                        return await self._plug(call, plugin, stage)
            except (TimeoutError, BusError, CniError, StoreError, LinkError, OSError) as error:
                why = self._obstacle() if stage.text == READY else self._policy.obstacle(pod)
                if not repeated:
                    await self._undo(pod, call)
                raise self._failure(error, stage, why) from error

    @contextmanager
    def _interruptible(self, container: str, stage: _Stage, deadline: asyncio.Timeout) -> Iterator[None]:
        """A DEL of the container ends the body."""
        self._adding[container] = (stage, deadline)
        try:
            yield
        finally:
            del self._adding[container]

    def _failure(self, error: Exception, stage: _Stage, why: str) -> Exception:
        """What the runtime is told. `why` the node is not ready, or the pod's policy not in place, matters only to who
        waited for it."""
        match error:
            case TimeoutError() if stage.given_up:
                return CniError(Code.TRY_AGAIN, f"given up by the runtime, which said DEL meanwhile: {stage.text}")
            case TimeoutError():
                waited = f"{stage.text}: {why}" if stage.text in (READY, POLICY) and why else stage.text
                return CniError(Code.TRY_AGAIN, f"not done within {self._deadline_s:g} s: {waited}")
            case LinkError():
                return CniError(Code.IO_FAILURE, str(error))
            case BusError():
                return CniError(Code.TRY_AGAIN, f"{stage.text}: {error}")
        return error

    async def _plugin(self, call: Call, pod: PodKey, stage: _Stage) -> Plugin:
        """What is to be plugged in; addresses included, noted and announced, durable."""
        known = self._store.get(pod)
        if known is not None:
            return known
        if (other := self._store.of_link(link_name(pod))) is not None:
            raise CniError(Code.INVALID_CONFIGURATION, f"the names of {pod} and {other.pod} give the same link name")
        request = await self._request(call, pod, stage)
        stage.text = "asking for an address"
        async with self.handles.of(request.handle):
            addresses = await self._assign(request, stage)
            endpoint = Endpoint(
                node=self._node,
                namespace=pod.namespace,
                name=pod.name,
                container=call.container,
                uid=identity.uid_of(call),
                handle=request.handle,
                link=link_name(pod),
                addresses=addresses,
                labels=None if identity.has_resource(call) else call.config.labels or {},
            )
            plugin = Plugin(
                endpoint=endpoint,
                handle=request.handle,
                interface=call.interface,
                netns=call.netns,
                mac="",
                mtu=call.config.mtu or self._mtu(),
            )
            self._store.put(plugin)
        return plugin

    async def _request(self, call: Call, pod: PodKey, stage: _Stage) -> AssignRequest:
        annotations: Mapping[str, str] = {}
        of_namespace: Mapping[str, str] = {}
        if identity.has_resource(call):
            stage.text = f"waiting for the resource of the pod {pod}"
            uid = identity.uid_of(call)

            def current(resource: Pod) -> bool:
                return not uid or resource.metadata.uid in ("", uid)

            resource, namespace = await asyncio.gather(
                self._resources.await_pod(pod, current), self._resources.read(Namespace, "", pod.namespace)
            )
            annotations = resource.metadata.annotations
            of_namespace = namespace.metadata.annotations if namespace is not None else {}
        return wishes.request(call, self._node, wishes.wishes(call, annotations, of_namespace, wishes.Allowed()))

    async def _assign(self, request: AssignRequest, stage: _Stage) -> tuple[str, ...]:
        while True:
            try:
                reply = await self._bus.request(ASSIGN, request, timeout_s=REQUEST_S)
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
                    await asyncio.sleep(RETRY_S)

    async def _plug(self, call: Call, plugin: Plugin, stage: _Stage) -> str:
        endpoint = plugin.endpoint
        self._policy.plug(endpoint)
        self._announcements.announce(endpoint)
        stage.text = "writing the pod down"
        await self._store.save()
        link = PodLink(endpoint.link, call.interface, call.netns, endpoint.addresses, plugin.mtu)
        plugged = self._links.ensure(link)
        for address in endpoint.addresses:
            self._routes.want(host(address), Row(endpoint.link), local=True)
        self._routes.flush()
        for address in endpoint.addresses:
            if reason := self._routes.stuck.get(host(address)):
                raise LinkError(f"no route to {cidr_of(host(address))}: {reason}")
        if (plugged.mac, call.netns) != (plugin.mac, plugin.netns):
            plugin = msgspec.structs.replace(plugin, mac=plugged.mac, netns=call.netns)
            self._store.put(plugin)
        if plugged.created:
            await self._connections.forget(endpoint.addresses)
        stage.text = POLICY
        await self._policy.in_place(endpoint)
        await self._links.running(endpoint.link)
        return cni.result(
            call.config.version,
            link=endpoint.link,
            interface=call.interface,
            netns=call.netns,
            mac=plugged.mac,
            mtu=plugin.mtu,
            addresses=endpoint.addresses,
        )

    async def _undo(self, pod: PodKey, call: Call) -> None:
        """As if ADD had never been. The address may have been given even where its answer was lost."""
        plugin = self._store.get(pod)
        if plugin is not None and plugin.endpoint.container == call.container:
            await self._unplug(plugin)
        elif plugin is None:
            self._owe(identity.handle_of(call))
            await self._store.save()

    # --- DEL

    async def _del(self, call: Call) -> str:
        if call.container in self._adding:
            # Who says DEL does not wait for its ADD any more: what that waits for need not come.
            stage, deadline = self._adding[call.container]
            stage.given_up = True
            deadline.reschedule(0.0)
        known = self._store.of_container(call.container)
        async with self._verbs.of(known.pod if known is not None else identity.pod_of(call)):
            plugin = self._store.of_container(call.container)
            if plugin is None:
                self._owe(identity.handle_of(call))
                await self._store.save()
                link = link_name(identity.pod_of(call))
                if self._store.of_link(link) is None:
                    await self._reaper.remove(link)  # A DEL that was cut short may have left it.
            elif plugin.interface == call.interface:
                await self._unplug(plugin)
        return ""

    async def _unplug(self, plugin: Plugin) -> None:
        endpoint = plugin.endpoint
        self._policy.unplug(plugin.pod)
        for address in endpoint.addresses:
            held = self._routes.local(host(address))
            if held is not None and held.device == endpoint.link:
                self._routes.want(host(address), None, local=True)
        self._routes.flush()
        self._announcements.withdraw(plugin.pod)
        self._store.remove(plugin.pod)
        self._owe(plugin.handle)
        await self._store.save()
        await self._reaper.remove(endpoint.link)
        await self._connections.forget(endpoint.addresses)

    def _owe(self, handle: HandleId) -> None:
        self._store.owe(handle)
        self._debts()

    # --- CHECK, GC, STATUS, VERSION

    async def _check(self, call: Call) -> str:
        plugin = self._store.of_container(call.container)
        if plugin is None or plugin.interface != call.interface:
            raise CniError(Code.CONTAINER_UNKNOWN, f"the container {call.container} has no {call.interface} from here")
        async with self._verbs.of(plugin.pod):
            endpoint = plugin.endpoint
            missing = set(call.config.previous or ()) - set(endpoint.addresses)
            if missing:
                raise CniError(
                    Code.CHECK_FAILED, f"prevResult names {', '.join(sorted(missing))}, which the pod does not have"
                )
            link = PodLink(endpoint.link, plugin.interface, call.netns, endpoint.addresses, plugin.mtu)
            if complaint := self._links.check(link):
                raise CniError(Code.CHECK_FAILED, complaint)
            self._routes.check()
            for address in endpoint.addresses:
                if reason := self._routes.stuck.get(host(address)):
                    raise CniError(Code.CHECK_FAILED, f"no route to {address}: {reason}")
        return ""

    async def _gc(self, call: Call) -> str:
        for plugin in self._store.all():
            attached = (plugin.endpoint.container, plugin.interface)
            ours = plugin.handle == f"{call.config.name}.{plugin.endpoint.container}"
            if ours and attached not in call.config.attachments:
                async with self._verbs.of(plugin.pod):
                    if self._store.get(plugin.pod) == plugin:
                        await self._unplug(plugin)
        return ""

    async def _status(self, call: Call) -> str:
        if obstacle := self._obstacle():
            raise CniError(Code.NOT_AVAILABLE, obstacle)
        return ""

    async def _version(self, call: Call) -> str:
        return cni.versions(call.config.version)


class _Stage:
    """How far a call got, for the error of one that ran out of time."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.given_up = False
