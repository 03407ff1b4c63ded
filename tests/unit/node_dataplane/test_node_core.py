"""The node's core through world states: whatever the order, the same rows, tunnels, rules."""

from __future__ import annotations

import random
from base64 import b64encode
from ipaddress import ip_address, ip_interface

import msgspec
import pytest

from bus_schemas.bgp import Speaker
from bus_schemas.ids import NodeName
from bus_schemas.node_addresses import NodeAddresses, OwnAddress
from bus_schemas.resources import FelixConfiguration, IPPool, Node
from bus_schemas.resources.bgp import ClusterRoutes
from bus_schemas.resources.configuration import FelixConfigurationSpec
from bus_schemas.resources.core import NodeBgp, NodeSpec
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.routes import Encapsulation, Route, Tunnel, WireguardEnd, vtep_mac_of
from bus_schemas.subjects import BGP, DESIRED, NODE_ADDRESSES, ROUTE, Fact
from services.node_dataplane.core import NodeCore
from services.node_dataplane.ipip import IpipSpec
from services.node_dataplane.lingering import LINGER_S
from services.node_dataplane.node_rules import faults, node_rules
from services.node_dataplane.routes import BLACKHOLE, SPARE, Destination, Row, destination
from services.node_dataplane.tunnel import TunnelSpec
from services.node_dataplane.uplink import Interface
from services.node_dataplane.wireguard import WireguardSpec

ETH0 = Interface("eth0", 1500, (ip_interface("10.0.0.15/24"),), frozenset({4}))


def pool(name: str, cidr: str, mode: str = "Never", **fields: object) -> Fact:
    spec = IPPoolSpec(cidr=cidr, vxlan_mode=mode, **fields)  # type: ignore[arg-type]
    return Fact(DESIRED[IPPool], ("", name), IPPool(metadata=Metadata(name=name), spec=spec))


def node(name: str, address: str) -> Fact:
    value = Node(metadata=Metadata(name=name), spec=NodeSpec(bgp=NodeBgp(ipv4_address=address)))
    return Fact(DESIRED[Node], ("", name), value)


def felix(name: str, **fields: object) -> Fact:
    value = FelixConfiguration(metadata=Metadata(name=name), spec=FelixConfigurationSpec(**fields))  # type: ignore[arg-type]
    return Fact(DESIRED[FelixConfiguration], ("", name), value)


def route(cidr: str, owner: str, address: str, encapsulation: Encapsulation = Encapsulation.NEVER) -> Fact:
    number = address.rpartition(".")[2].partition("/")[0]
    value = Route(
        cidr=cidr,
        node=NodeName(owner),
        address=address,
        tunnel=Tunnel.NONE if encapsulation is Encapsulation.NEVER else Tunnel.VXLAN,
        encapsulation=encapsulation,
        vtep=f"10.244.{number}.1",
        vtep_mac=vtep_mac_of(owner),
    )
    return Fact(ROUTE, (cidr,), value)


def gone(fact: Fact) -> Fact:
    return fact._replace(value=None)


class Kernel:
    """What a driver would hold after every flush."""

    def __init__(self, facts: list[Fact], *, flush_each: bool = False) -> None:
        self.core = NodeCore(NodeName("node1"))
        self.core.set_interfaces([ETH0])
        self.rows: dict[Destination, Row] = {}
        for fact in facts:
            self.core.apply(fact)
            if flush_each:
                self.flush()
        self.flush()

    def flush(self, now: float = 0.0) -> None:
        self.desired = self.core.flush(now)
        for where, row in self.desired.rows.items():
            if row is None:
                self.rows.pop(where, None)
            else:
                self.rows[where] = row
        if self.desired.surroundings is not None:
            self.surroundings = self.desired.surroundings

    def later(self) -> None:
        """Time passes, until nothing is due any more."""
        while (due := self.core.due) is not None:
            self.core.look_again()
            self.flush(due)

    @property
    def state(self) -> object:
        return self.rows, self.desired.tunnels, self.desired.peers, self.desired.vteps, self.surroundings


WORLD = [
    node("node1", "10.0.0.15/24"),
    node("node2", "10.0.0.16/24"),
    node("node3", "10.0.1.17/24"),
    pool("default", "10.244.0.0/16", "CrossSubnet", nat_outgoing=True),
    felix("default", vxlan_port=8472, vxlan_vni=1),
    route("10.244.15.0/26", "node1", "10.0.0.15/24", Encapsulation.CROSS_SUBNET),
    route("10.244.16.0/26", "node2", "10.0.0.16/24", Encapsulation.CROSS_SUBNET),
    route("10.244.17.0/26", "node3", "10.0.1.17/24", Encapsulation.CROSS_SUBNET),
    route("10.244.17.64/26", "node3", "10.0.1.17/24", Encapsulation.CROSS_SUBNET),
]


def test_the_world_as_this_node_sees_it() -> None:
    kernel = Kernel(WORLD)

    assert kernel.rows[destination("10.244.15.0/26")] == BLACKHOLE
    assert kernel.rows[destination("10.244.16.0/26")].device == "eth0"
    assert kernel.rows[destination("10.244.17.0/26")].device == "vxlan.tortie"
    assert len(kernel.desired.peers["vxlan.tortie"]) == 1
    tunnel = kernel.desired.tunnels["vxlan.tortie"]
    assert tunnel is not None
    assert (tunnel.vni, tunnel.port, tunnel.mtu, tunnel.underlay) == (1, 8472, 1450, "eth0")
    assert kernel.desired.tunnels["vxlan6.tortie"] is None
    assert {kind: vteps.families for kind, vteps in kernel.desired.vteps.items() if vteps.families} == {"vxlan": {4}}
    assert kernel.core.pod_mtu() == 1450
    assert not kernel.desired.problems


@pytest.mark.parametrize("seed", range(20))
def test_order_and_batching_do_not_matter(seed: int) -> None:
    shuffled = WORLD * 2 + [gone(fact) for fact in WORLD]
    random.Random(seed).shuffle(shuffled)
    assert Kernel(shuffled + WORLD, flush_each=bool(seed % 2)).state == Kernel(WORLD).state


@pytest.mark.parametrize("flush_each", [False, True])
def test_everything_gone_leaves_nothing(flush_each: bool) -> None:
    kernel = Kernel(WORLD + [gone(fact) for fact in WORLD], flush_each=flush_each)
    kernel.later()
    assert kernel.rows == {}
    assert not any(kernel.desired.tunnels.values())
    assert not any(kernel.desired.peers.values())
    assert not any(vteps.families for vteps in kernel.desired.vteps.values())


def test_one_changed_route_costs_one_row() -> None:
    kernel = Kernel(WORLD)
    kernel.core.apply(gone(WORLD[-1]))
    desired = kernel.core.flush()
    assert desired.rows == {destination("10.244.17.64/26"): None}
    assert desired.surroundings is None


def test_a_new_subnet_of_our_own_converts_all_routes_again() -> None:
    kernel = Kernel(WORLD)
    kernel.core.set_interfaces([Interface("eth0", 1500, (ip_interface("10.0.0.15/16"),), frozenset({4}))])
    kernel.core.apply(node("node1", "10.0.0.15"))
    kernel.flush()
    assert kernel.rows[destination("10.244.17.0/26")].device == "eth0"
    assert kernel.desired.peers["vxlan.tortie"] == frozenset()


def test_a_node_of_the_configuration_precedes_the_default() -> None:
    kernel = Kernel([*WORLD, felix("node.node1", vxlan_port=4000), felix("node.node2", vxlan_port=4001)])
    tunnel = kernel.desired.tunnels["vxlan.tortie"]
    assert tunnel is not None
    assert (tunnel.port, tunnel.vni) == (4000, 1)


@pytest.mark.parametrize("before", [Encapsulation.NEVER, Encapsulation.ALWAYS])
def test_until_the_other_end_of_a_tunnel_is_known_the_way_before_stays(before: Encapsulation) -> None:
    kernel = Kernel([*WORLD, route("10.244.16.0/26", "node2", "10.0.0.16/24", before)])
    where = destination("10.244.16.0/26")
    way = kernel.rows[where]
    fact = route("10.244.16.0/26", "node2", "10.0.0.16/24", Encapsulation.ALWAYS)
    kernel.core.apply(fact._replace(value=msgspec.structs.replace(fact.value, vtep="")))
    kernel.flush()
    assert kernel.rows[where] == way
    assert "the way to 1 block of node2 waits for a tunnel address" in kernel.desired.problems[0]
    kernel.core.apply(fact)
    kernel.flush()
    assert kernel.rows[where].device == "vxlan.tortie"
    assert not kernel.desired.problems


def test_the_way_before_goes_when_it_led_to_another_node() -> None:
    kernel = Kernel([*WORLD, route("10.244.16.0/26", "node2", "10.0.0.16/24")])
    fact = route("10.244.16.0/26", "node4", "10.0.0.18/24", Encapsulation.ALWAYS)
    kernel.core.apply(fact._replace(value=msgspec.structs.replace(fact.value, vtep="")))
    kernel.flush()
    assert destination("10.244.16.0/26") not in kernel.rows


def test_a_tunnel_that_no_pool_wants_any_more_lingers_with_its_routes_and_address() -> None:
    """The pool is heard of before the routes."""
    kernel = Kernel(WORLD)
    kernel.core.set_vteps("vxlan", ("10.244.15.1",))
    kernel.flush()
    where, spec, vteps = (
        destination("10.244.17.0/26"),
        kernel.desired.tunnels["vxlan.tortie"],
        kernel.desired.vteps["vxlan"],
    )
    way = kernel.rows[where]
    kernel.core.apply(pool("default", "10.244.0.0/16", nat_outgoing=True))
    kernel.flush(100.0)
    assert (kernel.rows[where], kernel.desired.tunnels["vxlan.tortie"]) == (way, spec)
    assert kernel.desired.vteps["vxlan"].families == vteps.families
    for fact in WORLD[5:]:
        kernel.core.apply(route(fact.value.cidr, fact.value.node, fact.value.address))
    kernel.flush(101.0)
    assert where not in kernel.rows
    assert kernel.core.due == 100.0 + LINGER_S
    kernel.later()
    assert kernel.desired.tunnels["vxlan.tortie"] is None
    assert not kernel.desired.vteps["vxlan"].families


def test_a_pool_that_comes_back_keeps_its_tunnel() -> None:
    kernel = Kernel(WORLD)
    kernel.core.apply(pool("default", "10.244.0.0/16"))
    kernel.flush(100.0)
    kernel.core.apply(WORLD[3])
    kernel.flush(101.0)
    assert kernel.core.due is None
    assert kernel.desired.tunnels["vxlan.tortie"] is not None


def test_own_tunnel_addresses_reach_the_device() -> None:
    kernel = Kernel(WORLD)
    kernel.core.set_vteps("vxlan", ("10.244.15.1",))
    kernel.flush()
    tunnel = kernel.desired.tunnels["vxlan.tortie"]
    assert tunnel is not None
    assert tunnel.addresses == ("10.244.15.1",)


def test_a_disabled_pool_keeps_its_tunnel_but_wants_no_address() -> None:
    kernel = Kernel([*WORLD, pool("default", "10.244.0.0/16", "Always", disabled=True)])
    assert kernel.desired.tunnels["vxlan.tortie"] is not None
    assert not any(vteps.families for vteps in kernel.desired.vteps.values())
    assert kernel.core.pod_mtu() == 1500


def test_an_address_that_no_device_carries_is_a_problem_with_words() -> None:
    kernel = Kernel([*WORLD, node("node1", "10.9.9.9/24")])
    assert kernel.desired.problems == ("no device carries the node's address 10.9.9.9",)


def test_a_broken_record_is_set_aside_and_named() -> None:
    broken = WORLD[-1]._replace(key=("10.244.99.0/26",))
    kernel = Kernel([*WORLD, broken])
    assert len(kernel.rows) == 4
    assert kernel.desired.problems == ("route 10.244.99.0/26: the record says 10.244.17.64/26",)


def test_node_rules() -> None:
    kernel = Kernel([*WORLD, pool("plain", "10.250.0.0/16"), felix("node.node1", workload_source_spoofing="Any")])
    rules = node_rules(kernel.surroundings)
    assert rules.masquerade_pools == ("10.244.0.0/16",)
    assert rules.all_pools == ("10.244.0.0/16", "10.250.0.0/16")
    assert rules.nodes == ("10.0.0.15", "10.0.0.16", "10.0.1.17")
    assert (rules.vxlan_port, rules.spoofing, rules.exclude_nodes) == (8472, True, False)


@pytest.mark.parametrize(
    ("rate", "burst", "limit"),
    [
        (None, None, ""),
        ("10/second", None, "10/second burst 5 packets"),
        ("9999/day", 1, "9999/day burst 1 packets"),
        ("0/second", None, ""),
        ("10 a second", None, ""),
    ],
)
def test_the_rate_of_logging(rate: str | None, burst: int | None, limit: str) -> None:
    kernel = Kernel([felix("default", log_action_rate_limit=rate, log_action_rate_limit_burst=burst)])
    assert node_rules(kernel.surroundings).log_limit == limit
    assert bool(faults(kernel.surroundings)) is bool(rate and not limit)


def test_an_uplink_that_is_down_for_a_moment_costs_nothing_but_a_word() -> None:
    core = NodeCore(NodeName("n1"))
    core.set_interfaces([ETH0])
    for fact in (pool("p", "10.244.0.0/16", "Always"), route("10.244.9.0/26", "n2", "10.0.0.9", Encapsulation.ALWAYS)):
        core.apply(fact)
    before = core.flush()
    assert core.set_interfaces([])
    after = core.flush()
    assert (after.tunnels, after.peers, after.vteps) == (before.tunnels, before.peers, before.vteps)
    assert not after.rows
    assert after.problems == ("the uplink eth0 is down or has lost its address 10.0.0.15",)
    assert core.set_interfaces([ETH0])
    assert not core.flush().problems


def test_a_node_address_that_no_device_carries_leaves_the_uplink_as_it_was() -> None:
    core = NodeCore(NodeName("n1"))
    core.set_interfaces([ETH0])
    for fact in (node("n1", "10.0.0.15/24"), pool("p", "10.244.0.0/16", "Always")):
        core.apply(fact)
    before = core.flush()
    core.apply(node("n1", "10.0.0.77/24"))
    after = core.flush()
    assert after.tunnels == before.tunnels
    assert "no device carries the node's address 10.0.0.77" in after.problems[0]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"vxlan_vni": 1 << 33}, (4096, 4789, 1450)),
        ({"vxlan_port": 70000}, (4096, 4789, 1450)),
        ({"vxlan_mtu": -5}, (4096, 4789, 1450)),
    ],
)
def test_numbers_that_cannot_be_are_named_and_the_default_taken(fields: dict[str, int], kept: tuple[int, ...]) -> None:
    core = NodeCore(NodeName("n1"))
    core.set_interfaces([ETH0])
    for fact in (pool("p", "10.244.0.0/16", "Always"), felix("default", **fields)):
        core.apply(fact)
    desired = core.flush()
    spec = desired.tunnels["vxlan.tortie"]
    assert spec is not None
    assert (spec.vni, spec.port, spec.mtu) == kept
    assert desired.problems[0].startswith(f"FelixConfiguration: {next(iter(fields))} is")


@pytest.mark.parametrize("cidr", ["banana", "10.1.0.1/16"])
def test_a_pool_that_cannot_be_leaves_what_was_known_of_it(cidr: str) -> None:
    core = NodeCore(NodeName("n1"))
    core.set_interfaces([ETH0])
    core.apply(pool("p", "10.244.0.0/16", "Always"))
    before = core.flush()
    core.apply(pool("p", cidr, "Always"))
    after = core.flush()
    assert after.surroundings is None
    assert after.tunnels == before.tunnels
    assert after.problems[0].startswith("IPPool/p: ")
    core.apply(gone(pool("p", cidr)))
    assert not core.flush().problems


@pytest.mark.parametrize("fields", [{"vtep_mac": "zz"}, {"vtep": "fd00::1"}, {"vtep": "nowhere"}])
def test_a_tunnel_end_that_cannot_be_is_a_problem_of_its_route_alone(fields: dict[str, str]) -> None:
    core = NodeCore(NodeName("n1"))
    core.set_interfaces([ETH0])
    bad = route("10.244.9.0/26", "n2", "10.0.0.9", Encapsulation.ALWAYS)
    bad = bad._replace(value=msgspec.structs.replace(bad.value, **fields))
    good = route("10.244.8.0/26", "n3", "10.0.0.8", Encapsulation.ALWAYS)
    for fact in (pool("p", "10.244.0.0/16", "Always"), bad, good):
        core.apply(fact)
    desired = core.flush()
    assert desired.problems[0].startswith("route 10.244.9.0/26: ")
    assert len(desired.peers["vxlan.tortie"]) == 1


# --- IP in IP


def speaker(cluster_routes: ClusterRoutes = "EnabledNoEncapOnly") -> Fact:
    value = Speaker(node=NodeName("node1"), as_number=64512, router_id="10.0.0.15", cluster_routes=cluster_routes)
    return Fact(BGP, ("node1",), value)


@pytest.mark.parametrize(
    ("cluster_routes", "metric"),
    [("EnabledNoEncapOnly", SPARE), ("Enabled", SPARE), ("EnabledIPIPOnly", 0), ("Disabled", 0)],
)
def test_where_bird_brings_routes_ours_are_spare(cluster_routes: ClusterRoutes, metric: int) -> None:
    plain, near = "10.244.16.0/24", "10.244.17.0/24"
    facts = [
        node("node1", "10.0.0.15/24"),
        pool("pool", "10.244.0.0/16"),
        route("10.244.15.0/24", "node1", "10.0.0.15/24"),
        route(plain, "node2", "10.0.0.16/24"),
        route(near, "node3", "10.0.0.17/24", Encapsulation.CROSS_SUBNET),
        speaker(cluster_routes),
    ]
    kernel = Kernel(facts)
    assert kernel.rows[destination(plain)].metric == metric
    assert kernel.rows[destination(near)].metric == 0, "a pool with a tunnel is the agent's, whichever way packets go"
    assert kernel.rows[destination("10.244.15.0/24")] == BLACKHOLE
    assert Kernel(facts, flush_each=True).rows == kernel.rows
    kernel.core.apply(gone(facts[-1]))
    kernel.flush()
    assert kernel.rows[destination(plain)].metric == 0


def ipip_route(cidr: str, owner: str, address: str, mode: str) -> Fact:
    value = Route(
        cidr=cidr, node=NodeName(owner), address=address, tunnel=Tunnel.IPIP, encapsulation=Encapsulation(mode)
    )
    return Fact(ROUTE, (cidr,), value)


def test_a_pool_of_ip_in_ip() -> None:
    kernel = Kernel(
        [
            node("node1", "10.0.0.15/24"),
            node("node2", "10.0.0.16/24"),
            pool("default", "10.244.0.0/16", ipip_mode="Always"),
            ipip_route("10.244.16.0/26", "node2", "10.0.0.16/24", "Always"),
        ]
    )
    kernel.core.set_vteps("ipip", ("10.244.15.1",))
    kernel.flush()
    assert kernel.rows[destination("10.244.16.0/26")] == Row("tunl0", ip_address("10.0.0.16").packed, onlink=True)
    assert kernel.desired.tunnels["tunl0"] == IpipSpec(1480, ("10.244.15.1",))
    assert kernel.desired.vteps["ipip"].families == {4}
    assert not kernel.desired.vteps["vxlan"].families
    assert kernel.core.pod_mtu() == 1480
    rules = node_rules(kernel.surroundings)
    assert (rules.ipip, rules.vxlan_port) == (True, None)


# --- WireGuard


KEYS = {name: WireguardEnd(key=b64encode(name.encode().ljust(32)).decode(), port=51820) for name in ("node2", "node3")}


def keyed(fact: Fact) -> Fact:
    route = fact.value
    return fact._replace(value=msgspec.structs.replace(route, wireguard=KEYS[route.node]))


SECURED = [
    *WORLD[:4],
    felix("default", wireguard_enabled=True, wireguard_keep_alive="25s"),
    WORLD[5],
    *map(keyed, WORLD[6:]),
]


def secured(facts: list[Fact] = SECURED) -> Kernel:
    kernel = Kernel(facts)
    kernel.core.set_keyed(frozenset({4}))
    kernel.flush()
    return kernel


def test_nothing_is_encrypted_before_the_device_has_its_key() -> None:
    kernel = Kernel(SECURED)
    assert kernel.desired.tunnels["wg.tortie"] == WireguardSpec(51820, 1440, 25)
    assert kernel.rows[destination("10.244.16.0/26")].device == "eth0"
    kernel.core.set_keyed(frozenset({4}))
    kernel.flush()
    assert kernel.rows[destination("10.244.16.0/26")] == Row("wg.tortie")


def test_the_destinations_of_a_node_are_what_its_peer_may_send() -> None:
    kernel = secured()
    peers = {peer.key.strip(): peer for peer in kernel.desired.peers["wg.tortie"]}
    assert {name: len(peer.allowed) for name, peer in peers.items()} == {b"node2": 1, b"node3": 2}
    assert peers[b"node3"].endpoint == ip_address("10.0.1.17").packed
    assert not kernel.desired.peers["vxlan.tortie"]
    assert kernel.core.pod_mtu() == 1440
    assert kernel.desired.vteps["wireguard"].families == {4}
    kernel.core.apply(gone(SECURED[-1]))
    kernel.flush()
    assert {peer.key.strip(): len(peer.allowed) for peer in kernel.desired.peers["wg.tortie"]} == {
        b"node2": 1,
        b"node3": 1,
    }


def test_a_node_without_a_key_is_named_as_long_as_it_has_none() -> None:
    kernel = secured([*SECURED, WORLD[6]])
    assert kernel.desired.problems == ("WireGuard: node2 has no key, so its pods are reached without encryption",)
    kernel.core.apply(SECURED[6])
    kernel.flush()
    assert kernel.desired.problems == ()


@pytest.mark.parametrize("seed", range(10))
def test_keys_in_any_order(seed: int) -> None:
    shuffled = [*SECURED, *WORLD, *map(gone, SECURED)]
    random.Random(seed).shuffle(shuffled)
    lived = secured()
    for fact in shuffled + SECURED:
        lived.core.apply(fact)
        lived.flush()
    assert lived.state == secured().state


def test_the_tunnel_and_new_pods_follow_the_uplink() -> None:
    kernel = Kernel([pool("pool", "10.244.0.0/16", "Always"), node("node1", "")])
    assert kernel.core.pod_mtu() == 1450
    kernel.core.set_interfaces([Interface("bond0", 9000, (ip_interface("10.0.0.15/24"),), frozenset({4}))])
    kernel.flush()
    tunnel = kernel.desired.tunnels["vxlan.tortie"]
    assert isinstance(tunnel, TunnelSpec)
    assert (kernel.core.pod_mtu(), tunnel.mtu, tunnel.underlay) == (8950, 8950, "bond0")
    kernel.core.set_interfaces([Interface("bond0", 9000, (ip_interface("10.0.0.99/24"),), frozenset({4}))])
    kernel.flush()
    tunnel = kernel.desired.tunnels["vxlan.tortie"]
    assert isinstance(tunnel, TunnelSpec)
    assert tunnel.local == ip_address("10.0.0.99").packed
    assert kernel.core.whereabouts.addresses.of(4) is not None


def test_what_is_configured_about_mtus_is_told_and_counts() -> None:
    kernel = Kernel([pool("pool", "10.244.0.0/16", "Always"), felix("default", vxlan_mtu=1480, mtu_iface_pattern="^e")])
    assert kernel.core.configured == {"mtuIfacePattern": "^e", "vxlanMTU": "1480"}
    assert kernel.core.pod_mtu() == 1480
    assert any("MTU 1480 (vxlanMTU of FelixConfiguration) is more than the 1450" in p for p in kernel.desired.problems)


def test_another_node_with_our_address_is_named() -> None:
    said = NodeAddresses(node=NodeName("node2"), ipv4=OwnAddress(address="10.0.0.15/24", since=1.0))
    kernel = Kernel([node("node1", ""), node("node2", ""), Fact(NODE_ADDRESSES, ("node2",), said)])
    assert "the address 10.0.0.15 is also that of node2: of two the older keeps it" in kernel.desired.problems
