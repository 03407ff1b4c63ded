"""The life of a pod on this node: plugged in, checked, unplugged. The CNI's verbs, in the order that keeps every crash
recoverable.

    ADD   node ready -> addresses (see `addressing`) -> endpoint noted, durable -> announced -> link, routes
          -> policy in the kernel -> answer
    DEL   policy, route gone -> endpoint withdrawn, debt of the address noted, durable -> link gone, its connections
          forgotten -> answer
          ... and later, whenever the bus is there: the withdrawal is published, then the address is released

A node is ready once it knows its pools and nodes (a pod's MTU depends on them) and its policy table is in the kernel: a
link made before would be open. While the bus is away a pod may start closed, see `closed_starts`.

Each step may be repeated. Verbs of one pod are serialised; those of different pods are not. A DEL names a container, so
one that comes late for an older incarnation releases that one's address and touches nothing of the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import msgspec

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, PodKey
from chassis.errors import BusError, Unavailable
from services.node_dataplane import cni_protocol as cni
from services.node_dataplane import identity
from services.node_dataplane.addressing import Addressing, OutageAdd, Stage
from services.node_dataplane.cni_protocol import Call, CniError, Code
from services.node_dataplane.endpoint_store import EndpointStore, Plugin
from services.node_dataplane.errors import LinkError, StoreError
from services.node_dataplane.links import PodLink, PodLinks, link_name
from services.node_dataplane.locks import KeyedLocks
from services.node_dataplane.outage import Reach
from services.node_dataplane.reaper import Reaper
from services.node_dataplane.routes import Row, host
from services.node_dataplane.routing import RouteTable, cidr_of

READY = "waiting for the node to be ready"
POLICY = "policy not in place"


class Policy(Protocol):
    """What `enforcement.Enforcement` is to the pods."""

    def plug(self, endpoint: Endpoint, sources: tuple[str, ...] = ()) -> None: ...

    def link_group(self, link: str) -> int: ...

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


class Closed(Protocol):
    """What `closed_starts.ClosedStarts` is to the pods."""

    def add(self, plugin: Plugin, why: str) -> None: ...

    def gone(self, pod: PodKey) -> None: ...


class Pods:
    def __init__(
        self,
        *,
        store: EndpointStore,
        links: PodLinks,
        reaper: Reaper,
        routes: RouteTable,
        connections: Connections,
        policy: Policy,
        announcements: Announcements,
        addressing: Addressing,
        reach: Reach,
        closed: Closed,
        debts: Callable[[], None],
        take_overs: Callable[[], None],
        ready: Callable[[], Awaitable[object]],
        obstacle: Callable[[], str],
        tell: Callable[[str, PodKey, str, dict[str, str]], None],
        deadline_s: float,
        outage_add: OutageAdd,
    ) -> None:
        """`debts` is called when a handle is owed, `take_overs` when a pod has a warm address; `ready` returns once
        pods can be taken; `obstacle` says why none can be taken now, or "" when it can; `tell(what, pod, message,
        detail)` emits an event of the domain `pod`."""
        self._store = store
        self._links = links
        self._reaper = reaper
        self._routes = routes
        self._connections = connections
        self._policy = policy
        self._announcements = announcements
        self._addressing = addressing
        self._reach = reach
        self._closed = closed
        self._debts = debts
        self._take_overs = take_overs
        self._ready = ready
        self._obstacle = obstacle
        self._tell = tell
        self._deadline_s = deadline_s
        self._outage_add = outage_add
        self._adding: dict[str, tuple[Stage, asyncio.Timeout]] = {}
        """ADDs under way, by container."""
        self._verbs = KeyedLocks()
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
            stage = Stage(READY)
            began = asyncio.get_running_loop().time()
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
                            self._tell_stopped(before, ": another container takes its place")
                        plugin = await self._addressing.plugin(call, pod, stage)
                        result = await self._plug(call, plugin, stage)
            except (TimeoutError, BusError, CniError, StoreError, LinkError, OSError) as error:
                why = self._obstacle() if stage.text == READY else self._policy.obstacle(pod)
                failure = self._failure(error, stage, why)
                if not repeated:
                    await self._undo(pod, call)
                    message = f"{pod} could not be started: {failure}."
                    self._tell("start_failed", pod, message, {"container": call.container})
                raise failure from error
            if not repeated:
                seconds = asyncio.get_running_loop().time() - began
                self._tell_started(self._store.get(pod) or plugin, seconds)
            return result

    def _tell_started(self, plugin: Plugin, seconds: float) -> None:
        endpoint = plugin.endpoint
        addresses = endpoint.addresses
        self._tell(
            "started",
            plugin.pod,
            f"{plugin.pod} is plugged in with {' and '.join(addresses)}, after {seconds:.2f} s.",
            {"addresses": ",".join(addresses), "link": endpoint.link, "seconds": f"{seconds:.3f}"},
        )

    def _tell_stopped(self, plugin: Plugin, why: str = "") -> None:
        addresses = plugin.endpoint.addresses
        message = f"{plugin.pod} is unplugged and gives {' and '.join(addresses)} back{why}."
        self._tell("stopped", plugin.pod, message, {"addresses": ",".join(addresses)})

    @contextmanager
    def _interruptible(self, container: str, stage: Stage, deadline: asyncio.Timeout) -> Iterator[None]:
        """A DEL of the container ends the body."""
        self._adding[container] = (stage, deadline)
        try:
            yield
        finally:
            del self._adding[container]

    def _failure(self, error: Exception, stage: Stage, why: str) -> Exception:
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

    async def _plug(self, call: Call, plugin: Plugin, stage: Stage) -> str:
        endpoint = plugin.endpoint
        self._policy.plug(endpoint, plugin.sources)
        if not plugin.unread:
            self._announcements.announce(endpoint)
        stage.text = "writing the pod down"
        await self._store.save()
        plugged = self._links.ensure(_link(call, plugin, self._policy.link_group(endpoint.link)))
        for address in plugin.reached:
            self._routes.want(host(address), Row(endpoint.link), local=True)
        self._routes.flush()
        for address in plugin.reached:
            if reason := self._routes.stuck.get(host(address)):
                raise LinkError(f"no route to {cidr_of(host(address))}: {reason}")
        if (plugged.mac, call.netns) != (plugin.mac, plugin.netns):
            now = self._store.get(plugin.pod) or plugin
            plugin = msgspec.structs.replace(now, mac=plugged.mac, netns=call.netns)
            self._store.put(plugin)
        if plugged.created and not stage.forgotten:
            await self._connections.forget(plugin.reached)
        stage.text = POLICY
        if why := await self._without_policy(call, plugin):
            self._closed.add(plugin, why)
        await self._links.running(endpoint.link)
        if plugin.takes_over:
            self._take_overs()
        return cni.result(
            call.config.version,
            link=endpoint.link,
            interface=call.interface,
            netns=call.netns,
            mac=plugged.mac,
            mtu=plugin.mtu,
            addresses=endpoint.addresses,
            before=call.config.previous,
        )

    async def _without_policy(self, call: Call, plugin: Plugin) -> str:
        """Why the pod starts closed; empty once its policy is in place."""
        if plugin.unread:
            return "the bus is away, so nobody knows yet what its resource asks for"
        endpoint, wait_s = plugin.endpoint, call.config.policy_wait_s
        try:
            async with asyncio.timeout(wait_s or None):
                if self._outage_add == "start-closed":
                    await self._reach.while_here(lambda: self._policy.in_place(endpoint))
                else:
                    await self._policy.in_place(endpoint)
        except Unavailable:
            return "the bus is away, and its policy with it"
        except TimeoutError:
            why = self._policy.obstacle(plugin.pod)
            return f"its policy is not in place after {wait_s:g} s (policy_setup_timeout_seconds): {why}"
        return ""

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
                self._tell_stopped(plugin)
        return ""

    async def _unplug(self, plugin: Plugin) -> None:
        endpoint = plugin.endpoint
        self._policy.unplug(plugin.pod)
        self._closed.gone(plugin.pod)
        for address in plugin.reached:
            held = self._routes.local(host(address))
            if held is not None and held.device == endpoint.link:
                self._routes.want(host(address), None, local=True)
        self._routes.flush()
        self._announcements.withdraw(plugin.pod)
        self._store.remove(plugin.pod)
        self._owe(*plugin.owes)
        await self._store.save()
        await self._reaper.remove(endpoint.link)
        await self._connections.forget(plugin.reached)

    def _owe(self, *handles: HandleId) -> None:
        for handle in handles:
            self._store.owe(handle)
        self._debts()

    # --- CHECK, GC, STATUS, VERSION

    async def _check(self, call: Call) -> str:
        plugin = self._store.of_container(call.container)
        if plugin is None or plugin.interface != call.interface:
            raise CniError(Code.CONTAINER_UNKNOWN, f"the container {call.container} has no {call.interface} from here")
        async with self._verbs.of(plugin.pod):
            endpoint = plugin.endpoint
            before = call.config.previous
            missing = set(before.addresses(call.interface) if before else ()) - set(endpoint.addresses)
            if missing:
                raise CniError(
                    Code.CHECK_FAILED, f"prevResult names {', '.join(sorted(missing))}, which the pod does not have"
                )
            if complaint := self._links.check(_link(call, plugin, self._policy.link_group(plugin.endpoint.link))):
                raise CniError(Code.CHECK_FAILED, complaint)
            self._routes.check()
            for address in plugin.reached:
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
                        self._tell_stopped(plugin, ": the runtime does not know it any more")
        return ""

    async def _status(self, call: Call) -> str:
        if obstacle := self._obstacle():
            raise CniError(Code.NOT_AVAILABLE, obstacle)
        return ""

    async def _version(self, call: Call) -> str:
        return cni.versions(call.config.version)


def _link(call: Call, plugin: Plugin, group: int) -> PodLink:
    return PodLink(
        plugin.endpoint.link,
        plugin.interface,
        call.netns,
        plugin.endpoint.addresses,
        plugin.mtu,
        group,
        mac=plugin.asked_mac,
        ip_forwarding=call.config.ip_forwarding,
    )
