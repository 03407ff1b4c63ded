"""Two nodes with their agents and the real services: the smallest cluster that has everything."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from bus_schemas.ids import PodKey
from bus_schemas.resources import IPPool, Namespace, Node, Pod, Resource
from bus_schemas.resources.core import NodeBgp, NodeSpec
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.subjects import DESIRED
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.health import Health
from chassis.settings import ServiceSettings
from services.node_dataplane.bird.process import BirdProcess
from tests.support import netns
from tests.support.agent import AgentProcess, ServiceProcess
from tests.support.netns import namespaces, ping

Spaces = tuple[tuple[netns.Namespace, ...], tuple[netns.Namespace, ...]]
"""Of the nodes, and of the pods."""
HUB = "10.0.0.254"
WEB, CLIENT = PodKey("default", "web"), PodKey("default", "client")


async def until(condition: Callable[[], bool], what: str, deadline_s: float = 90.0) -> None:
    """Wait for a condition of the kernel."""
    await asyncio.to_thread(netns.wait_for, condition, what, deadline_s)


class Cluster:
    """A hub with the bus and the services, in which the test stands, two nodes on one subnet, and two pods."""

    def __init__(self, directory: Path, nodes: tuple[netns.Namespace, ...], pods: tuple[netns.Namespace, ...]) -> None:
        self.directory = directory
        self.nodes = nodes
        self.pods = pods
        self.nats = EmbeddedNats(directory / "nats", host=HUB)
        self.bus: Bus
        self.services: list[ServiceProcess] = []
        self.agents: list[AgentProcess] = []

    async def apply(self, resource: Resource) -> None:
        await self.bus.put(DESIRED[type(resource)], resource.key, resource)

    async def pool(self, mode: str = "Never") -> None:
        spec = IPPoolSpec(cidr="10.244.0.0/16", nat_outgoing=True, vxlan_mode=mode)  # type: ignore[arg-type]
        await self.apply(IPPool(metadata=Metadata(name="default"), spec=spec))

    async def add(self, number: int, pod: PodKey, **conf: Any) -> str:
        """Plug pod `number` into node `number`; its address."""
        return address_of(await self.adds(number, pod, **conf))

    async def adds(self, number: int, pod: PodKey, **conf: Any) -> dict[str, Any]:
        """The same; its result."""
        code, answer = await self.asks(number, pod, **conf)
        assert code == 0, f"{answer}\n{self.agents[number].log()}"
        return answer

    async def asks(self, number: int, pod: PodKey, **conf: Any) -> tuple[int, dict[str, Any]]:
        return await asyncio.to_thread(self.agents[number].cni, "ADD", pod.name, self.pods[number], pod, **conf)

    async def annotate(self, pod: PodKey, annotations: Mapping[str, str], **labels: str) -> None:
        """A Pod resource; the names begin with `cni.projectcalico.org/`."""
        said = {f"cni.projectcalico.org/{name}": text for name, text in annotations.items()}
        meta = Metadata(name=pod.name, namespace=pod.namespace, annotations=said, labels=labels)
        await self.apply(Pod(metadata=meta))

    async def both(self) -> tuple[str, str]:
        web = await self.add(0, WEB)
        client = await self.add(1, CLIENT)
        await self.reach(1, web)
        await self.reach(0, client)
        return web, client

    async def reach(self, number: int, address: str) -> None:
        await until(lambda: ping(self.pods[number], address, wait_s=0.2), f"pod {number} reaches {address}")


def end_bird(directory: Path) -> None:
    """It goes on without its agent."""
    pid = BirdProcess(directory).pid()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)


def address_of(result: Mapping[str, Any]) -> str:
    return str(result["ips"][0]["address"]).partition("/")[0]


@asynccontextmanager
async def cluster_of(
    directory: Path, nodes: tuple[netns.Namespace, ...], pods: tuple[netns.Namespace, ...], **of_agents: str
) -> AsyncIterator[Cluster]:
    """`of_agents`: settings of the agents."""
    made = Cluster(directory, nodes, pods)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(made.nats)
        settings = ServiceSettings(nats_url=made.nats.url, health_listen="")
        made.bus = await stack.enter_async_context(Bus.connect(settings, name="test", health=Health()))
        await made.bus.connected()
        for name in ("ipam", "route_distribution", "policy_compiler"):
            service = ServiceProcess(name, directory / f"{name}.log", nats_url=made.nats.url, health_listen="")
            service.start()
            stack.callback(service.stop)
            made.services.append(service)
        await made.apply(Namespace(metadata=Metadata(name="default")))
        for number, node in enumerate(nodes):
            name = f"node{number + 1}"
            spec = NodeSpec(bgp=NodeBgp(ipv4_address=f"10.0.0.{number + 1}/24"))
            await made.apply(Node(metadata=Metadata(name=name), spec=spec))
            stack.callback(end_bird, directory / name / "bird")
            agent = AgentProcess(name, node, made.nats.url, directory, **of_agents)
            agent.start()
            stack.callback(agent.stop)
            made.agents.append(agent)
        for pod in (WEB, CLIENT):
            await made.apply(Pod(metadata=Metadata(name=pod.name, namespace=pod.namespace)))
        for agent in made.agents:
            await until(Path(agent.socket).exists, f"{agent.node} listens")
        yield made


@contextmanager
def two_nodes() -> Iterator[Spaces]:
    """The test stands in the hub; two nodes on its bridge, and the namespaces of two pods."""
    with ExitStack() as stack:
        hub, *rest = stack.enter_context(namespaces(5))
        nodes, pods = tuple(rest[:2]), tuple(rest[2:])
        hub.ip("link", "add", "br0", "type", "bridge")
        hub.ip("address", "add", f"{HUB}/24", "dev", "br0")
        hub.ip("link", "set", "br0", "up")
        for number, node in enumerate(nodes, 1):
            netns.veth(node, "up0", hub, f"node{number}", addresses=(f"10.0.0.{number}/24", ""))
            hub.ip("link", "set", f"node{number}", "master", "br0")
            node.ip("route", "add", "default", "via", HUB)
        stack.enter_context(hub.inside())
        yield nodes, pods
