"""The table's verdicts on real packets between namespaces.

pod a --- tora [        ]       10.244.0.1, fd00::1
pod b --- torb [  node  ]       10.244.0.2, fd00::2
world --- up   [        ] up    192.168.0.9; it has no route to the pods, so it answers only what was masqueraded
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from bus_schemas.policy import Direction, Icmp, Match, Rule
from services.node_dataplane.nft.driver import NftDriver
from services.node_dataplane.nft.table import NodeRules, PolicyTable
from tests.support.netns import Namespace, bind_udp, connect, listen, namespaces, ping, tcp, udp, veth, wait_for
from tests.support.nft_evaluator import Nftables, Packet
from tests.support.nft_worlds import (
    OPEN,
    TCP,
    UDP,
    allow,
    attach,
    direction,
    group,
    groups,
    link,
    plug,
    ports,
    rules,
    tell,
    tier,
)

pytestmark = pytest.mark.root

A, B, A6, B6 = "10.244.0.1", "10.244.0.2", "fd00::1", "fd00::2"
NODE, WORLD = "192.168.0.1", "192.168.0.9"
GATEWAY6 = "fe80::ecee:eeff:feee:eeee"
MAC = "ee:ee:ee:ee:ee:ee"
REFUSED_S = 0.1
"""How long to wait for what should not arrive: delivery between two ends of a link takes microseconds."""
SETTINGS = NodeRules(
    masquerade_pools=("10.244.0.0/16",), all_pools=("10.244.0.0/16", "fd00::/48"), nodes=(NODE,), vxlan_port=4789
)


class Lab:
    def __init__(self, node: Namespace, a: Namespace, b: Namespace, world: Namespace, stack: ExitStack) -> None:
        self.node, self.a, self.b, self.world = node, a, b, world
        node.forward()
        veth(node, "uplink", world, "uplink", addresses=(f"{NODE}/24", f"{WORLD}/24"))
        for pod, name, address, address6 in ((a, "a", A, A6), (b, "b", B, B6)):
            self._plug(pod, name, address, address6)
        self.table = PolicyTable(SETTINGS)
        self.driver = stack.enter_context(node.call(NftDriver))
        self._keep = stack
        tell(self.table, rules("nothing"))

    def _plug(self, pod: Namespace, name: str, address: str, address6: str) -> None:
        veth(self.node, link(name), pod, "eth0")
        self.node.ip("link", "set", link(name), "address", MAC)
        self.node.ip("address", "add", f"{GATEWAY6}/64", "dev", link(name), "nodad")
        self.node.ip("route", "add", address, "dev", link(name))
        self.node.ip("route", "add", address6, "dev", link(name))
        pod.ip("address", "add", f"{address}/32", "dev", "eth0")
        pod.ip("address", "add", f"{address6}/128", "dev", "eth0", "nodad")
        pod.ip("route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
        pod.ip("neighbour", "add", "169.254.1.1", "lladdr", MAC, "dev", "eth0")
        pod.ip("route", "add", "default", "via", "169.254.1.1")
        pod.ip("route", "add", "default", "via", GATEWAY6, "dev", "eth0")

    def policy(self, a: tuple[str, str] = ("", ""), b: tuple[str, str] = ("", "")) -> None:
        """(ingress, egress) of each pod: the name of a policy, or nothing for everything."""
        for name, (ingress, egress) in (("a", a), ("b", b)):
            plug(self.table, name, *((A, A6) if name == "a" else (B, B6)))
            tell(self.table, attach(name, _by(ingress), _by(egress)))
        self.settle()

    def settle(self) -> None:
        flush = self.table.flush()
        if flush.transaction is not None:
            self.driver.commit(flush.transaction)
            self.table.committed(flush.transaction)

    def listen(self, namespace: Namespace, address: str, port: int) -> None:
        self._keep.enter_context(listen(namespace, address, port))

    def bind(self, namespace: Namespace, address: str, port: int) -> socket.socket:
        return self._keep.enter_context(bind_udp(namespace, address, port))

    def dropped(self, counter: str) -> int:
        return self.driver.counters()[counter].packets


def _by(policy: str) -> Direction:
    return direction(tier(policy)) if policy else OPEN


@pytest.fixture
def lab() -> Iterator[Lab]:
    with namespaces(4) as (node, a, b, world), ExitStack() as stack:
        yield Lab(node, a, b, world, stack)


def reaches(source: Namespace, address: str, port: int) -> bool:
    return tcp(source, address, port)


def refused(source: Namespace, address: str, port: int) -> bool:
    return not tcp(source, address, port, wait_s=REFUSED_S)


def test_a_pod_is_closed_until_its_policy_is_there(lab: Lab) -> None:
    lab.listen(lab.b, B, 80)
    plug(lab.table, "a", A, A6)
    plug(lab.table, "b", B, B6)
    lab.settle()
    assert refused(lab.a, B, 80)
    assert lab.dropped("no_policy_egress")
    tell(lab.table, attach("a"))
    lab.settle()
    assert refused(lab.a, B, 80)
    assert lab.dropped("no_policy_ingress")
    tell(lab.table, attach("b"))
    lab.settle()
    assert reaches(lab.a, B, 80)


def test_both_directions_decide(lab: Lab) -> None:
    lab.listen(lab.b, B, 80)
    lab.listen(lab.a, A, 80)
    lab.policy(b=("nothing", ""))
    assert refused(lab.a, B, 80)
    assert reaches(lab.b, A, 80)
    lab.policy(b=("", "nothing"))
    assert reaches(lab.a, B, 80)
    assert refused(lab.b, A, 80)


@pytest.mark.parametrize(("source", "destination"), [(A, B), (A6, B6)], ids=["IPv4", "IPv6"])
def test_members_come_and_go_and_established_connections_stay(lab: Lab, source: str, destination: str) -> None:
    lab.listen(lab.b, destination, 80)
    lab.listen(lab.b, destination, 81)
    web = allow(protocol=TCP, source=Match(groups=groups("s:a")), destination=Match(ports=ports(80)))
    tell(lab.table, rules("web", ingress=[web]), group("s:a"))
    lab.policy(b=("web", ""))
    assert refused(lab.a, destination, 80)
    tell(lab.table, group("s:a", source))
    lab.settle()
    assert reaches(lab.a, destination, 80)
    assert refused(lab.a, destination, 81)
    with listen(lab.b, destination, 8080) as listener:
        tell(lab.table, rules("web", ingress=[allow(protocol=TCP, source=Match(groups=groups("s:a")))]))
        lab.settle()
        client = connect(lab.a, destination, 8080)
        assert client is not None
        with client, listener.accept()[0] as served:
            served.settimeout(1)
            client.sendall(b"before")
            assert served.recv(100) == b"before"
            tell(lab.table, group("s:a"))
            lab.settle()
            client.sendall(b"after")
            assert served.recv(100) == b"after"
            whole = lab.table.whole()
            lab.driver.commit(whole)
            lab.table.committed(whole)
            client.sendall(b"restarted")
            assert served.recv(100) == b"restarted"
    assert refused(lab.a, destination, 80)


RULES = {
    "everything": Rule(action="allow"),
    "udp": allow(protocol=UDP),
    "another protocol": allow(protocol=TCP),
    "all but udp": Rule(action="allow", not_protocol=UDP),
    "all but tcp": Rule(action="allow", not_protocol=TCP),
    "port": allow(protocol=UDP, destination=Match(ports=ports(53))),
    "ports": allow(protocol=UDP, destination=Match(ports=ports((50, 52), 54))),
    "not ports": allow(protocol=UDP, destination=Match(not_ports=ports(54, (1, 52)))),
    "ports of any protocol": allow(destination=Match(ports=ports(53))),
    "named port": allow(protocol=UDP, destination=Match(named_ports=groups("p:dns"))),
    "named or numeric": allow(protocol=UDP, destination=Match(ports=ports(54), named_ports=groups("p:dns"))),
    "not the named port": allow(protocol=UDP, destination=Match(not_named_ports=groups("p:dns"))),
    "neither of any protocol": allow(destination=Match(not_ports=ports(1), not_named_ports=groups("p:dns"))),
    "group": allow(source=Match(groups=groups("s:a"))),
    "both groups": allow(source=Match(groups=groups("s:a", "s:b"))),
    "not group": allow(source=Match(not_groups=groups("s:a"))),
    "net": allow(source=Match(nets=("10.0.0.0/8",))),
    "net6": allow(source=Match(nets=("fd00::/64",))),
    "nets": allow(destination=Match(nets=("10.244.0.2/31", "172.16.0.0/12"))),
    "all of IPv4": allow(source=Match(nets=("0.0.0.0/0",))),
    "outside": allow(source=Match(not_nets=("10.244.0.0/31", "172.16.0.0/12"))),
    "outside everything": allow(source=Match(not_nets=("0.0.0.0/0",))),
    "version": Rule(action="allow", ip_version=6),
    "unknown group": allow(source=Match(groups=groups("s:unknown"))),
}


@pytest.mark.parametrize("name", RULES)
def test_the_kernel_reads_the_rules_as_the_evaluator_does(lab: Lab, name: str) -> None:
    model = Nftables()
    tell(
        lab.table,
        rules("probe", ingress=[RULES[name]]),
        group("s:a", A, A6),
        group("s:b", A),
        group("p:dns", f"{B} 17 53", f"{B6} 17 53"),
    )
    lab.policy(b=("probe", ""))
    model.run("".join(f"{line}\n" for line in _script(lab)))
    for source, destination in ((A, B), (A6, B6)):
        for port in (53, 54):
            receiver = lab.bind(lab.b, destination, port)
            packet = Packet(source, destination, UDP, port, in_link=link("a"), out_link=link("b"))
            expected = model.send(packet).accepted
            seen = udp(lab.a, receiver, destination, port, wait_s=1 if expected else REFUSED_S) is not None
            assert seen is expected, (packet, model.send(packet))


def _script(lab: Lab) -> list[str]:
    transaction = lab.table.whole()
    lab.driver.commit(transaction)
    lab.table.committed(transaction)
    return list(transaction.lines())


def test_icmp_by_type(lab: Lab) -> None:
    echo = Rule(action="allow", ip_version=4, protocol=1, icmp=Icmp(type=8, code=0))
    echo6 = Rule(action="allow", ip_version=6, protocol=58, icmp=Icmp(type=128))
    tell(lab.table, rules("echo", ingress=[echo]), rules("echo6", ingress=[echo6]))
    lab.policy(b=("echo", ""))
    assert ping(lab.a, B)
    assert not ping(lab.a, B6, wait_s=REFUSED_S)
    lab.policy(b=("echo6", ""))
    assert ping(lab.a, B6)
    assert not ping(lab.a, B, wait_s=REFUSED_S)


def test_a_pod_cannot_speak_with_anothers_address(lab: Lab) -> None:
    lab.policy()
    receiver = lab.bind(lab.b, B, 53)
    lab.a.ip("address", "add", "10.244.0.99/32", "dev", "eth0")
    assert udp(lab.a, receiver, B, 53) == A
    assert udp(lab.a, receiver, B, 53, source="10.244.0.99", wait_s=REFUSED_S) is None
    assert lab.dropped("spoofed")
    lab.table.set_node(NodeRules(spoofing=True))
    lab.settle()
    assert udp(lab.a, receiver, B, 53, source="10.244.0.99", wait_s=REFUSED_S) is None, "it did not ask for it"
    plug(lab.table, "a", A, A6, sources=("10.244.0.64/26",))
    lab.settle()
    assert udp(lab.a, receiver, B, 53, source="10.244.0.99") == "10.244.0.99"


def test_a_pod_is_no_router_of_its_node(lab: Lab) -> None:
    """Nobody's policy is against it, and the node would believe it."""
    lab.policy()
    lab.node.sysctl(f"net.ipv6.conf.{link('a')}.accept_ra", 2)
    lab.a.sysctl("net.ipv6.conf.eth0.disable_ipv6", 0)
    advertisement = bytes((134, 0, 0, 0, 64, 0)) + (1800).to_bytes(2, "big") + bytes(8)
    with lab.a.inside():
        router = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with router:
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        with lab.a.inside():
            router.sendto(advertisement, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))
    wait_for(lambda: lab.dropped("router_from_pod") == 1, "the advertisement arrives, and is dropped")
    assert not lab.node.ip("-6", "route", "show", "default")


def test_a_pod_does_not_speak_with_its_floating_address(lab: Lab) -> None:
    """What is denied to its own address would be allowed to the other."""
    floating = "10.9.0.1"
    lab.node.ip("route", "add", floating, "dev", link("a"))
    lab.table.set_node(msgspec.structs.replace(SETTINGS, floating=True))
    denied = Rule(action="deny", source=Match(groups=groups("s:a")))
    tell(lab.table, rules("not a", ingress=[denied, Rule(action="allow")]), group("s:a", A))
    lab.policy(b=("not a", ""))
    plug(lab.table, "a", A, A6, floating=((floating, A),))
    lab.settle()
    at_a, at_b = lab.bind(lab.a, A, 53), lab.bind(lab.b, B, 53)
    assert udp(lab.b, at_a, floating, 53) == B
    assert udp(lab.a, at_a, floating, 53) == floating, "it reaches itself, by the node"
    lab.a.ip("address", "add", f"{floating}/32", "dev", "eth0")
    assert udp(lab.a, at_b, B, 53, source=floating, wait_s=REFUSED_S) is None
    assert lab.dropped("spoofed") == 1


def test_a_node_reaches_its_pods_and_pods_their_node_by_policy(lab: Lab) -> None:
    for namespace, address in ((lab.b, B), (lab.b, B6), (lab.node, NODE)):
        lab.listen(namespace, address, 80)
    lab.policy(b=("nothing", "nothing"))
    assert reaches(lab.node, B, 80)
    assert reaches(lab.node, B6, 80), "neighbour discovery works without any policy"
    assert refused(lab.b, NODE, 80)
    assert reaches(lab.a, NODE, 80)
    lab.table.set_node(NodeRules(endpoint_to_host="drop"))
    lab.settle()
    assert refused(lab.a, NODE, 80)
    assert lab.dropped("to_host")
    assert reaches(lab.node, B, 80)
    assert reaches(lab.node, B6, 80)


def test_pods_leave_with_the_nodes_address(lab: Lab) -> None:
    lab.policy()
    receiver = lab.bind(lab.world, WORLD, 53)
    assert udp(lab.a, receiver, WORLD, 53) == NODE
    assert ping(lab.a, WORLD)
    inside = lab.bind(lab.b, B, 53)
    assert udp(lab.a, inside, B, 53) == A
    lab.table.set_node(_changed(all_pools=(*SETTINGS.all_pools, "192.168.0.0/24")))
    lab.settle()
    assert udp(lab.b, receiver, WORLD, 53) == B


def _changed(**settings: Any) -> NodeRules:
    return msgspec.structs.replace(SETTINGS, **settings)


def test_the_tunnel_port(lab: Lab) -> None:
    lab.policy()
    outside = lab.bind(lab.world, WORLD, 4789)
    assert udp(lab.a, outside, WORLD, 4789, wait_s=REFUSED_S) is None
    assert lab.dropped("vxlan_from_pod")
    here = lab.bind(lab.node, NODE, 4789)
    assert udp(lab.world, here, NODE, 4789, wait_s=REFUSED_S) is None
    assert lab.dropped("vxlan_from_stranger")
    lab.table.set_node(_changed(nodes=(NODE, WORLD)))
    lab.settle()
    assert udp(lab.world, here, NODE, 4789) == WORLD
    assert udp(lab.a, here, NODE, 4789, wait_s=REFUSED_S) is None
    lab.table.set_node(_changed(allow_vxlan_from_workloads=True))
    lab.settle()
    assert udp(lab.a, outside, WORLD, 4789) == NODE


def test_ip_in_ip(lab: Lab) -> None:
    """By raw sockets: it is not the kernel's tunnel that is tried, but who may send into it."""
    lab.policy()
    lab.table.set_node(_changed(ipip=True))
    lab.settle()

    def sends(namespace: Namespace, address: str) -> bool:
        with lab.node.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP) as heard:
            heard.settimeout(REFUSED_S)
            with namespace.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP) as sender:
                sender.sendto(b"inner", (address, 0))
            try:
                return heard.recv(100).endswith(b"inner")
            except TimeoutError:
                return False

    assert not sends(lab.a, NODE)
    assert lab.dropped("ipip_from_pod")
    assert not sends(lab.world, NODE)
    assert lab.dropped("ipip_from_stranger")
    lab.table.set_node(_changed(ipip=True, nodes=(NODE, WORLD)))
    lab.settle()
    assert sends(lab.world, NODE)


def test_the_kernel_takes_a_limit_on_what_is_logged(lab: Lab) -> None:
    tell(lab.table, rules("probe", ingress=[Rule(action="log"), Rule(action="allow")]))
    lab.policy(b=("probe", ""))
    lab.table.set_node(_changed(log_limit="10/second burst 5 packets"))
    lab.settle()
    assert ping(lab.a, B)
    expected = lab.table.expected()
    assert expected is not None
    with lab.node.inside():
        assert lab.driver.verify(expected) == []
