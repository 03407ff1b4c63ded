"""The agent of policy-only mode: pods and links as others made them in, policy out.

    bus --Pod, Node, FelixConfiguration--> Residents, NodeCore --+
    kernel --link notifications--> look: veths ------------------+--> _apply --> Bridge table, Enforcement --> kernel
                                                                        +------> Announcements --ENDPOINT--> bus
    bus --ATTACHMENT, ... --> Enforcement                               +------> connections forgotten, events

Of pods nothing is kept on disk: a restarted agent finds them and their links again, and the table is not touched before
it has (the node's own rules, without which nothing is flushed, come after the first look). Where there is no table, the
node has booted, and one goes up at once that closes the pods' networks.

A link that goes is closed at once, whatever the bus says of its pod; a link that comes is closed until the bus has said
whose its address is, and its policy is in the kernel.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from bus_schemas.endpoints import Endpoint
from bus_schemas.events import Event
from bus_schemas.ids import NodeName, PodKey
from bus_schemas.resources import FelixConfiguration, Node, Pod
from bus_schemas.subjects import DESIRED, ENDPOINT
from chassis.bus import Bus
from chassis.feed import Interest
from chassis.health import Health
from chassis.publication import Publication
from services.node_dataplane import interfaces
from services.node_dataplane.announcements import Announcements
from services.node_dataplane.connection_cutter import ConnectionCutter
from services.node_dataplane.connections import Connections
from services.node_dataplane.core import NodeCore, Surroundings
from services.node_dataplane.denial_log import DenialLog
from services.node_dataplane.denials import Told
from services.node_dataplane.enforcement import Enforcement
from services.node_dataplane.errors import StoreError
from services.node_dataplane.fitness import fit
from services.node_dataplane.found import filtering, networks_note, traces, veths
from services.node_dataplane.found.residents import NO_LINK, Resident, Residents, View
from services.node_dataplane.hits import HitCounters
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.nft.bridge import BridgeRules, Port
from services.node_dataplane.nft.bridge_driver import BridgeDriver
from services.node_dataplane.nft.by_address import ByAddress
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.errors import NftError
from services.node_dataplane.nft.table import NodeRules, PolicyTable
from services.node_dataplane.node_rules import bus_ports, cuts_connections, faults, node_rules, refresh_intervals
from services.node_dataplane.repairs import REPAIRS
from services.node_dataplane.settings import Settings
from services.node_dataplane.turns import Turns

SYNC = "sync"
LINKS = "pods without a link"
FILTERING = "bridged packets"
BRIDGE = "bridge table"
LEFT = "left by the other mode"
NAMED = 10
SETTLE_S = 0.02
"""After a notification: a link comes as several of them."""
SOON_S = 0.1
"""Until the next look while a pod has no link: addresses of far ends come without a word. Each look that finds nothing
doubles it, up to the self-check's interval."""
RETRY_S = 0.5
_GROUPS = 0x1 | 0x10 | 0x100
"""Notifications of links, IPv4 and IPv6 addresses."""


class PolicyAgent:
    def __init__(self, settings: Settings, bus: Bus, health: Health) -> None:
        """Raises StoreError."""
        self.node: NodeName = settings.node_name
        self._bus = bus
        self._health = health
        self._bus_ports = bus_ports(settings.nats_url)
        self._cut = settings.existing_connections == "cut"
        self._interval_s = settings.self_check_s
        self.core = NodeCore(self.node)
        self.residents = Residents(self.node, settings.networks)
        self._socket = NetlinkSocket(NETLINK_ROUTE)
        self._monitor = NetlinkSocket(NETLINK_ROUTE, groups=_GROUPS)
        self.driver = NftDriver()
        self.bridge = BridgeDriver()
        self.connections = Connections(health)
        self.enforcement = Enforcement(self.node, self.driver, health, self._report, ByAddress())
        self.enforcement.tell = self._tell
        self.publication = Publication(bus, [Interest(ENDPOINT, (self.node,))], independent=True)
        self.announcements = Announcements(self.node, self.publication)
        self._directory = state = Path(settings.state_dir)
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make {state}: {error.strerror}") from error
        table = self.enforcement.table
        self.denial_log = DenialLog(
            self.node,
            meaning=table.denial,
            title=self.enforcement.title,
            store=self,
            host_endpoint=table.host_endpoint,
            health=health,
            tell=self._tell,
            most_per_s=settings.denied_events_per_s,
        )
        self.hits = HitCounters(
            self.node,
            table,
            bus,
            health,
            directory=state,
            interval_s=settings.hits_interval_s,
            metrics=settings.policy_metrics,
        )
        self.cutter = ConnectionCutter(
            self.enforcement.changes,
            table,
            lambda: {pod: resident.endpoint.addresses for pod, resident in self._view.residents.items()},
            lambda: self.enforcement.programmed,
            health=health,
            tell=self._tell,
        )
        self.enforcement.cut_due = self.cutter.wake
        self._turns = Turns()
        self._view = View({}, {}, frozenset(), frozenset())
        """What was applied."""
        self._noted = networks_note.read(state)
        self._rules: tuple[NodeRules, bool] | None = None
        self._surroundings: Surroundings | None = None
        self._synced = False
        self._begun = False
        """The first look has been applied."""
        self._due = asyncio.Event()
        self._soon_s = SOON_S
        self._forgotten: asyncio.Queue[frozenset[str]] = asyncio.Queue()

    def close(self) -> None:
        self.hits.close()
        self.cutter.close()
        self.connections.close()
        self.bridge.close()
        self.driver.close()
        self._monitor.close()
        self._socket.close()

    def begin(self) -> None:
        self._health.fail(SYNC, "the bus has not yet told this node's pods")
        self._health.note(LEFT, traces.of_other_mode(self._socket) or None)
        networks = self.residents.networks or self._noted
        if networks and not self.driver.exists():
            # The node booted. Nobody can say yet who its pods are, so they are closed until the bus does.
            self.driver.commit(PolicyTable(NodeRules(pod_networks=networks), ByAddress()).whole())

    # --- for others

    def of_link(self, link: str) -> Resident | None:
        return next((r for r in self._view.residents.values() if r.veth.name == link), None)

    def all(self) -> Iterable[Resident]:
        return self._view.residents.values()

    # --- tasks

    async def follow(self) -> None:
        """For ever: this node's pods, and what the configuration says."""
        interests = (Interest(DESIRED[Pod]), Interest(DESIRED[Node]), Interest(DESIRED[FelixConfiguration]))
        async with self._bus.follow(*interests, packed=True) as feed:
            while True:
                batch = await feed.next()
                for fact in batch.facts:
                    if fact.family is DESIRED[Pod]:
                        if self.residents.set_pod(PodKey(fact.key[0], fact.key[1]), fact.value):
                            self._wake()
                    else:
                        self.core.apply(fact)
                        self._wake()
                if batch.in_sync and not self._synced:
                    self._synced = True
                    self._wake()

    async def converge(self) -> None:
        """For ever: what is known into the kernel, when something changed, and in the self-check's turn."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._monitor.fileno(), self._heard)
        try:
            while True:
                try:
                    async with asyncio.timeout(self._patience()):
                        await self._due.wait()
                    heard = True
                    await asyncio.sleep(SETTLE_S)
                except TimeoutError:
                    heard = False
                self._due.clear()
                if not self._synced:
                    continue
                try:
                    self._look()
                    self._configure()
                    if not heard:
                        await self._check()
                except (OSError, NftError, StoreError) as error:
                    self._health.fail("kernel", f"the kernel cannot be configured: {error}")
                    await asyncio.sleep(RETRY_S)
                    self._due.set()
                else:
                    self._health.ok("kernel")
                    self._health.ok(SYNC)
        finally:
            loop.remove_reader(self._monitor.fileno())

    async def forget(self) -> None:
        """For ever: connections of addresses that are nobody's any more."""
        while True:
            await self.connections.forget(await self._forgotten.get())

    def _wake(self) -> None:
        self._soon_s = SOON_S
        self._due.set()

    def _heard(self) -> None:
        try:
            for _ in self._monitor.announcements():
                pass  # Whatever it was, everything is looked at.
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
        self._wake()

    def _patience(self) -> float:
        if any(why.startswith(NO_LINK) for why in self._view.missing.values()):
            self._soon_s = min(2 * self._soon_s, self._interval_s)
            return self._soon_s
        return self._interval_s

    # --- what is there

    def _look(self) -> None:
        self.residents.set_networks(self.core.pod_cidrs)
        self.residents.set_seen(veths.observe(self._socket))
        self.enforcement.set_devices(interfaces.observe(self._socket).devices)
        self._apply(self.residents.flush())

    def _apply(self, view: View) -> None:
        """The bridge's table first: it is closed to addresses that it does not know, and policy relies on it."""
        try:
            self._guard(view)
        except NftError as error:
            self._health.fail(BRIDGE, f"the kernel refuses the bridge's table, so its new pods are closed: {error}")
            view = guarded(view, self.bridge.committed)
        else:
            self._health.ok(BRIDGE)
        before, after = self._view.residents, view.residents
        gone = [r for pod, r in before.items() if pod not in after or not _same(after[pod], r)]
        for resident in gone:  # All of them first: an address may be another's from now on.
            self.enforcement.unplug(resident.pod)
            if resident.pod not in after:
                self.announcements.withdraw(resident.pod)
                self._tell_of_pod("stopped", resident.endpoint, "is not found any more: its link or the pod is gone")
        if gone:
            self._forgotten.put_nowait(frozenset(address for r in gone for address in r.endpoint.addresses))
        for pod, resident in after.items():
            if before.get(pod) == resident and self._begun:
                continue
            self.enforcement.plug(resident.endpoint, device=resident.device, bridged=resident.bridged)
            self.announcements.announce(resident.endpoint)
            if pod not in before and self._begun:
                self._tell_of_pod("started", resident.endpoint, f"is found on the link {resident.veth.name}")
        if view.devices != self._view.devices or not self._begun:
            self.enforcement.set_pod_devices(view.devices)
        self._view = view
        if not self._begun:
            self._begun = True
            self.announcements.complete()
        told = [f"{pod}: {why}" for pod, why in sorted(view.missing.items())]
        more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
        self._health.note(LINKS, "; ".join(told[:NAMED]) + more if told else None)

    def _guard(self, view: View) -> None:
        """Raises NftError."""
        ports = frozenset(_port(r) for r in view.residents.values() if r.bridged)
        bridged = bool(ports or view.own)
        unfiltered = filtering.ensure(self._report) if bridged else {}
        self._health.note(FILTERING, "; ".join(unfiltered.values()) or None)
        if bridged or self.bridge.exists():
            self.bridge.commit(BridgeRules(ports, view.own, frozenset(unfiltered)))

    def _configure(self) -> None:
        """The node's own rules. The first of them let the first flush go."""
        surroundings = self.core.flush(time.time()).surroundings
        if surroundings is not None:
            self._surroundings = surroundings
            self._turns.pace(refresh_intervals(surroundings))
            self._health.note("configuration", "; ".join(faults(surroundings)) or None)
        if self._surroundings is None:
            return
        networks = self.residents.networks
        if networks != self._noted:
            networks_note.write(self._directory, networks)
            self._noted = networks
        rules = policy_only(node_rules(self._surroundings, self._bus_ports), networks)
        cut = cuts_connections(self._surroundings, self._cut)
        if (rules, cut) != self._rules:
            self._rules = (rules, cut)
            self.enforcement.set_node(rules, cut=cut)

    async def _check(self) -> None:
        now = asyncio.get_running_loop().time()
        deep = self._turns.due("policy", now)
        await self.enforcement.check(deep=deep)
        if self.bridge.repair():
            self._report("repaired", "table bridge tortie", "The table of the bridge was changed; it is as it was.")
        if deep:
            self._turns.took("policy", now, asyncio.get_running_loop().time())

    # --- words

    def _tell_of_pod(self, what: str, endpoint: Endpoint, verb: str) -> None:
        addresses = endpoint.addresses
        message = f"{endpoint.pod} with {' and '.join(addresses)} {verb}."
        detail = {"addresses": ",".join(addresses), **({"link": endpoint.link} if what == "started" else {})}
        self._send("pod", what, str(endpoint.pod), message, detail)

    def _tell(self, told: Told) -> None:
        what, object_, message, detail = told
        self._send("policy", what, object_, message, detail)

    def _report(self, what: str, object_: str, message: str) -> None:
        if what == "repaired":
            REPAIRS.inc()
        self._send("node", what, object_, message, {})

    def _send(self, domain: str, what: str, object_: str, message: str, detail: dict[str, str]) -> None:
        self._bus.emit(
            Event(
                time=time.time(),
                domain=domain,
                what=what,
                node=self.node,
                object=object_,
                message=message,
                detail=detail,
            )
        )


def _port(resident: Resident) -> Port:
    return Port(resident.veth.device, resident.veth.mac, resident.endpoint.addresses)


def guarded(view: View, held: BridgeRules | None) -> View:
    """Without the pods whose ports are not in the table of the bridge as the kernel holds it."""
    ports = held.ports if held is not None else frozenset()
    out = {pod for pod, r in view.residents.items() if r.bridged and _port(r) not in ports}
    residents = {pod: r for pod, r in view.residents.items() if pod not in out}
    missing = {**view.missing, **dict.fromkeys(out, "the table of its bridge cannot be written")}
    return view._replace(residents=residents, missing=missing)


def _same(one: Resident, other: Resident) -> bool:
    """Of one pod: on the same link, with the same addresses."""
    return (one.veth.device, one.endpoint.addresses) == (other.veth.device, other.endpoint.addresses)


def policy_only(rules: NodeRules, networks: tuple[str, ...]) -> NodeRules:
    """Without what belongs to addresses and routes, which are somebody else's."""
    return msgspec.structs.replace(
        rules,
        pod_networks=networks,
        masquerade_pools=(),
        all_pools=(),
        vxlan_port=None,
        ipip=False,
        wireguard_ports=(),
        tunnel_links=(),
        spoofing=False,
        floating=False,
    )


@asynccontextmanager
async def agent(settings: Settings, bus: Bus, health: Health) -> AsyncIterator[PolicyAgent]:
    """An agent whose tasks run while the context is open."""
    async with AsyncExitStack() as stack:
        with fit():
            made = PolicyAgent(settings, bus, health)
        stack.callback(made.close)
        await stack.enter_async_context(made.publication)
        with fit():
            made.begin()
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = [
            tasks.create_task(task)
            for task in (
                made.publication.run(),
                made.announcements.run(),
                made.follow(),
                made.converge(),
                made.forget(),
                made.enforcement.follow(bus),
                made.enforcement.run(),
                made.denial_log.run(),
                made.hits.run(),
                made.cutter.run(),
            )
        ]
        try:
            yield made
        finally:
            for task in running:
                task.cancel()
