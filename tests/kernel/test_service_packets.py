"""Service addresses with real packets: who answers, and whom the endpoint sees."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from bus_schemas.subjects import Fact
from chassis.health import Health
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.frame import NodeRules
from services.node_dataplane.nft.table import PolicyTable
from services.node_dataplane.service_proxy.core import Changes, ServiceProxy
from services.node_dataplane.service_proxy.forgetting import StaleConnections
from tests.support.netns import Namespace, bind_udp, connect, listen, namespaces, tcp, udp, veth
from tests.support.nft_worlds import attach, plug
from tests.support.nft_worlds import tell as tell_table
from tests.support.service_worlds import NODE, endpoint, gone, port, service, slice_of

pytestmark = pytest.mark.root

NODE_ADDRESS, OUTSIDE = "192.168.9.1", "192.168.9.2"
PODS = {"a": ("10.244.0.1", "fd00::1"), "b": ("10.244.0.2", "fd00::2")}
FAR = "10.244.9.1"
"""A pod elsewhere: the outside namespace plays the other node, too, and answers what comes from this one's address."""


@dataclass
class World:
    node: Namespace
    out: Namespace
    pods: dict[str, Namespace]
    driver: NftDriver
    proxy: ServiceProxy = field(default_factory=lambda: ServiceProxy(NODE))
    table: PolicyTable = field(init=False)
    listeners: dict[tuple[str, int], socket.socket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pools = ("10.244.0.0/16", "fd00::/48")
        self.table = PolicyTable(NodeRules(masquerade_pools=pools, all_pools=pools), services=True)
        for name, addresses in PODS.items():
            plug(self.table, name, *addresses)
            tell_table(self.table, attach(name))
        self.proxy.set_node_addresses([ip_address(NODE_ADDRESS).packed])

    def change(self, *facts: Fact) -> Changes:
        """Into the kernel, which then holds what it should."""
        for fact in facts:
            assert self.proxy.apply(fact)
        changes = self.proxy.flush()
        self.table.set_services(changes)
        transaction = self.table.flush().transaction
        if transaction is not None:
            self.driver.commit(transaction)
            self.table.committed(transaction)
        expected = self.table.expected()
        assert expected is not None
        with self.node.inside():
            assert self.driver.verify(expected) == []
        return changes

    def serve(self, where: Namespace, address: str, number: int) -> None:
        self.listeners[address, number] = listen(where, address, number)

    def ask(self, client: Namespace, address: str, number: int) -> tuple[str, str] | str:
        """(who answered, whom it saw); or `refused`, or nothing at all."""
        try:
            made = connect(client, address, number)
        except ConnectionRefusedError:
            return "refused"
        if made is None:
            return ""
        own = made.getsockname()[1]
        found = ""
        with made:
            for (there, _), listener in self.listeners.items():
                listener.setblocking(False)
                try:
                    while True:
                        accepted, peer = listener.accept()
                        accepted.close()
                        found = found or there
                        seen = peer
                except BlockingIOError:
                    continue
        assert found, f"nobody had the connection from port {own}"
        return found, str(seen[0])


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        node, out, *pods = stack.enter_context(namespaces(2 + len(PODS)))
        for pod, (name, (four, six)) in zip(pods, PODS.items(), strict=True):
            veth(node, f"tor{name}", pod, "eth0")
            pod.ip("address", "add", f"{four}/32", "dev", "eth0")
            pod.ip("address", "add", f"{six}/128", "dev", "eth0", "nodad")
            pod.ip("route", "add", "169.254.1.1", "dev", "eth0")
            pod.ip("route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
            node.sysctl(f"net.ipv4.conf.tor{name}.proxy_arp", 1)
            node.sysctl(f"net.ipv4.neigh.tor{name}.proxy_delay", 0)
            node.ip("address", "add", "fe80::1", "dev", f"tor{name}", "nodad")
            pod.ip("-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
            node.ip("route", "add", four, "dev", f"tor{name}")
            node.ip("-6", "route", "add", six, "dev", f"tor{name}")
        veth(node, "eth0", out, "eth0", addresses=(f"{NODE_ADDRESS}/24", f"{OUTSIDE}/24"))
        node.forward()
        node.ip("route", "add", "default", "via", OUTSIDE)
        out.ip("address", "add", f"{FAR}/32", "dev", "lo")
        for network in ("10.96.0.0/16", "198.51.100.0/24", "10.244.0.0/24"):
            out.ip("route", "add", network, "via", NODE_ADDRESS)
        driver = stack.enter_context(node.call(NftDriver))
        made = World(node, out, dict(zip(PODS, pods, strict=True)), driver)
        for name, (four, six) in PODS.items():
            made.serve(made.pods[name], four, 8080)
            made.serve(made.pods[name], six, 8080)
        made.serve(out, FAR, 8080)
        yield made
        for listener in made.listeners.values():
            listener.close()


def test_cluster_addresses(world: World) -> None:
    a = world.pods["a"]
    (a4, a6), (b4, b6) = PODS.values()
    world.change(
        service("web", "10.96.0.1", "fd96::1"),
        slice_of("web", b4),
        slice_of("web", b6, family="IPv6", number=1),
        service("self", "10.96.0.2", "fd96::2"),
        slice_of("self", a4),
        slice_of("self", a6, family="IPv6", number=1),
        service("far", "10.96.0.3"),
        slice_of("far", endpoint(FAR, "node2")),
        service("empty", "10.96.0.4", "fd96::4", ports=("tcp/80", "udp/80")),
        service("here", "10.96.0.5", internal_traffic_policy="Local"),
        slice_of("here", endpoint(FAR, "node2")),
    )
    assert world.ask(a, "10.96.0.1", 80) == (b4, a4)
    assert world.ask(a, "fd96::1", 80) == (b6, a6)
    assert world.ask(a, "10.96.0.3", 80) == (FAR, a4), "a pod is itself, also to a pod elsewhere"
    assert world.ask(world.node, "10.96.0.1", 80) == (b4, NODE_ADDRESS)
    assert world.ask(world.out, "10.96.0.1", 80) == (b4, OUTSIDE), "the endpoint is here, so the answer comes by here"
    there, seen = world.ask(a, "10.96.0.2", 80)
    assert (there, seen) == (a4, NODE_ADDRESS), "a pod that reaches itself must not answer itself"
    assert world.ask(a, "fd96::2", 80)[0] == a6
    for client in (a, world.node, world.out):
        assert world.ask(client, "10.96.0.4", 80) == "refused"
        assert world.ask(client, "10.96.0.1", 81) == "refused", "an address, but no port of the service"
    assert world.ask(a, "fd96::4", 80) == "refused"
    assert world.ask(a, "10.96.0.5", 80) == "", "Local, and none here"
    assert unreachable(a, "10.96.0.4", 80)
    world.change(gone(service("web")))
    assert world.ask(a, "10.96.0.1", 80) != (b4, a4)


def unreachable(client: Namespace, address: str, number: int) -> bool:
    """UDP is answered by ICMP port unreachable."""
    with client.inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        sender.settimeout(5)
        sender.connect((address, number))
        sender.send(b"?")
        try:
            sender.recv(1)
        except ConnectionRefusedError:
            return True
    return False


def test_from_outside(world: World) -> None:
    (a4, _), (b4, _) = PODS.values()

    def web(policy: str) -> Fact:
        return service(
            "web",
            "10.96.0.1",
            ports=(port("tcp/80", 30080),),
            type="LoadBalancer",
            external_ips=("198.51.100.1",),
            balanced=("198.51.100.2",),
            load_balancer_source_ranges=("10.244.0.0/16",),
            external_traffic_policy=policy,
        )

    a, outside = world.pods["a"], world.out
    world.change(web("Cluster"), slice_of("web", b4))
    for address, number in ((NODE_ADDRESS, 30080), ("198.51.100.1", 80)):
        assert world.ask(outside, address, number) == (b4, OUTSIDE)
        assert world.ask(a, address, number) == (b4, a4)
        assert world.ask(world.node, address, number)[0] == b4
    assert world.ask(a, "198.51.100.2", 80) == (b4, a4)
    assert world.ask(outside, "198.51.100.2", 80) == "", "not of loadBalancerSourceRanges"
    world.change(slice_of("web", endpoint(FAR, "node2")))
    assert world.ask(outside, NODE_ADDRESS, 30080) == (FAR, NODE_ADDRESS), "else the answer would pass this node by"
    world.change(web("Local"))
    assert world.ask(outside, NODE_ADDRESS, 30080) == ""
    assert world.ask(a, NODE_ADDRESS, 30080) == (FAR, a4)
    assert world.ask(world.node, "198.51.100.1", 80)[0] == FAR
    world.change(slice_of("web", b4, endpoint(FAR, "node2")))
    assert {world.ask(outside, "198.51.100.1", 80) for _ in range(6)} == {(b4, OUTSIDE)}


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_client_stays_with_its_endpoint(world: World, family: str) -> None:
    six = family == "IPv6"
    ip, there = (
        ("fd96::1", [own[1] for own in PODS.values()]) if six else ("10.96.0.1", [own[0] for own in PODS.values()])
    )
    sticky = service("web", ip, session_affinity="ClientIP", session_affinity_timeout_s=100)
    world.change(sticky, slice_of("web", *there, family=family))
    client = world.pods["a"]
    first, _ = world.ask(client, ip, 80)
    assert {world.ask(client, ip, 80)[0] for _ in range(8)} == {first}
    (other,) = set(there) - {first}
    world.change(slice_of("web", other, family=family))
    assert {world.ask(client, ip, 80)[0] for _ in range(2)} == {other}
    world.change(slice_of("web", *there, family=family))
    assert {world.ask(client, ip, 80)[0] for _ in range(8)} == {other}, "it stays with the new one"


async def test_datagrams_do_not_go_on_to_an_endpoint_that_went(world: World) -> None:
    (a4, _), (b4, _) = PODS.values()
    a, b = world.pods.values()
    dns = service("dns", "10.96.0.10", ports=("udp/53",))
    world.change(dns, slice_of("dns", b4, ports=("udp/5353",)))
    with (
        bind_udp(b, b4, 5353) as old,
        bind_udp(a, a4, 5353) as new,
        world.node.call(lambda: StaleConnections(Health())) as stale,
    ):
        assert udp(world.out, old, "10.96.0.10", 53, source=OUTSIDE) == OUTSIDE
        with world.out.inside():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.bind((OUTSIDE, 0))
            sender.sendto(b"1", ("10.96.0.10", 53))
            old.settimeout(5)
            assert old.recv(8) == b"1"
            changes = world.change(slice_of("dns", a4, ports=("udp/5353",)))
            stale.forget(changes.frontends)
            sender.sendto(b"2", ("10.96.0.10", 53))
            new.settimeout(5)
            assert new.recv(8) == b"2"


def test_a_damaged_table_is_seen_and_a_restart_adopts(world: World) -> None:
    b4 = PODS["b"][0]
    facts = (service("web", "10.96.0.1", session_affinity="ClientIP"), slice_of("web", b4), service("x", "10.96.0.2"))
    more = slice_of("x", b4, PODS["a"][0])
    world.change(*facts, more)
    assert tcp(world.pods["a"], "10.96.0.1", 80), "a client is remembered now"
    again = World(world.node, world.out, world.pods, world.driver)
    for fact in reversed((*facts, more)):
        again.proxy.apply(fact)
    again.table.set_services(again.proxy.flush())
    transaction = again.table.whole()
    again.table.committed(transaction)
    again.driver.adopt(transaction)
    expected = again.table.expected()
    assert expected is not None
    with world.node.inside():
        assert again.driver.verify(expected) == [], "another life would write the same table"
        world.node.run("nft", "delete element inet tortie services4 { 10.96.0.2 . tcp . 80 }")
        world.node.run("nft", "flush chain inet tortie service_reject")
        world.node.run("nft", "add element inet tortie backends4 { 10.96.0.9 . tcp . 80 . 0 : 10.1.1.1 . 80 }")
        assert sorted(again.driver.verify(expected) or ()) == [
            "map backends4 holds 10.96.0.9 . 6 . 80 . 0, which is not ours",
            "map services4 lacks 10.96.0.2 . 6 . 80",
            "the rules of chain service_reject were changed",
        ]
