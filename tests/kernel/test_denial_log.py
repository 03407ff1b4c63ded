"""What the kernel hands out of denied packets, and what becomes of it.

pod --- tora [ node ]       10.244.0.5, fd00::5; the node has 10.0.0.1 and denies everything
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName, RulesId
from chassis.health import Health
from services.node_dataplane import denial_log
from services.node_dataplane.denial_log import CAUSE, DenialLog
from services.node_dataplane.denials import Told
from services.node_dataplane.endpoint_store import EndpointStore, Plugin
from services.node_dataplane.netlink import nflog
from services.node_dataplane.netlink.wire import NETLINK_NETFILTER, NetlinkSocket
from services.node_dataplane.nft.attribution import Denial
from tests.support.netns import Namespace, namespaces, veth
from tests.support.waiting import eventually

pytestmark = pytest.mark.root

POD, POD6, NODE, NODE6 = "10.244.0.5", "fd00::5", "10.244.0.1", "fd00::1"
PREFIX = "tortie denied egress abc"
DENIAL = Denial("denied", "egress", RulesId("networkpolicy/default/web"), index=1, tier="default")
RULES = f"""
add table inet tortie
add chain inet tortie input {{ type filter hook input priority 0; }}
add rule inet tortie input meta l4proto 58 accept
add rule inet tortie input iifname "tora" log prefix "{PREFIX}" group {nflog.GROUP} snaplen 128
add rule inet tortie input iifname "tora" drop
"""


class Node:
    def __init__(self, node: Namespace, pod: Namespace, directory: Path) -> None:
        self.namespace, self.pod = node, pod
        veth(node, "tora", pod, "eth0", addresses=(f"{NODE}/24", f"{POD}/24"))
        node.ip("address", "add", f"{NODE6}/64", "dev", "tora", "nodad")
        pod.ip("address", "add", f"{POD6}/64", "dev", "eth0", "nodad")
        node.run("nft", "-f", "-", text=RULES)
        self.health = Health()
        self.events: list[Told] = []
        self.store = EndpointStore(directory)
        endpoint = Endpoint(
            node=NodeName("node1"),
            namespace="default",
            name="client",
            container="c",
            link="tora",
            addresses=(POD, POD6),
        )
        self.store.put(Plugin(endpoint=endpoint, handle=HandleId("h"), interface="eth0", netns="", mac="", mtu=1500))

    @asynccontextmanager
    async def listening(self, most_per_s: int = 100) -> AsyncIterator[None]:
        log = DenialLog(
            NodeName("node1"),
            meaning={PREFIX: DENIAL}.get,
            title=lambda rules: "NetworkPolicy/default/web",
            store=self.store,
            host_endpoint=lambda device: "",
            health=self.health,
            tell=self.events.append,
            most_per_s=most_per_s,
        )
        with self.namespace.inside():
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(log.run())
                await asyncio.sleep(0)  # It has bound the group.
                yield
                running.cancel()

    def send(self, address: str, port: int, times: int = 1) -> None:
        with self.pod.inside():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sender = socket.socket(family, socket.SOCK_DGRAM)
        with sender:
            for _ in range(times):
                sender.sendto(b"x", (address, port))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with namespaces(2) as (node, pod):
        yield Node(node, pod, tmp_path)


@pytest.mark.parametrize(("source", "destination"), [(POD, NODE), (POD6, NODE6)], ids=["IPv4", "IPv6"])
async def test_a_denied_packet_is_an_event(node: Node, source: str, destination: str) -> None:
    async with node.listening():
        node.send(destination, 53)
        await eventually(lambda: node.events)
    event = node.events[0]
    assert (event.what, event.object) == ("denied", "default/client")
    assert event.detail["peer"] == destination
    assert (event.detail["protocol"], event.detail["port"]) == ("UDP", "53")
    assert (event.detail["policy"], event.detail["rule"]) == ("NetworkPolicy/default/web", "1")
    assert not node.health.notes


async def test_repetitions_are_not_events(node: Node) -> None:
    async with node.listening():
        node.send(NODE, 53, times=20)
        node.send(NODE, 54)
        await eventually(lambda: len(node.events) > 1)
    assert [event.detail["port"] for event in node.events] == ["53", "54"]


async def test_a_flood_is_survived(node: Node) -> None:
    async with node.listening(most_per_s=3):
        before = denial_log.UNTOLD._value.get()
        for port in range(1000, 3000):
            node.send(NODE, port)
        await eventually(lambda: denial_log.UNTOLD._value.get() > before)
        assert len(node.events) < 100
        assert not node.health.notes


async def test_an_overrun_of_the_socket_is_counted_and_survived(node: Node) -> None:
    async with node.listening():
        before = denial_log.OVERRUNS._value.get()
        # The event loop is not running while this sends: the socket's buffer has to take it all.
        node.send(NODE, 53, times=40_000)
        await eventually(lambda: denial_log.OVERRUNS._value.get() > before)

        def heard_again() -> bool:
            node.send(NODE, 99)
            return any(event.detail.get("port") == "99" for event in node.events)

        await eventually(heard_again)


async def test_another_listener_is_named_and_its_end_awaited(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denial_log, "RETRY_S", 0.01)
    with node.namespace.inside():
        other = NetlinkSocket(NETLINK_NETFILTER)
    assert not any(other.transact(nflog.bind()))
    async with node.listening():
        await eventually(lambda: "another process listens" in node.health.notes.get(CAUSE, ""))
        assert node.health.ready
        other.close()
        await eventually(lambda: CAUSE not in node.health.notes)
        node.send(NODE, 53)
        await eventually(lambda: node.events)


async def test_switched_off_it_leaves_the_group_alone(node: Node) -> None:
    async with node.listening(most_per_s=0):
        with node.namespace.inside(), NetlinkSocket(NETLINK_NETFILTER) as other:
            assert not any(other.transact(nflog.bind()))
