"""A small cluster of real processes in which things are broken while its pods talk.

    node1: shop/web (answers), shop/c        node2: shop/a, shop/b        a tunnel between them, one policy:
    a --> web is allowed     b --> web, c --> web are denied              web takes traffic of `app=a` only

A test breaks something between `async with world.watched()` and the end of its body; what flowed meanwhile is judged
there (see `fault_streams`), and `world.converged()` proves that changes take effect again and that the books agree:
what the bus and the kernels hold is exactly what the pods that there are need.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Network, ip_address
from typing import Any

from bus_schemas.codec import decode
from bus_schemas.events import Event
from bus_schemas.ids import PodKey
from bus_schemas.subjects import ATTACHMENT, BLOCK, ENDPOINT, EVENT, GROUP, HANDLE, ROUTE, Family, Key, live
from chassis.bus import Bus
from chassis.feed import Feed, Interest
from chassis.health import Health
from chassis.settings import ServiceSettings
from tests.support.fault_streams import ECHO_PORT, WEB, Streams
from tests.support.ipam import check_invariants
from tests.support.waiting import within
from tortie import netns
from tortie.cli.errors import Refused
from tortie.lab import fabric, kernel, ownership, probes, scenario
from tortie.lab.cluster import BUS, NATS_PORT, Cluster
from tortie.lab.errors import CannotDo
from tortie.lab.pods import Pod
from tortie.lab.probes import Answered, Silent
from tortie.lab.scenario import PodSpec, Reference
from tortie.lab.topology import CONTROL_ADDRESS, node_netns, pod_netns

CLUSTER = """
name: faults
nodes:
  node1: {address: 10.0.0.11/24}
  node2: {address: 10.0.0.12/24}
resources: |
  apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata: {name: pool}
  spec: {cidr: 10.244.0.0/16, blockSize: 26, vxlanMode: Always, natOutgoing: true}
  ---
  apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {namespace: shop, name: web-from-a}
  spec:
    podSelector: {matchLabels: {app: web}}
    ingress:
      - from: [{podSelector: {matchLabels: {app: a}}}]
namespaces: {shop: {team: shop}}
pods:
  shop/web: {node: node1, labels: {app: web}, listen: [tcp/80, udp/53]}
  shop/c: {node: node1, labels: {app: c}}
  shop/a: {node: node2, labels: {app: a}}
  shop/b: {node: node2, labels: {app: b}}
"""

CONVERGED_S = 15.0
"""Whatever was broken has to be well again within this, on a busy machine."""
REPAIRED_S = 30.0
"""A part of the self-check that took long rests long, see `services.node_dataplane.selfcheck`."""


class World:
    """The cluster, a bus connection of the test's own, faults, and what must come true again."""

    def __init__(self, cluster: Cluster, bus: Bus) -> None:
        self.cluster = cluster
        self.bus = bus
        self.figures: list[str] = []
        """What was measured, for whoever runs the tests with -s."""
        self.kills: Counter[str] = Counter()
        self.dead: set[str] = set()
        """Killed and not yet started again."""
        self._newcomers = 0

    @property
    def nodes(self) -> list[str]:
        return self.cluster.agents

    @property
    def processes(self) -> list[str]:
        """The ones that answer for themselves."""
        return [name for name in self.cluster.processes if name != BUS]

    def node_netns(self, node: str) -> str:
        return node_netns(self.cluster.name, node)

    async def on_node(self, node: str, *command: str) -> str:
        """A command in a node's namespace; its output. Raises CannotDo."""
        return await fabric.run("ip", "netns", "exec", self.node_netns(node), *command)

    # --- faults

    async def kill(self, *processes: str) -> None:
        """kill -9."""
        self.dead.update(processes)
        self.kills.update(processes)
        await asyncio.gather(*map(self.cluster.kill_process, processes))
        if BUS in processes:
            await within(self._bus_is_silent, "the killed nats-server is gone")

    async def start(self, *processes: str) -> None:
        """As their supervisor would, at once."""
        await asyncio.gather(*map(self.cluster.start_process, processes))
        self.dead.difference_update(processes)

    @asynccontextmanager
    async def paused(self, process: str) -> AsyncIterator[None]:
        """It does not run while the body does: what it would say at once can be waited for."""
        pid = self.cluster.processes[process].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    async def ready(self) -> None:
        """Every process says so itself."""
        await asyncio.gather(*(p.ready() for name, p in self.cluster.processes.items() if name != BUS))

    async def _bus_is_silent(self) -> bool:
        with netns.inside(self.cluster.topology.control.netns), socket.socket() as sock:
            return sock.connect_ex((CONTROL_ADDRESS, NATS_PORT)) != 0

    # --- health

    async def readyz(self, process: str) -> Mapping[str, Any]:
        """`{ready, causes, notes}`."""
        status, body = await self.cluster.processes[process].readyz()
        assert status, f"{process}: {body}"
        answer: Mapping[str, Any] = json.loads(body)
        return answer

    async def unready_for_want_of_the_bus(self, process: str) -> None:
        """Returns once the process says so itself."""

        async def says_so() -> bool:
            readyz = await self.readyz(process)
            assert not readyz["ready"]
            return "bus" in readyz["causes"]

        await within(says_so, f"{process} says that it has no bus", CONVERGED_S)

    async def note(self, process: str, cause: str = "malformed") -> str:
        return str((await self.readyz(process))["notes"].get(cause, ""))

    # --- traffic

    @asynccontextmanager
    async def watched(self, *, lossless: bool = True) -> AsyncIterator[Streams]:
        """Nobody who is denied may be answered meanwhile, and nothing allowed be lost; `lossless` False: the fault
        itself takes the packets' way."""
        streams = Streams(self.cluster)
        async with streams.running():
            yield streams
        streams.assert_no_wrong_verdict()
        if lossless:
            streams.assert_nothing_lost()

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[Streams]:
        """The fault itself opens or closes the way for a moment: whoever asks says how long that may be."""
        streams = Streams(self.cluster)
        async with streams.running():
            yield streams

    async def probe(self, source: PodKey, destination: PodKey = WEB) -> probes.Outcome:
        pods = self.cluster.pods
        return await probes.probe(pods[source].netns, pods[destination].addresses[0], "tcp", 80)

    async def allowed(self, source: PodKey) -> None:
        async def answered() -> bool:
            return isinstance(await self.probe(source), Answered)

        await within(answered, f"{source} reaches {WEB}", CONVERGED_S)

    async def denied(self, source: PodKey) -> None:
        async def silent() -> bool:
            return isinstance(await self.probe(source), Silent)

        await within(silent, f"{source} does not reach {WEB}", CONVERGED_S)

    # --- what a container runtime and a user do, again and again until it is done

    async def start_pod(self, key: PodKey, node: str, labels: Mapping[str, str]) -> Pod:
        """Pod resource, namespace, CNI ADD."""
        pod = Pod(key, PodSpec(node=node, labels=dict(labels)), pod_netns(self.cluster.name, *key))
        await self.apply(pod.manifest())
        await fabric.add_namespace(pod.netns)
        self.cluster.pods[key] = pod
        await self.add(pod)
        return pod

    async def add(self, pod: Pod, *, within_s: float = CONVERGED_S) -> None:
        """CNI ADD until it succeeds, as kubelet repeats it."""

        async def added() -> bool:
            await pod.plug_in(self.node_netns(pod.spec.node), self.cni_socket(pod.spec.node))
            return True

        await within(added, f"CNI ADD of {pod.key}", within_s)

    async def unplug(self, pod: Pod) -> None:
        """CNI DEL until it succeeds."""

        async def removed() -> bool:
            await pod.unplug(self.node_netns(pod.spec.node), self.cni_socket(pod.spec.node))
            return True

        await within(removed, f"CNI DEL of {pod.key}", CONVERGED_S)

    async def stop_pod(self, key: PodKey) -> None:
        """CNI DEL, and the resource and the namespace are gone."""
        pod = self.cluster.pods[key]
        await self.unplug(pod)
        await self.delete(Reference("Pod", key.namespace, key.name))
        await fabric.remove_namespaces([pod.netns])
        del self.cluster.pods[key]

    async def apply(self, *manifests: Mapping[str, Any]) -> None:
        text = "\n---\n".join(json.dumps(manifest) for manifest in manifests)

        async def applied() -> bool:
            await self.cluster.apply(text)
            return True

        await within(applied, "the api takes the manifests", CONVERGED_S)

    async def delete(self, what: Reference) -> None:
        async def deleted() -> bool:
            try:
                await self.cluster.delete(what)
            except CannotDo as error:
                if not (isinstance(error.__cause__, Refused) and error.__cause__.status == 404):
                    raise  # where it does not exist, an earlier attempt has done it
            return True

        await within(deleted, f"{what} is deleted", CONVERGED_S)

    async def label(self, key: PodKey, **labels: str | None) -> None:
        async def labelled() -> bool:
            await self.cluster.label(Reference("Pod", key.namespace, key.name), labels)
            return True

        await within(labelled, f"{key} is labelled", CONVERGED_S)

    def cni_socket(self, node: str) -> Any:
        return self.cluster.directory / "node" / node / "cni.sock"

    # --- convergence

    async def converged(self, after: str) -> None:
        """Everybody is ready; a pod that comes now is plugged in and judged by its labels, and by its new ones; when it
        is gone the books agree."""
        began = time.monotonic()
        await self.ready()
        ready = time.monotonic()
        self._newcomers += 1
        newcomer = PodKey("shop", f"newcomer-{self._newcomers}")
        await self.start_pod(newcomer, self.nodes[self._newcomers % len(self.nodes)], {"app": "a"})
        await self.allowed(newcomer)
        await self.label(newcomer, app="b")
        await self.denied(newcomer)
        changed = time.monotonic()
        await self.stop_pod(newcomer)
        await self.books_agree()
        figures = (ready - began, changed - ready, time.monotonic() - changed)
        self.figures.append(f"{after}: ready {figures[0]:.2f} s, changes {figures[1]:.2f} s, books {figures[2]:.2f} s")

    async def books_agree(self) -> None:
        async def agree() -> bool:
            faults = await self.discrepancies()
            assert faults == [], "\n  ".join(["the books do not agree:", *faults])
            return True

        await within(agree, "the books agree", CONVERGED_S)

    async def discrepancies(self) -> list[str]:
        """One sentence for each thing that is too much or missing, on the bus and in the kernels."""
        bus = await self.snapshot(BLOCK, HANDLE, ENDPOINT, ATTACHMENT, GROUP, ROUTE)
        pods = self.cluster.pods
        wanted = {(pod.spec.node, *key): set(pod.addresses) for key, pod in pods.items()}
        faults = []
        check_invariants(bus[BLOCK].values(), bus[HANDLE].values())
        held = {(h.node, h.namespace, h.pod): set(h.addresses) for h in bus[HANDLE].values() if h.use == "workload"}
        faults += _differences("address", wanted, held)
        faults += _differences("endpoint", wanted, {key: set(e.addresses) for key, e in bus[ENDPOINT].items()})
        containers = {(pod.spec.node, *key): pod.container for key, pod in pods.items()}
        faults += _differences("attachment", containers, {key: a.container for key, a in bus[ATTACHMENT].items()})
        addresses = {address for some in wanted.values() for address in some}
        for (group, _), value in bus[GROUP].items():
            strangers = {str(ip_address(value.v4[i : i + 4])) for i in range(0, len(value.v4), 4)} - addresses
            if value.of == "addresses" and strangers:
                faults.append(f"the group {group} ({value.selector}) has {sorted(strangers)}, which nobody has")
        blocks = {IPv4Network(block.cidr) for block in bus[BLOCK].values()}
        routes = [IPv4Network(cidr) for (cidr,) in bus[ROUTE]]
        faults += [f"no route to {b}" for b in blocks if not any(b.subnet_of(route) for route in routes)]
        faults += [f"a route to {r}, of nobody" for r in routes if not any(b.overlaps(r) for b in blocks)]
        for node in self.nodes:
            here = {pod.link: set(pod.addresses) for pod in pods.values() if pod.spec.node == node}
            faults += _differences(f"route on {node}", here, await self._local_routes(node))
            links = json.loads(await fabric.run("ip", "-n", self.node_netns(node), "-j", "link", "show"))
            found = {link["ifname"] for link in links if link["ifname"].startswith("tor")}
            faults += _differences(f"link on {node}", dict.fromkeys(here), dict.fromkeys(found))
        return faults

    async def _local_routes(self, node: str) -> dict[str, set[str]]:
        routes: dict[str, set[str]] = {}
        for row in await kernel.read("routes", self.node_netns(node)):
            if str(row.get("dev", "")).startswith("tor") and not row["dst"].startswith("fe80:"):
                routes.setdefault(row["dev"], set()).add(row["dst"])
        return routes

    async def snapshot(self, *families: Family[Any]) -> dict[Family[Any], dict[Key, Any]]:
        """Every last value of the families."""
        found: dict[Family[Any], dict[Key, Any]] = {family: {} for family in families}
        async with asyncio.timeout(CONVERGED_S), self.bus.follow(*map(Interest, families)) as feed:
            while not feed.in_sync:
                for fact in (await feed.next()).facts:
                    if fact.value is not None:
                        found[fact.family][fact.key] = fact.value
        return found

    async def value(self, family: Family[Any], *key: str) -> Any:
        return (await self.bus.get(family, key)).value

    # --- what is said on the bus

    async def publish(self, subject: str, payload: bytes) -> None:
        """Any bytes on any subject, as nobody of ours would write them."""
        session = await self.bus.session()
        await session.publish(subject, payload)
        await session.echo(5.0)

    @asynccontextmanager
    async def hearing(self, *families: Family[Any]) -> AsyncIterator[Feed]:
        """A feed of what is said from here on."""
        async with self.bus.follow(*map(Interest, families)) as feed:
            while not feed.in_sync:
                await feed.next()
            yield feed

    @asynccontextmanager
    async def telling(self, node: str, object_: str) -> AsyncIterator[None]:
        """An event `repaired` about the object is told by the node before the body's end can be left. Events are heard
        one by one: a feed would show the last of each kind only."""
        told: list[Event] = []
        session = await self.bus.session()
        heard = await session.subscribe(
            live(EVENT.filter("node", "repaired")), lambda delivery: told.append(decode(delivery.payload, Event))
        )

        async def about_the_object() -> bool:
            assert any(event.node == node and object_ in event.object for event in told), told
            return True

        try:
            yield
            await within(about_the_object, f"{node} repairs {object_}", REPAIRED_S)
        finally:
            await heard.unsubscribe()


def _differences(what: str, wanted: Mapping[Any, object], found: Mapping[Any, object]) -> list[str]:
    faults = [f"{what}: {key} is missing" for key in wanted.keys() - found.keys()]
    faults += [f"{what}: {key} is nobody's ({found[key]})" for key in found.keys() - wanted.keys()]
    faults += [
        f"{what}: {key} is {found[key]}, not {wanted[key]}"
        for key in wanted.keys() & found.keys()
        if wanted[key] != found[key]
    ]
    return faults


# --- making one


@asynccontextmanager
async def world_of(lab: str) -> AsyncIterator[World]:
    """A cluster under this lab name, up and consistent."""
    wanted = scenario.read(CLUSTER, "the cluster of the fault tests")
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(ownership.owned(lab))
        cluster = Cluster(lab, wanted.nodes, directory)
        stack.push_async_callback(cluster.down)
        await cluster.up(wanted.resources, wanted.namespaces, wanted.pods, lambda _: None)
        with netns.inside(cluster.pods[WEB].netns):
            echo = socket.create_server(("", ECHO_PORT))
        server = await asyncio.start_server(_echo_back, sock=echo)
        stack.callback(server.close)
        url = await stack.enter_async_context(_doorway(cluster.topology.control.netns))
        settings = ServiceSettings(nats_url=url, instance="faults", health_listen="")
        bus = await stack.enter_async_context(Bus.connect(settings, name="faults", health=Health()))
        await bus.connected()
        world = World(cluster, bus)
        await world.books_agree()
        yield world
    print("\n".join(["", *world.figures]))


async def _echo_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def _doorway(namespace: str) -> AsyncIterator[str]:
    """The lab's bus at an address of the machine's own namespace: whoever connects is connected on."""
    loop = asyncio.get_running_loop()
    ends: set[asyncio.StreamWriter] = set()
    visitors: set[asyncio.Task[Any]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitor = asyncio.current_task()
        assert visitor is not None
        visitors.add(visitor)
        visitor.add_done_callback(visitors.discard)
        with netns.inside(namespace):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await loop.sock_connect(sock, (CONTROL_ADDRESS, NATS_PORT))
            far_reader, far_writer = await asyncio.open_connection(sock=sock)
        except OSError:
            sock.close()
            writer.close()
            return
        both = {writer, far_writer}
        ends.update(both)
        await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))
        ends.difference_update(both)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for end in ends:
            end.close()
        if visitors:
            await asyncio.wait(visitors)
