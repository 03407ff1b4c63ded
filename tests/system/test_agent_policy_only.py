"""An agent that has only policy, with the real bus and compiler, on a node whose pods others plugged in."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from bus_schemas.endpoints import Endpoint
from bus_schemas.events import Event
from bus_schemas.policy import Hits
from bus_schemas.resources import KubernetesNetworkPolicy, Namespace, Node, Pod, Resource
from bus_schemas.resources.core import NodeSpec, PodSpec, PodStatus
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.network_policy import KubernetesNetworkPolicySpec, LabelSelector
from bus_schemas.subjects import DESIRED, ENDPOINT, EVENT, HITS
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.feed import Interest
from chassis.health import Health
from chassis.settings import ServiceSettings
from tests.support import bridged, netns
from tests.support.agent import AgentProcess, ServiceProcess
from tests.support.netns import connect, listen, namespaces, ping
from tests.support.two_nodes import HUB, until

pytestmark = pytest.mark.root

A, B, NEW = "10.244.1.2", "10.244.1.3", "10.244.1.4"
REFUSED_S = 0.2
MARKS = ("10.244.1.0/24", "fd00:1::/64")


class Heard:
    """What is on the bus."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.events: list[Event] = []
        self.hits: Hits | None = None

    async def follow(self, bus: Bus) -> None:
        """For ever."""
        async with bus.follow(Interest(ENDPOINT), Interest(EVENT), Interest(HITS)) as feed:
            while True:
                for fact in (await feed.next()).facts:
                    if fact.family is EVENT and fact.value is not None:
                        self.events.append(fact.value)
                    elif fact.family is HITS:
                        self.hits = fact.value
                    elif fact.family is ENDPOINT and fact.value is None:
                        self.endpoints.pop(fact.key[2], None)
                    elif fact.family is ENDPOINT:
                        self.endpoints[fact.key[2]] = fact.value

    def link(self, pod: str) -> str:
        return self.endpoints[pod].link if pod in self.endpoints else ""


class World:
    def __init__(self, directory: Path, node: netns.Namespace, pods: tuple[netns.Namespace, ...], bus: Bus) -> None:
        self.node, self.pods, self.bus, self.heard = node, pods, bus, Heard()
        self.directory = directory
        self.agent: AgentProcess

    async def apply(self, *resources: Resource) -> None:
        for resource in resources:
            await self.bus.put(DESIRED[type(resource)], resource.key, resource)

    async def tells(self, name: str, *addresses: str) -> None:
        """As a cluster's mirror does it."""
        metadata = Metadata(name=name, namespace="default", uid=f"uid-{name}", labels={"app": name})
        status = PodStatus(phase="Running" if addresses else "Pending", pod_ips=addresses)
        await self.apply(Pod(metadata=metadata, spec=PodSpec(node_name="node1"), status=status))

    async def opens(self, name: str) -> None:
        await self.bus.delete(DESIRED[KubernetesNetworkPolicy], ("default", f"close-{name}"))

    async def closes(self, name: str) -> None:
        """Nobody may begin a connection to the pod."""
        spec = KubernetesNetworkPolicySpec(pod_selector=LabelSelector(match_labels={"app": name}))
        metadata = Metadata(name=f"close-{name}", namespace="default")
        await self.apply(KubernetesNetworkPolicy(metadata=metadata, spec=spec))

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            await until(condition, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.agent.log()}") from None

    async def reaches(self, source: int, address: str) -> None:
        await self.until(lambda: ping(self.pods[source], address, wait_s=REFUSED_S), f"{source} reaches {address}")

    async def refused(self, source: int, address: str) -> None:
        await self.until(lambda: not ping(self.pods[source], address, wait_s=REFUSED_S), f"{address} is closed")

    def belongings(self) -> Mapping[str, str]:
        """What of the node is none of the agent's business."""
        with self.node.inside():
            settings = {
                path: Path("/proc/sys/net", path).read_text()
                for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/cni0/proxy_arp")
            }
        commands = (("link",), ("address",), ("route", "show", "table", "all"), ("-6", "route"), ("rule",))
        return {**settings, **{" ".join(words): _still(self.node.ip(*words)) for words in commands}}


def _still(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "expires" not in line)


@contextmanager
def spaces() -> Iterator[tuple[netns.Namespace, ...]]:
    """The test stands in the hub; the node, and four namespaces for pods."""
    with ExitStack() as stack:
        hub, node, *pods = stack.enter_context(namespaces(6))
        netns.veth(node, "up0", hub, "up0", addresses=("10.0.0.1/24", f"{HUB}/24"))
        node.ip("route", "add", "default", "via", HUB)
        bridged.bridge(node)
        bridged.port(node, pods[0], "veth-a", A)
        bridged.port(node, pods[1], "veth-b", B)
        for pod in pods:
            stack.enter_context(listen(pod, "0.0.0.0", 80))
        stack.enter_context(hub.inside())
        yield node, *pods


@asynccontextmanager
async def world_of(directory: Path, node: netns.Namespace, *pods: netns.Namespace) -> AsyncIterator[World]:
    nats = EmbeddedNats(directory / "nats", host=HUB)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(nats)
        settings = ServiceSettings(nats_url=nats.url, health_listen="")
        bus = await stack.enter_async_context(Bus.connect(settings, name="test", health=Health()))
        await bus.connected()
        compiler = ServiceProcess("policy_compiler", directory / "compiler.log", nats_url=nats.url, health_listen="")
        compiler.start()
        stack.callback(compiler.stop)
        world = World(directory, node, pods, bus)
        node_resource = Node(metadata=Metadata(name="node1"), spec=NodeSpec(pod_cidrs=MARKS))
        await world.apply(Namespace(metadata=Metadata(name="default")), node_resource)
        world.agent = AgentProcess(
            "node1", node, nats.url, directory, policy_only="true", hits_interval_s="0.3", self_check_s="0.5"
        )
        stack.callback(world.agent.stop)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        following = tasks.create_task(world.heard.follow(bus))
        stack.callback(following.cancel)
        yield world


async def test_policy_and_nothing_else(tmp_path: Path) -> None:
    with spaces() as found:
        async with world_of(tmp_path, *found) as world:
            await _found(world)
            await _through_a_change_and_a_crash(world)
            await _another_link(world)
            await _unknown(world)
            await _booted(world)


async def _found(world: World) -> None:
    before = world.belongings()
    assert ping(world.pods[0], B), "the network is there before the agent"
    await world.tells("a", A)
    await world.tells("b", B)
    world.agent.start()
    await world.until(lambda: world.heard.endpoints.keys() == {"a", "b"}, "both are found")
    assert world.heard.link("a") == "veth-a"
    assert world.heard.endpoints["b"].addresses == (B,)
    await world.until(lambda: "inet tortie" in world.node.run("nft", "list", "tables"), "it has written its table")
    await world.reaches(0, B)
    await world.reaches(1, A)
    assert not Path(world.agent.socket).exists(), "there is nothing to ask of it"
    assert world.belongings() == before


async def _through_a_change_and_a_crash(world: World) -> None:
    """Connections live on; new ones meet the policy, whether the agent lives or not."""
    connection = connect(world.pods[0], B, 80)
    assert connection is not None
    with connection:
        await world.closes("b")
        await world.refused(0, B)
        connection.send(b"still")
        world.agent.kill()
        await world.refused(0, B)
        assert ping(world.pods[1], A)
        world.agent.start()
        await world.closes("a")
        await world.refused(1, A)  # So it is back.
        await world.refused(0, B)
        await world.opens("a")
        await world.reaches(1, A)
        connection.send(b"here")
        await world.until(lambda: _acknowledged(connection), "what is sent arrives")
    await world.until(lambda: any(e.what == "denied" for e in world.heard.events), "a denial is told")
    told = next(event for event in world.heard.events if event.what == "denied")
    assert (told.object, told.detail["peer_pod"]) == ("default/b", "default/a")
    assert told.detail["tier"] == "default"
    await world.until(lambda: world.heard.hits is not None and bool(world.heard.hits.hits), "it is counted")


def _acknowledged(connection: socket.socket) -> bool:
    """Nothing of what was sent is still on its way."""
    return bool(struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0] == 0)


async def _another_link(world: World) -> None:
    """The pod's own, as nobody else could be meant."""
    world.node.ip("link", "del", "veth-a")
    await world.until(lambda: "a" not in world.heard.endpoints, "its link is gone")
    bridged.port(world.node, world.pods[2], "veth-n", A)
    await world.until(lambda: world.heard.link("a") == "veth-n", "it is found again")
    await world.reaches(1, A)


async def _unknown(world: World) -> None:
    """From its first packet on, until the bus says whose address it is."""
    bridged.port(world.node, world.pods[3], "veth-c", NEW)
    assert not ping(world.pods[3], A, wait_s=REFUSED_S)
    assert not ping(world.pods[2], NEW, wait_s=REFUSED_S)
    assert ping(world.node, NEW), "its node reaches it"
    await world.tells("c", NEW)
    await world.reaches(3, A)
    await world.refused(3, B)


async def _booted(world: World) -> None:
    """No table is left, and no bus to be reached: nobody can say who the pods are."""
    world.agent.stop()
    world.node.run("nft", "flush", "ruleset")
    assert ping(world.pods[3], A)
    world.agent.start(TORTIE_NATS_URL=f"nats://{HUB}:1")
    await world.refused(3, A)
    assert ping(world.node, A), "its node reaches it"
