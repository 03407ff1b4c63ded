"""Policy for pods that others plugged in, on real packets: a bridge, its ports, a link of its own (see `bridged`)."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bus_schemas.ids import NodeName
from bus_schemas.policy import HostAttachment, Match
from bus_schemas.resources import Pod
from bus_schemas.resources.core import PodSpec, PodStatus
from bus_schemas.resources.metadata import Metadata
from bus_schemas.subjects import HOST_ATTACHMENT, Fact
from services.node_dataplane.found import veths
from services.node_dataplane.found.residents import Residents, View
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.nft.bridge import BridgeRules, Port
from services.node_dataplane.nft.bridge_driver import BridgeDriver
from services.node_dataplane.nft.by_address import ByAddress
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.table import NodeRules, PolicyTable
from tests.support import bridged
from tests.support.bridged import GATEWAY, arp_reply, datagram, ethernet, mac, send
from tests.support.netns import Namespace, bind_udp, listen, namespaces, ping, tcp, veth, wait_for
from tests.support.nft_worlds import NODE, OPEN, TCP, allow, attach, direction, pod, ports, rules, tell, tier

pytestmark = pytest.mark.root

A, B, C, NEW = "10.244.1.2", "10.244.1.3", "10.244.2.4", "10.244.1.9"
A6, B6 = "fd00:1::2", "fd00:1::3"
NETWORKS = ("10.244.1.0/24", "10.244.2.0/24", "fd00:1::/64")
WEB = Match(ports=ports(80))
NODE_ADDRESS = "192.168.0.1"
REFUSED_S = 0.1
"""How long to wait for what should not arrive."""


class Node:
    """What the agent does, without a bus."""

    def __init__(self, space: Namespace, a: Namespace, b: Namespace, c: Namespace, stack: ExitStack) -> None:
        self.space, self.a, self.b, self.c, self._stack = space, a, b, c, stack
        bridged.bridge(space)
        bridged.port(space, a, "veth-a", A, A6)
        bridged.port(space, b, "veth-b", B, B6)
        bridged.routed(space, c, "veth-c", C)
        self.residents = Residents(NodeName("node1"), NETWORKS)
        self.table = PolicyTable(NodeRules(pod_networks=NETWORKS), ByAddress())
        self.driver = stack.enter_context(space.call(NftDriver))
        self.bridge = stack.enter_context(space.call(BridgeDriver))
        self.socket = stack.enter_context(space.call(lambda: NetlinkSocket(NETLINK_ROUTE)))
        self.view = View({}, {}, frozenset(), frozenset())
        tell(self.table, rules("nothing"), rules("web", ingress=[allow(protocol=TCP, destination=WEB)]))

    def tells(self, name: str, *addresses: str) -> None:
        """As the bus has the pod."""
        status = PodStatus(phase="Running", pod_ips=addresses)
        resource = Pod(
            metadata=Metadata(name=name, namespace="default", uid="c1"),
            spec=PodSpec(node_name="node1"),
            status=status,
        )
        self.residents.set_pod(pod(name), resource)

    def look(self) -> None:
        self.residents.set_seen(veths.observe(self.socket))
        view = self.residents.flush()
        found = view.residents.values()
        bridge = (Port(r.veth.device, r.veth.mac, r.endpoint.addresses) for r in found if r.veth.master)
        self.bridge.commit(BridgeRules(frozenset(bridge), view.own))
        for gone in self.view.residents.keys() - view.residents.keys():
            self.table.remove_endpoint(gone)
        for key, one in view.residents.items():
            self.table.set_endpoint(
                key, one.veth.name, one.endpoint.addresses, "c1", device=one.device, bridged=one.bridged
            )
        self.table.set_pod_devices(view.devices)
        self.view = view
        self.settle()

    def settle(self) -> None:
        flush = self.table.flush()
        if flush.transaction is not None:
            self.driver.commit(flush.transaction)
            self.table.committed(flush.transaction)

    def attaches(self, name: str, ingress: str = "", egress: str = "") -> None:
        """The names of policies; everything, where there is none."""
        of = [direction(tier(policy)) if policy else OPEN for policy in (ingress, egress)]
        tell(self.table, attach(name, *of))
        self.settle()

    def all_known(self) -> None:
        for name, *addresses in (("a", A, A6), ("b", B, B6), ("c", C)):
            self.tells(name, *addresses)
            self.attaches(name)
        self.look()
        assert self.view.residents.keys() == {pod("a"), pod("b"), pod("c")}, self.view.missing

    def listens(self, space: Namespace, address: str, number: int) -> None:
        self._stack.enter_context(listen(space, address, number))

    def verified(self) -> list[str] | None:
        expected = self.table.expected()
        assert expected is not None
        return self.driver.verify(expected)


@pytest.fixture
def node() -> Iterator[Node]:
    with namespaces(4) as (space, a, b, c), ExitStack() as stack:
        yield Node(space, a, b, c, stack)


def silent(source: Namespace, address: str, number: int) -> bool:
    return not tcp(source, address, number, wait_s=REFUSED_S)


def test_who_is_not_known_is_closed_on_the_bridge_and_off_it(node: Node) -> None:
    for space, address in ((node.b, B), (node.c, C), (node.space, GATEWAY)):
        node.listens(space, address, 80)
    assert tcp(node.a, B, 80)  # Nothing is in the kernel yet.
    node.look()
    assert silent(node.a, B, 80)
    assert silent(node.a, GATEWAY, 80)
    assert silent(node.c, B, 80)
    assert tcp(node.space, B, 80)  # A node always reaches its own pods.
    assert tcp(node.space, C, 80)
    node.tells("a", A, A6)
    node.tells("b", B, B6)
    node.tells("c", C)
    node.look()
    assert silent(node.a, B, 80)  # Known, and without a policy.
    for name in "abc":
        node.attaches(name)
    assert tcp(node.a, B, 80)
    assert tcp(node.a, GATEWAY, 80)
    assert tcp(node.c, B, 80)
    assert tcp(node.b, C, 80)
    assert ping(node.a, B6)
    assert node.verified() == []


def test_without_a_word_about_networks_the_bridge_of_a_known_pod_is_closed(node: Node) -> None:
    node.residents = Residents(NodeName("node1"))
    node.table.set_node(NodeRules())
    for space, address in ((node.a, A), (node.b, B), (node.space, GATEWAY)):
        node.listens(space, address, 80)
    node.tells("a", A, A6)
    node.attaches("a")
    node.look()
    assert tcp(node.a, GATEWAY, 80)
    assert silent(node.a, B, 80)
    assert silent(node.b, A, 80)
    assert silent(node.b, GATEWAY, 80)
    assert tcp(node.c, A, 80), "c is behind no device of pods, and a lets everybody in"


def test_policy_decides_between_ports_of_one_bridge(node: Node) -> None:
    node.all_known()
    for number in (80, 81):
        node.listens(node.b, B, number)
        node.listens(node.b, B6, number)
        node.listens(node.a, A, number)
    node.attaches("b", ingress="web")
    for address in (B, B6):
        assert tcp(node.a, address, 80)
        assert silent(node.a, address, 81)
    assert silent(node.c, B, 81)
    node.attaches("b", egress="nothing")
    assert silent(node.b, A, 80)
    assert tcp(node.a, B, 81)
    assert node.verified() == []


def test_a_pod_cannot_be_another_one(node: Node) -> None:
    node.all_known()
    node.listens(node.b, B, 80)
    for space, address in ((node.a, C), (node.c, A)):
        space.ip("address", "add", f"{address}/32", "dev", "lo")
        assert not ping(space, B, source=address, wait_s=REFUSED_S)
        space.ip("address", "del", f"{address}/32", "dev", "lo")
    own, victim, gateway = mac(node.a), mac(node.b), mac(node.space, "cni0")
    lies = (
        ethernet(gateway, own, 0x0806, arp_reply(own, B, gateway, GATEWAY)),  # I have b's address.
        ethernet(victim, own, 0x0806, arp_reply(own, GATEWAY, victim, B)),  # I am the gateway.
        ethernet(gateway, victim, 0x0800, datagram(B, GATEWAY, 9, b"x")),  # I have b's MAC.
    )
    for lie in lies:
        send(node.a, lie)
    assert tcp(node.c, B, 80)  # Still b.
    entries = node.space.run("bridge", "fdb", "show", "br", "cni0").splitlines()
    assert [line for line in entries if line.startswith(f"{victim.hex(':')} dev veth-b")]
    wait_for(lambda: spoofed(node) >= len(lies) + 1, "all of them were counted")


def spoofed(node: Node) -> int:
    listing = node.space.run("nft", "list", "counter", "bridge", "tortie", "spoofed").split()
    return int(listing[listing.index("packets") + 1])


def test_a_tag_does_not_lead_past_the_policy(node: Node) -> None:
    node.all_known()
    node.attaches("b", ingress="web")
    with bind_udp(node.b, B, 9) as server:
        frame = ethernet(mac(node.b), mac(node.a), 0x0800, datagram(A, B, 9, b"x"), vlan=0)
        node.bridge.clear()
        send(node.a, frame)
        assert select.select([server], [], [], 1)[0], "this kernel takes such a frame, and shows it to no policy"
        server.recv(100)
        node.look()
        send(node.a, frame)
        assert not select.select([server], [], [], REFUSED_S)[0]


def test_a_link_of_a_moment_ago_has_nobody_elses_address(node: Node) -> None:
    """Before anybody has looked: the port is not known, the address that it uses is."""
    node.all_known()
    node.listens(node.b, B, 80)
    with namespaces(1) as (thief,):
        bridged.port(node.space, thief, "veth-t", NEW)
        thief.ip("address", "add", f"{A}/32", "dev", "lo")
        assert silent(thief, B, 80)
        assert not ping(thief, B, source=A, wait_s=REFUSED_S)
        node.look()
        assert silent(thief, B, 80)


def test_an_address_that_changes_hands_is_closed_in_between(node: Node) -> None:
    node.all_known()
    node.listens(node.b, B, 80)
    node.space.ip("link", "del", "veth-a")
    node.look()
    assert pod("a") in node.view.missing
    with namespaces(1) as (heir,):
        bridged.port(node.space, heir, "veth-h", A, A6)
        node.tells("heir")  # On the node, and its address not told yet.
        node.look()
        assert node.view.residents.keys() == {pod("b"), pod("c")}
        assert silent(heir, B, 80)
        node.residents.set_pod(pod("a"), None)
        node.tells("heir", A, A6)
        node.look()
        assert silent(heir, B, 80)
        node.attaches("heir")
        wait_for(lambda: tcp(heir, B, 80), "it is open")  # As soon as b asks anew at which MAC the address is.


def test_the_host_endpoint_of_all_devices_is_not_asked_about_pods(node: Node) -> None:
    node.all_known()
    with namespaces(1) as (world,):
        veth(node.space, "up0", world, "up0", addresses=(f"{NODE_ADDRESS}/24", "192.168.0.9/24"))
        node.listens(node.space, NODE_ADDRESS, 80)
        assert tcp(world, NODE_ADDRESS, 80)
        closed = HostAttachment(node=NODE, name="all", interface="*", ingress=direction(default="deny"), egress=OPEN)
        tell(node.table, Fact(HOST_ATTACHMENT, (NODE, "all"), closed))
        node.settle()
        assert silent(world, NODE_ADDRESS, 80)
        assert tcp(node.a, NODE_ADDRESS, 80)
        assert tcp(node.c, NODE_ADDRESS, 80)
        node.attaches("a", egress="nothing")
        assert silent(node.a, NODE_ADDRESS, 80)
        assert node.verified() == []


def test_what_somebody_did_to_the_bridges_table_is_undone(node: Node) -> None:
    node.all_known()
    assert not node.bridge.repair()
    for harm in ("flush chain bridge tortie known", "delete table bridge tortie"):
        node.space.run("nft", *harm.split())
        assert node.bridge.repair()
        assert not node.bridge.repair()
    assert ping(node.a, B)
