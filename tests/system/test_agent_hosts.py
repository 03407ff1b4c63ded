"""Host endpoints from the resource to the packets of a node, by the real services; and an agent that does not lock
itself out: the bus is behind the very device that it closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from bus_schemas.resources import FelixConfiguration, Resource
from bus_schemas.resources.calico_policy import CalicoRule, EntityRule, GlobalNetworkPolicy, GlobalNetworkPolicySpec
from bus_schemas.resources.configuration import FelixConfigurationSpec, ProtoPort
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.policy_scopes import HostEndpoint, HostEndpointSpec
from bus_schemas.subjects import DESIRED
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.health import Health
from chassis.settings import ServiceSettings
from tests.support import netns
from tests.support.agent import AgentProcess, ServiceProcess
from tests.support.netns import Namespace, listen, namespaces, tcp, veth

pytestmark = pytest.mark.root

HUB, NODE, SECOND = "10.0.0.254", "10.0.0.1", "10.0.0.50"
PORT = 8080


def host_endpoint(name: str, interface: str = "", *addresses: str) -> HostEndpoint:
    spec = HostEndpointSpec(node="node1", interface_name=interface, expected_ips=addresses)
    return HostEndpoint(metadata=Metadata(name=name, labels={"role": "node"}), spec=spec)


def felix(*inbound: ProtoPort) -> FelixConfiguration:
    spec = FelixConfigurationSpec(failsafe_inbound_host_ports=inbound or None)
    return FelixConfiguration(metadata=Metadata(name="default"), spec=spec)


WEB = CalicoRule(action="Allow", protocol="TCP", destination=EntityRule(ports=(PORT,)))
POLICY = GlobalNetworkPolicy(
    metadata=Metadata(name="web"), spec=GlobalNetworkPolicySpec(selector="role == 'node'", ingress=(WEB,))
)


class World:
    """The node, its agent, and the hub where everything else is."""

    def __init__(self, hub: Namespace, node: Namespace, bus: Bus, agent: AgentProcess) -> None:
        self.hub, self.node, self.bus, self.agent = hub, node, bus, agent

    async def apply(self, resource: Resource) -> None:
        await self.bus.put(DESIRED[type(resource)], resource.key, resource)

    async def delete(self, resource: Resource) -> None:
        await self.bus.delete(DESIRED[type(resource)], resource.key)

    async def opens(self, why: str, address: str = NODE) -> None:
        await until(lambda: tcp(self.hub, address, PORT, wait_s=0.2), f"open: {why}")

    async def closes(self, why: str, address: str = NODE) -> None:
        await until(lambda: not tcp(self.hub, address, PORT, wait_s=0.2), f"closed: {why}")


async def until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(netns.wait_for, condition, what, 20.0)


@pytest.fixture
def spaces() -> Iterator[tuple[Namespace, Namespace]]:
    with namespaces(2) as (hub, node), ExitStack() as stack:
        veth(node, "up0", hub, "node1", addresses=(f"{NODE}/24", f"{HUB}/24"))
        stack.enter_context(listen(node, "0.0.0.0", PORT))
        stack.enter_context(hub.inside())
        yield hub, node


@pytest.fixture
async def world(spaces: tuple[Namespace, Namespace], tmp_path: Path) -> AsyncIterator[World]:
    hub, node = spaces
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(EmbeddedNats(tmp_path / "nats", host=HUB))
        settings = ServiceSettings(nats_url=nats.url, health_listen="")
        bus = await stack.enter_async_context(Bus.connect(settings, name="test", health=Health()))
        await bus.connected()
        compiler = ServiceProcess("policy_compiler", tmp_path / "compiler.log", nats_url=nats.url, health_listen="")
        agent = AgentProcess("node1", node, nats.url, tmp_path)
        for process in (compiler, agent):
            process.start()
            stack.callback(process.stop)
        await until(Path(agent.socket).exists, "the agent listens")
        yield World(hub, node, bus, agent)


async def test_a_host_endpoint_closes_policy_opens_and_its_end_opens_all(world: World) -> None:
    await world.opens("nothing governs the device")
    endpoint = host_endpoint("up", "up0")
    await world.apply(endpoint)
    await world.closes("a host endpoint without policy")
    await world.apply(POLICY)
    await world.opens("by policy")
    await world.delete(POLICY)
    await world.closes("without it")
    await world.delete(endpoint)
    await world.opens("without the host endpoint")


async def test_an_agent_finds_back_to_the_bus_through_what_it_closed(world: World) -> None:
    endpoint = host_endpoint("all", "*")
    await world.apply(endpoint)
    await world.closes("a host endpoint without policy")
    world.agent.kill()
    await world.delete(endpoint)
    await world.closes("nobody is there to hear that it went")
    world.agent.start()
    await world.opens("by a connection that the new agent made")


async def test_failsafe_ports_and_addresses_are_live(world: World) -> None:
    await world.apply(host_endpoint("second", "", SECOND))
    await world.opens("no device carries the address")
    world.node.ip("address", "add", f"{SECOND}/24", "dev", "up0")
    await world.closes("the device carries the address now")
    await world.apply(felix(ProtoPort(protocol="tcp", port=PORT, net=f"{HUB}/32")))
    await world.opens("a failsafe port")
    await world.apply(felix())
    await world.closes("the failsafe ports that nobody wrote")
    world.node.ip("address", "delete", f"{SECOND}/24", "dev", "up0")
    await world.opens("the device carries the address no more")
