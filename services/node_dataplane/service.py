"""The agent's shell: facts in, kernel and answers out.

    bus --ATTACHMENT, HOST_ATTACHMENT,
          DIRECTION, RULES, GROUP---------------> Enforcement ------------------> table inet tortie
    bus --ROUTE, IPPool, Node, NODE_ADDRESSES ...--> NodeCore --> Fabric --------> routes, tunnels
                                                        +--> TunnelAddress <--rpc--> ipam
                                             Fabric --> WireguardKeys --WIREGUARD_KEYS--> bus
    CNI plugin --unix socket--> Pods --> links; --> Announcements --ENDPOINT--> bus
                 WarmPool <--rpc--> ipam <---+----> Debts, TakeOvers --rpc--> ipam
                                             +----> ClosedStarts (in an outage)
    bus --BGP, BGP_MESH--> Speaking --> BIRD, a process of its own;  BIRD --> Speaking --SESSIONS--> bus
                                             Fabric, NodeCore --> FactsReport --NODE_ADDRESSES, NODE_FACTS--> bus
    endpoints, tunnel address --> HoldingReport --HOLDING--> bus
    kernel --notifications--> SelfCheck --> all of the above
    kernel --denied packets--> DenialLog --> events;  --counters--> HitCounters --> bus, metrics
    Enforcement --frontends in the kernel--> ServiceAddresses --> stale connections, healthCheckNodePorts  (optional)
    Enforcement --changes in the kernel--> ConnectionCutter --> connections that are no longer allowed
                                       +--> PolicyNews --> events;  Pods --> events

Nothing is programmed before the snapshot is complete; what an earlier life left in the kernel stays and is adopted.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bus_schemas.events import Event
from bus_schemas.ids import NodeName, PodKey
from bus_schemas.ipam import Held
from bus_schemas.resources import FelixConfiguration, IPPool, Node
from bus_schemas.status import MODE, POLICY_ONLY
from bus_schemas.subjects import BGP, BGP_MESH, DESIRED, ENDPOINT, NODE_ADDRESSES, ROUTE
from chassis.bus import Bus
from chassis.feed import Interest
from chassis.health import Health
from chassis.publication import Publication
from chassis.runner import Context
from services.node_dataplane import cni_server, interfaces, sysctl, tunnel_address
from services.node_dataplane.addressing import Addressing
from services.node_dataplane.announcements import Announcements
from services.node_dataplane.autodetection import Reach as SentFrom
from services.node_dataplane.bird.driver import BirdDriver
from services.node_dataplane.bird.routes import left_by_bird
from services.node_dataplane.bird.speaking import Speaking
from services.node_dataplane.closed_starts import ClosedStarts
from services.node_dataplane.connection_cutter import ConnectionCutter
from services.node_dataplane.connections import Connections
from services.node_dataplane.core import NodeCore
from services.node_dataplane.debts import Debts
from services.node_dataplane.denial_log import DenialLog
from services.node_dataplane.denials import Told
from services.node_dataplane.desired_resources import DesiredResources
from services.node_dataplane.endpoint_store import EndpointStore
from services.node_dataplane.enforcement import Enforcement
from services.node_dataplane.fabric import Fabric
from services.node_dataplane.facts import node_facts
from services.node_dataplane.facts_report import FactsReport
from services.node_dataplane.fitness import fit
from services.node_dataplane.found import agent as found
from services.node_dataplane.hits import HitCounters
from services.node_dataplane.holding import Asking, HoldingReport, unannounced
from services.node_dataplane.links import PodLinks
from services.node_dataplane.monitor import Monitor
from services.node_dataplane.nft.bridge_driver import BridgeDriver
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.node_rules import (
    allowed,
    bus_ports,
    cuts_connections,
    faults,
    node_rules,
    refresh_intervals,
)
from services.node_dataplane.offload_trial import trial
from services.node_dataplane.outage import Reach
from services.node_dataplane.pods import Pods
from services.node_dataplane.reach import Reaches
from services.node_dataplane.reaper import Reaper
from services.node_dataplane.recollection import recollect
from services.node_dataplane.repairs import REPAIRS
from services.node_dataplane.routes import Row, host
from services.node_dataplane.selfcheck import SelfCheck
from services.node_dataplane.service_proxy.shell import service_addresses
from services.node_dataplane.settings import Settings
from services.node_dataplane.sysctl_notes import SysctlNotes
from services.node_dataplane.take_overs import TakeOvers
from services.node_dataplane.tunnel_address import TunnelAddress
from services.node_dataplane.warm_pool import WarmPool
from services.node_dataplane.wireguard_report import WireguardKeysReport

SYNC = "sync"
RETRY_S = 1.0
DUE_SLACK_S = 0.01
"""The clock of the loop and that of the wall do not run alike."""


class Agent:
    """One node. The constructor lists the parts in the order in which facts flow through them."""

    def __init__(self, settings: Settings, bus: Bus, health: Health) -> None:
        node = settings.node_name
        self.node: NodeName = node
        self._bus = bus
        self._health = health
        self._bus_ports = bus_ports(settings.nats_url)
        self._start_closed = settings.outage_add == "start-closed"

        self.store = EndpointStore(Path(settings.state_dir))
        self.sysctl = SysctlNotes(Path(settings.state_dir))
        self.links = PodLinks()
        self.connections = Connections(health)
        self.driver = NftDriver()
        asked = settings.asked()
        self.core = NodeCore(node, asked)
        self.reaches = Reaches(asked, self._reached)
        self.fabric = Fabric(settings.vxlan_checksum_offload, Path(settings.state_dir))
        self.monitor = Monitor((self.fabric.socket.port, *self.links.ports))
        self.services = service_addresses(settings, node, health)
        self.enforcement = Enforcement(
            node, self.driver, health, self._report, proxy=self.services.proxy if self.services is not None else None
        )
        self.enforcement.tell = self._tell
        if self.services is not None:
            self.enforcement.served = self.services.served
        self.asking = Asking(bus)
        self.tunnel_addresses = {
            kind: TunnelAddress(node, kind, self.asking, health, self._gained) for kind in tunnel_address.CAUSES
        }
        self.wireguard_keys = WireguardKeysReport(node, bus)
        self.facts_report = FactsReport(node, bus, health, Path(settings.state_dir), self._report)
        self._try_offload = settings.vxlan_checksum_offload == "auto"
        self._offload_due = asyncio.Event()
        self.speaking = Speaking(
            node,
            BirdDriver(Path(settings.state_dir) / "bird", has_routes=lambda: left_by_bird(self.fabric.socket)),
            bus,
            health,
            secrets=Path(settings.bgp_secrets_dir) if settings.bgp_secrets_dir else None,
        )
        self.publication = Publication(bus, [Interest(ENDPOINT, (node,))], independent=True)
        self.announcements = Announcements(node, self.publication)
        self.holding = HoldingReport(node, bus, self.announcements, self.asking, (self._held,))
        self.announcements.changed = self.holding.mark
        self.reaper = Reaper(self.links)
        self.debts = Debts(node, self.store, self.announcements, bus, health)
        self.warm_pool = WarmPool(
            node,
            self.store,
            self.asking,
            self.fabric.routes,
            health,
            count=settings.warm_addresses,
            idle_s=settings.warm_idle_s or math.inf,
            forget=self.connections.forget,
            debts=self.debts.mark,
            changed=self.holding.mark,
            name=lambda: secrets.token_hex(5),
        )
        self.take_overs = TakeOvers(node, self.store, self.asking, health, self.holding.mark, self._report)
        resources = DesiredResources(bus)
        self.reach = Reach(bus)
        self.closed_starts = ClosedStarts(
            self.store, resources, self.enforcement, self.announcements, health, self.holding.mark, self._report
        )
        self.addressing = Addressing(
            node,
            store=self.store,
            bus=self.asking,
            reach=self.reach,
            resources=resources,
            warm=self.warm_pool,
            allowed=lambda: allowed(self.core.surroundings),
            mtu=self.core.pod_mtu,
            outage_add=settings.outage_add,
        )
        self.pods = Pods(
            store=self.store,
            links=self.links,
            reaper=self.reaper,
            routes=self.fabric.routes,
            connections=self.connections,
            policy=self.enforcement,
            announcements=self.announcements,
            addressing=self.addressing,
            reach=self.reach,
            closed=self.closed_starts,
            debts=self.debts.mark,
            take_overs=self.take_overs.mark,
            ready=self._ready,
            obstacle=self._obstacle,
            tell=self._tell_of_pod,
            deadline_s=settings.cni_deadline_s,
            outage_add=settings.outage_add,
        )
        self.self_check = SelfCheck(
            fabric=self.fabric,
            links=self.links,
            store=self.store,
            enforcement=self.enforcement,
            surroundings=self._look_around,
            health=health,
            report=self._report,
            interval_s=settings.self_check_s,
        )
        table = self.enforcement.table
        self.denial_log = DenialLog(
            node,
            meaning=table.denial,
            title=self.enforcement.title,
            store=self.store,
            host_endpoint=table.host_endpoint,
            health=health,
            tell=self._tell,
            most_per_s=settings.denied_events_per_s,
        )
        self.hits = HitCounters(
            node,
            table,
            bus,
            health,
            directory=Path(settings.state_dir),
            interval_s=settings.hits_interval_s,
            metrics=settings.policy_metrics,
        )
        self.cutter = ConnectionCutter(
            self.enforcement.changes,
            table,
            lambda: {plugin.pod: plugin.endpoint.addresses for plugin in self.store.all()},
            lambda: self.enforcement.programmed,
            health=health,
            tell=self._tell,
        )
        self.enforcement.cut_due = self.cutter.wake
        self._devices: dict[str, frozenset[str]] = {}
        """The node's own, with their addresses, as they were last seen."""
        self._cut = settings.existing_connections == "cut"
        self._configured = settings.addressing
        self._synced = False
        self._settled = asyncio.Event()
        """The snapshot has been applied to the kernel once."""
        self._changed = asyncio.Event()
        self._troubles: tuple[str, ...] = ()
        """What the fabric could not do, as it was last told."""

    def close(self) -> None:
        self.monitor.close()
        self.hits.close()
        self.cutter.close()
        self.speaking.close()
        self.driver.close()
        self.fabric.close()
        self.connections.close()
        self.links.close()
        if self.services is not None:
            self.services.close()

    # --- start

    async def recollect(self) -> None:
        """Know this node's pods though the notes of them are gone. Raises NodeError."""
        await recollect(self.node, self.store, self.links, self._bus, self._health, self._report)

    def adopt(self) -> None:
        """Take up what an earlier life left: routes as they are, and the pods on disk. Programs no policy."""
        self._health.fail(SYNC, "the bus has not yet told this node's state")
        self.facts_report.recall(self.core.whereabouts.kept)
        self.sysctl.write(sysctl.of_node((), ipv6=False))
        for kind, addresses in self.fabric.adopt().items():
            self.tunnel_addresses[kind].adopt(addresses)
        self.core.set_keyed(frozenset(self.fabric.public_keys()))
        with BridgeDriver() as bridge:
            bridge.clear()  # Of an agent that had only policy: no pod of ours is on a bridge.
        groups = self.enforcement.table.link_groups
        groups.adopt({name: link.group for name, link in self.links.present().items()})
        for plugin in self.store.all():
            self.enforcement.plug(plugin.endpoint, plugin.sources)
            if not plugin.unread:
                self.announcements.announce(plugin.endpoint)
            for address in plugin.reached:
                self.fabric.routes.want(host(address), Row(plugin.endpoint.link), local=True)
        self.links.regroup(groups.right)
        self.announcements.complete()
        self.closed_starts.adopt()
        self.warm_pool.adopt()
        self.fabric.routes.flush()
        self._look_around()

    # --- tasks

    async def follow(self) -> None:
        """For ever: routes, pools, nodes and configuration into the kernel, and what BIRD is to say."""
        interests = (
            Interest(ROUTE),
            Interest(DESIRED[IPPool]),
            Interest(DESIRED[FelixConfiguration]),
            Interest(DESIRED[Node]),
            Interest(NODE_ADDRESSES),
            Interest(BGP, (self.node,)),
            Interest(BGP_MESH),
        )
        async with self._bus.follow(*interests, packed=True) as feed:
            while True:
                batch = await feed.next()
                for fact in batch.facts:
                    self.core.apply(fact)
                    self.speaking.apply(fact)
                if batch.in_sync:
                    self._synced = True
                    self.speaking.in_sync()
                self._changed.set()

    async def converge(self) -> None:
        """For ever: what the core wants into the kernel, once the snapshot is complete."""
        while True:
            try:
                async with asyncio.timeout(self._until_due()):
                    await self._changed.wait()
            except TimeoutError:
                self.core.look_again()
            self._changed.clear()
            if not self._synced:
                continue
            try:
                self._flush()
            except OSError as error:
                self._health.fail("kernel", f"the kernel cannot be configured: {error}")
                await asyncio.sleep(RETRY_S)
                self._changed.set()
            else:
                self._health.ok("kernel")
                self._health.ok(SYNC)
                self._settled.set()

    def _until_due(self) -> float | None:
        """Seconds until the core wants to be asked again though nothing changed; None: it does not."""
        due = self.core.due
        return None if due is None else max(0.0, due - time.time()) + DUE_SLACK_S

    def _flush(self) -> None:
        desired = self.core.flush(time.time())
        self._tell_node_ports()
        if desired.surroundings is not None:
            ipv6 = any(pool.family == 6 for pool in desired.surroundings.pools)
            self.sysctl.write(sysctl.of_node(self.core.uplinks(6), ipv6=ipv6))
            cut = cuts_connections(desired.surroundings, self._cut)
            self.enforcement.set_node(node_rules(desired.surroundings, self._bus_ports), cut=cut)
            self._health.note("configuration", "; ".join(faults(desired.surroundings)) or None)
            self.self_check.turns.pace(refresh_intervals(desired.surroundings))
        for kind, vteps in desired.vteps.items():
            self.tunnel_addresses[kind].want(vteps.families, vteps.pools, registered=self.core.registered)
        self.warm_pool.want(self.core.pools if self.core.registered else (), self.core.labels)
        self.fabric.apply(desired)
        self._troubles = self.fabric.problems
        keys = self.fabric.public_keys()
        if self.core.set_keyed(frozenset(keys)):
            self._changed.set()
        self.wireguard_keys.say(desired.tunnels, keys)
        if self._try_offload and self.fabric.tunnelling:
            self._offload_due.set()
        self._tell_facts()
        problems = (*desired.problems, *self._troubles)
        self._health.note("fabric", "; ".join(problems) or None)

    def _tell_facts(self) -> None:
        whereabouts = self.core.whereabouts
        configured = {**self.core.configured, **self._configured}
        facts = node_facts(
            self.node,
            whereabouts.findings,
            whereabouts.underlay,
            self.core.mtu,
            self.fabric.checksums.facts.values(),
            configured,
            cni_mtu=self.addressing.asked_mtu,
        )
        self.facts_report.say(whereabouts.addresses, facts)
        self._health.note("checksum offload", self.fabric.checksums.sentence or None)

    async def try_offload(self) -> None:
        """Once, as soon as there is a tunnel: whether its checksums can be left to the hardware."""
        await self._offload_due.wait()
        self.fabric.tried(await asyncio.to_thread(trial))
        self._changed.set()

    def _reached(self, family: int, reach: SentFrom) -> None:
        if self.core.set_reach(family, reach):
            self._changed.set()

    def _look_around(self) -> None:
        """The node's own devices, as the kernel has them now."""
        self.reaches.look()
        seen = interfaces.observe(self.fabric.socket)
        if self.core.set_interfaces(seen.uplinks) or self.fabric.problems != self._troubles:
            self._changed.set()
        self.enforcement.set_devices(seen.devices)
        self._devices = seen.devices
        self._tell_node_ports()
        if self._settled.is_set():
            self._tell_facts()

    def _tell_node_ports(self) -> None:
        """The addresses on which node ports are served, as they are now."""
        if self.services is not None:
            primary = (str(uplink.network.ip) for uplink in self.core.whereabouts.uplinks.values())
            self.enforcement.set_node_addresses(self.services.node_addresses(self._devices, primary))

    def _gained(self, kind: str, addresses: tuple[str, ...]) -> None:
        self.holding.mark()
        self.core.set_vteps(kind, addresses)
        self._changed.set()

    async def _ready(self) -> None:
        """Returns when pods can be taken."""
        await self._settled.wait()
        await self.enforcement.ready()

    # --- words

    def _obstacle(self) -> str:
        """Why no pod can be taken now; empty when one can."""
        causes = self._health.causes
        if self._start_closed and self.warm_pool.stocked:
            causes.pop("bus", None)
        return "; ".join(f"{name}: {text}" for name, text in causes.items())

    def _held(self) -> Iterator[Held]:
        """What the node holds beside its endpoints."""
        for address in self.tunnel_addresses.values():
            yield from address.held()
        yield from self.warm_pool.held()
        yield from self.take_overs.held()
        yield from unannounced(self.store.all(), self.announcements)

    def _tell(self, told: Told) -> None:
        """An event about policy."""
        what, object_, message, detail = told
        self._bus.emit(
            Event(
                time=time.time(),
                domain="policy",
                what=what,
                node=self.node,
                object=object_,
                message=message,
                detail=detail,
            )
        )

    def _tell_of_pod(self, what: str, pod: PodKey, message: str, detail: dict[str, str]) -> None:
        self._bus.emit(
            Event(
                time=time.time(),
                domain="pod",
                what=what,
                node=self.node,
                object=str(pod),
                message=message,
                detail=detail,
            )
        )

    def _report(self, what: str, object_: str, message: str) -> None:
        """An event, and a repair is counted, too."""
        if what == "repaired":
            REPAIRS.inc()
        self._bus.emit(
            Event(time=time.time(), domain="node", what=what, node=self.node, object=object_, message=message)
        )


@asynccontextmanager
async def agent(settings: Settings, bus: Bus, health: Health) -> AsyncIterator[Agent]:
    """An agent whose tasks run while the context is open."""
    async with AsyncExitStack() as stack:
        with fit():
            made = Agent(settings, bus, health)
        stack.callback(made.close)
        await stack.enter_async_context(made.publication)
        await stack.enter_async_context(made.wireguard_keys.publication)
        await stack.enter_async_context(made.facts_report.publication)
        with fit():
            await made.recollect()
            made.adopt()
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = [
            tasks.create_task(task)
            for task in (
                made.publication.run(),
                made.announcements.run(),
                made.holding.run(),
                made.reaper.run(),
                made.reach.run(),
                made.debts.run(made.addressing.handles),
                made.take_overs.run(made.addressing.handles),
                made.warm_pool.run(),
                made.closed_starts.run(),
                made.enforcement.follow(bus),
                made.enforcement.run(),
                made.denial_log.run(),
                made.hits.run(),
                made.cutter.run(),
                made.follow(),
                made.converge(),
                made.speaking.run(),
                *(address.run() for address in made.tunnel_addresses.values()),
                made.wireguard_keys.run(),
                made.facts_report.run(),
                made.reaches.run(),
                made.try_offload(),
                *(made.services.tasks() if made.services is not None else ()),
                made.self_check.run(made.monitor),
            )
        ]
        try:
            async with cni_server.serve(settings.cni_socket, made.pods.handle):
                yield made
        finally:
            for task in running:
                task.cancel()


async def serve(context: Context[Settings]) -> None:
    if context.settings.policy_only:
        await _serve_policy(context)
        return
    async with agent(context.settings, context.bus, context.health) as made:
        context.heartbeat.node = made.node
        context.heartbeat.detail["cni_socket"] = context.settings.cni_socket
        context.log.info("agent", node=context.settings.node_name, cni_socket=context.settings.cni_socket)
        await context.stopping.wait()


async def _serve_policy(context: Context[Settings]) -> None:
    context.heartbeat.detail[MODE] = POLICY_ONLY  # Before the first sign of life that says that it is ready.
    async with found.agent(context.settings, context.bus, context.health) as made:
        context.heartbeat.node = made.node
        context.log.info("agent", node=context.settings.node_name, mode=POLICY_ONLY)
        await context.stopping.wait()
