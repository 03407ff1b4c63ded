"""Services through the core and the rendered rules, packet by packet, against the naive answer."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.resources import EndpointSlice, Service
from bus_schemas.resources.services import ServicePort
from bus_schemas.subjects import DESIRED, Fact
from services.node_dataplane.nft.table import PolicyTable
from services.node_dataplane.service_proxy.core import ServiceProxy
from tests.support.nft_evaluator import Nftables, Packet
from tests.support.nft_worlds import attach, plug
from tests.support.nft_worlds import tell as tell_table
from tests.support.service_oracle import Asked, fate
from tests.support.service_worlds import NODE, endpoint, gone, service, slice_of

NODE_ADDRESSES = ("192.168.0.1", "fd01::1")
CLUSTER = ("10.96.0.1", "10.96.0.2", "fd96::1")
EXTERNAL = ("198.51.100.1", "2001:db8::1")
BALANCED = ("198.51.100.2", "198.51.100.1")
BACKENDS = {"IPv4": ("10.244.0.1", "10.244.0.2", "10.244.9.1"), "IPv6": ("fd00::1", "fd00::9")}
POD, ELSEWHERE, OUTSIDE = ("10.244.0.1", "fd00::1"), "node2", ("203.0.113.7", "2001:db8:7::7")
PORTS = (
    ServicePort(protocol="TCP", port=80, node_port=30080),
    ServicePort(name="dns", protocol="UDP", port=53),
    ServicePort(name="s", protocol="SCTP", port=80, node_port=30090),
)


def subset(items: tuple[Any, ...], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(items), unique=True, max_size=most).map(tuple)


@st.composite
def services(draw: st.DrawFn) -> Fact:
    return service(
        draw(st.sampled_from(("a", "b"))),
        *draw(subset(CLUSTER)),
        ports=draw(subset(PORTS)),
        type=draw(st.sampled_from(("ClusterIP", "LoadBalancer", "ExternalName"))),
        external_ips=draw(subset(EXTERNAL)),
        balanced=draw(subset(BALANCED)),
        external_traffic_policy=draw(st.sampled_from(("Cluster", "Local"))),
        internal_traffic_policy=draw(st.sampled_from(("Cluster", "Local"))),
        load_balancer_source_ranges=draw(subset(("203.0.113.0/24", "10.244.0.0/16", "2001:db8::/32"), 2)),
        publish_not_ready_addresses=draw(st.booleans()),
    )


@st.composite
def slices(draw: st.DrawFn) -> Fact:
    family = draw(st.sampled_from(("IPv4", "IPv6")))
    endpoints = [
        endpoint(
            address,
            draw(st.sampled_from((NODE, ELSEWHERE, ""))),
            ready=draw(st.booleans()),
            serving=draw(st.sampled_from((None, True, False))),
            terminating=draw(st.booleans()),
        )
        for address in draw(subset(BACKENDS[family]))
    ]
    number = draw(st.integers(0, 1)) + (2 if family == "IPv6" else 0)
    return slice_of(
        draw(st.sampled_from(("a", "b"))),
        *endpoints,
        ports=draw(subset(("tcp/8080", "dns:udp/5353", "s:sctp/8080"))),
        number=number,
        family=family,
    )


changes = st.lists(st.one_of(services(), slices(), services().map(gone), slices().map(gone)), min_size=1, max_size=8)


class Node:
    """The core, the table and the model of the kernel, kept in step."""

    def __init__(self) -> None:
        self.proxy = ServiceProxy(NODE)
        self.proxy.set_node_addresses(_packed(NODE_ADDRESSES))
        self.table = PolicyTable(services=True)
        self.kernel = Nftables()
        plug(self.table, "a", *POD)
        tell_table(self.table, attach("a"))

    def settle(self) -> None:
        changes = self.proxy.flush()
        if changes:
            self.table.set_services(changes)
        transaction = self.table.flush().transaction
        if transaction is not None:
            self.kernel.run(str(transaction))
            self.table.committed(transaction)


def _packed(addresses: tuple[str, ...]) -> list[bytes]:
    return [ip_address(address).packed for address in addresses]


def outcome(kernel: Nftables, asked: Asked, link: str, draw: int) -> str:
    """Where the packet went."""
    seen = kernel.send(
        Packet(
            asked.source,
            asked.destination,
            asked.protocol,
            port=asked.port,
            in_link=link,
            path="output" if not link else "forward",
            own=not link,
            draw=draw,
        )
    )
    if seen.rejected:
        assert seen.rejected == ("reset" if asked.protocol == 6 else "port-unreachable")
        return "reject"
    if not seen.accepted and not seen.destination:
        return "drop"
    return seen.destination or "none"


def packets() -> list[tuple[Asked, str]]:
    made = []
    for destination in (*CLUSTER, *EXTERNAL, *BALANCED, *NODE_ADDRESSES, "192.0.2.1"):
        six = ":" in destination
        for protocol, port in ((6, 80), (17, 53), (132, 80), (6, 30080), (132, 30090), (6, 81)):
            for source, link in ((POD[six], "tora"), (OUTSIDE[six], "eth0"), (NODE_ADDRESSES[six], "")):
                made.append((Asked(source, destination, protocol, port, link != "eth0"), link))
    return made


PACKETS = packets()
DRAWS = 6
"""Each of up to three backends is drawn."""


@settings(max_examples=25, deadline=None)
@given(changes)
def test_every_packet_goes_where_the_naive_answer_says(history: list[Fact]) -> None:
    node = Node()
    now: dict[tuple[Any, ...], Fact] = {}
    for fact in history:
        node.proxy.apply(fact)
        node.settle()
        now[fact.family.name, *fact.key] = fact
    known = [fact for _, fact in sorted(now.items(), key=lambda pair: pair[0]) if fact.value is not None]
    those = [fact.value for fact in known if fact.family is DESIRED[Service]]
    pieces = [fact.value for fact in known if fact.family is DESIRED[EndpointSlice]]
    for asked, link in PACKETS:
        wanted = fate(asked, those, pieces, NODE_ADDRESSES)
        seen = {outcome(node.kernel, asked, link, draw) for draw in range(DRAWS)}
        assert seen == (set(wanted) if isinstance(wanted, frozenset) else {wanted}), (asked, link)
    anew = Node()
    for fact in reversed(known):
        anew.proxy.apply(fact)
    anew.settle()
    assert anew.kernel.snapshot() == node.kernel.snapshot(), "the table depends on how it came about"
    assert anew.proxy.frontends == node.proxy.frontends
