"""The fixed part of the table: guards, tunnel, host, NAT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from services.node_dataplane.nft.table import NodeRules, PolicyTable
from tests.support.nft_evaluator import Nftables, Outcome, Packet
from tests.support.nft_worlds import (
    ICMPV6,
    IPIP,
    TCP,
    UDP,
    allow,
    attach,
    direction,
    link,
    plug,
    rules,
    settle,
    tell,
    tier,
)

POD, POD6, NODE, PEER, STRANGER = "10.244.0.1", "fd00::1", "192.168.0.1", "192.168.0.2", "192.168.0.9"
SETTINGS = NodeRules(
    masquerade_pools=("10.244.0.0/16",),
    all_pools=("10.244.0.0/16", "10.245.0.0/16", "fd00::/48"),
    nodes=(NODE, PEER, "fd01::2"),
    vxlan_port=4789,
)


def kernel(node: NodeRules = SETTINGS, sources: tuple[str, ...] = ()) -> Nftables:
    """One pod that everything is allowed to."""
    table, kernel = PolicyTable(), Nftables()
    settle(table, kernel)
    table.set_node(node)
    plug(table, "a", POD, POD6, sources=sources)
    tell(table, attach("a"))
    settle(table, kernel)
    fresh = Nftables()
    fresh.run(str(table.whole()))
    assert kernel.snapshot() == fresh.snapshot()
    return kernel


def changed(**settings: Any) -> Nftables:
    known = {name: getattr(SETTINGS, name) for name in SETTINGS.__struct_fields__}
    return kernel(NodeRules(**{**known, **settings}))


def from_pod(nft: Nftables, source: str, destination: str, protocol: int = TCP, port: int = 80, **more: Any) -> Outcome:
    return nft.send(Packet(source, destination, protocol, port, in_link=link("a"), **more))


@pytest.mark.parametrize(("source", "genuine"), [(POD, True), (POD6, True), ("10.244.0.2", False), ("fd00::2", False)])
def test_a_pod_sends_from_its_own_addresses(source: str, *, genuine: bool) -> None:
    destination = "fd05::1" if ":" in source else "1.1.1.1"
    assert from_pod(kernel(), source, destination).accepted is genuine
    assert from_pod(changed(spoofing=True), source, destination).accepted is genuine


@pytest.mark.parametrize(
    ("source", "heard"),
    [("10.1.2.3", True), ("10.2.2.3", False), (POD, True), ("fd00::2", True), ("10.244.0.2", False)],
)
def test_a_pod_sends_from_what_it_asks_for_where_that_is_allowed(source: str, *, heard: bool) -> None:
    destination = "fd05::1" if ":" in source else "1.1.1.1"
    sources = ("10.1.0.0/16", "::/0")
    node = msgspec.structs.replace(SETTINGS, spoofing=True)
    assert from_pod(kernel(node, sources), source, destination).accepted is heard
    assert from_pod(kernel(SETTINGS, sources), source, destination).accepted is (source == POD)


@pytest.mark.parametrize(
    ("source", "type_", "heard"),
    [
        ("fe80::1", 135, True),
        ("::", 135, True),
        ("::", 143, True),
        ("fe80::1", 133, True),
        ("fe80::1", 136, True),
        ("::", 134, False),
        ("fe80::1", 134, False),
    ],
)
def test_neighbour_discovery_reaches_the_node_whatever_the_policy(source: str, type_: int, *, heard: bool) -> None:
    table, nft = PolicyTable(SETTINGS), Nftables()
    plug(table, "a", POD, POD6)
    settle(table, nft)
    assert from_pod(nft, source, "ff02::1", ICMPV6, icmp_type=type_, path="input").accepted is heard


def test_pods_send_no_vxlan() -> None:
    assert not from_pod(kernel(), POD, PEER, UDP, 4789).accepted
    assert not from_pod(kernel(), POD, NODE, UDP, 4789, path="input").accepted
    assert from_pod(kernel(), POD, PEER, UDP, 4790).accepted
    permissive = changed(allow_vxlan_from_workloads=True)
    assert from_pod(permissive, POD, PEER, UDP, 4789).accepted
    assert not from_pod(permissive, POD, NODE, UDP, 4789, path="input").accepted, "never into our own tunnel"
    assert from_pod(changed(vxlan_port=None), POD, PEER, UDP, 4789).accepted


def test_pods_send_no_ip_in_ip() -> None:
    nft = changed(ipip=True)
    assert not from_pod(nft, POD, PEER, IPIP).accepted
    assert not from_pod(nft, POD, NODE, IPIP, path="input").accepted
    permissive = changed(ipip=True, allow_ipip_from_workloads=True)
    assert from_pod(permissive, POD, PEER, IPIP).accepted
    assert not from_pod(permissive, POD, NODE, IPIP, path="input").accepted, "never into our own tunnel"
    assert from_pod(kernel(), POD, PEER, IPIP).accepted


@pytest.mark.parametrize("vxlan_port", [4789, None])
def test_ip_in_ip_is_heard_from_known_nodes_and_is_not_tracked(vxlan_port: int | None) -> None:
    nft = changed(ipip=True, vxlan_port=vxlan_port)
    known = nft.send(Packet(PEER, NODE, IPIP, path="input"))
    assert known.accepted
    assert not known.tracked
    assert not nft.send(Packet(STRANGER, NODE, IPIP, path="input")).accepted
    assert not nft.send(Packet(NODE, PEER, IPIP, path="output")).tracked
    assert kernel().send(Packet(STRANGER, NODE, IPIP, path="input")).accepted


def test_the_tunnel_hears_known_nodes_and_is_not_tracked() -> None:
    nft = kernel()
    known = nft.send(Packet(PEER, NODE, UDP, 4789, path="input"))
    assert known.accepted
    assert not known.tracked
    assert not nft.send(Packet(STRANGER, NODE, UDP, 4789, path="input")).accepted
    assert nft.send(Packet("fd01::2", "fd01::1", UDP, 4789, path="input")).accepted
    assert not nft.send(Packet("fd01::9", "fd01::1", UDP, 4789, path="input")).accepted
    assert nft.send(Packet(STRANGER, NODE, UDP, 53, path="input")).tracked
    assert not nft.send(Packet(NODE, PEER, UDP, 4789, path="output")).tracked


@pytest.mark.parametrize(
    ("action", "allowed", "reaches"),
    [("accept", True, True), ("return", True, True), ("drop", True, False), ("accept", False, False)],
)
def test_a_pod_reaches_its_node_by_policy_and_then_by_the_action(action: str, *, allowed: bool, reaches: bool) -> None:
    table, nft = PolicyTable(NodeRules(endpoint_to_host=action)), Nftables()  # type: ignore[arg-type]
    plug(table, "a", POD)
    tell(table, attach("a", egress=direction(tier("out"))), rules("out", egress=[allow()] if allowed else []))
    settle(table, nft)
    assert from_pod(nft, POD, NODE, path="input").accepted is reaches
    assert from_pod(nft, POD, NODE, path="input", state="established").accepted, "the node's own connections to it"
    assert from_pod(nft, POD, "1.1.1.1").accepted is allowed


def test_a_link_that_is_not_in_the_group_opens_no_connection() -> None:
    nft = kernel()
    assert not from_pod(nft, POD, "1.1.1.1", grouped=False).accepted
    assert not from_pod(nft, POD, NODE, grouped=False, path="input").accepted
    assert not from_pod(nft, POD, POD, grouped=False, out_link=link("a")).accepted
    assert not nft.send(Packet("1.1.1.1", POD, TCP, 80, out_link=link("a"), grouped=False)).accepted
    assert nft.send(Packet("1.1.1.1", POD, TCP, 80, out_link=link("a"))).accepted


def test_both_ends_must_agree() -> None:
    table, nft = PolicyTable(), Nftables()
    plug(table, "a", POD)
    plug(table, "b", "10.244.0.2")
    tell(table, attach("a"), attach("b", ingress=direction(tier("none"))), rules("none"))
    settle(table, nft)
    assert not from_pod(nft, POD, "10.244.0.2", out_link=link("b")).accepted
    assert nft.send(Packet("10.244.0.2", POD, TCP, in_link=link("b"), out_link=link("a"))).accepted


def test_traffic_that_is_no_pods_is_left_alone() -> None:
    assert kernel().send(Packet(STRANGER, PEER, TCP, state="invalid")).accepted


@pytest.mark.parametrize(
    ("packet", "counted"),
    [
        pytest.param(Packet(POD, STRANGER, TCP, in_link=link("a")), "invalid", id="from a pod"),
        pytest.param(Packet(STRANGER, POD, TCP, out_link=link("a")), "invalid", id="to a pod"),
        pytest.param(Packet(POD, NODE, TCP, in_link=link("a"), path="input"), "invalid", id="to its node"),
        pytest.param(
            Packet(POD, STRANGER, TCP, in_link=link("a"), grouped=False), "no_policy_egress", id="not in the group"
        ),
        pytest.param(
            Packet(STRANGER, POD, TCP, out_link=link("a"), grouped=False), "no_policy_ingress", id="to what is not"
        ),
    ],
)
def test_what_belongs_to_no_connection_goes_neither_to_a_pod_nor_from_it(packet: Packet, counted: str) -> None:
    outcome = kernel().send(replace(packet, state="invalid"))
    assert not outcome.accepted
    assert outcome.counted == [counted]


def test_what_a_link_of_pods_leads_to_without_policy_is_dropped() -> None:
    nft = kernel()
    assert nft.send(Packet(STRANGER, "10.244.0.9", TCP, out_link=link("unknown"))).counted == ["no_policy_ingress"]


@pytest.mark.parametrize(
    ("source", "destination", "out", "masqueraded"),
    [
        (POD, "1.1.1.1", "eth0", True),
        (POD, "10.244.9.9", "eth0", False),
        (POD, "10.245.0.1", "eth0", False),
        (POD, PEER, "eth0", True),
        (POD, "1.1.1.1", "vxlan.tortie", False),
        (POD6, "2001:db8::1", "eth0", False),
    ],
)
def test_nat_outgoing(source: str, destination: str, out: str, *, masqueraded: bool) -> None:
    assert from_pod(kernel(), source, destination, out_link=out).masqueraded is masqueraded


def test_nodes_can_be_excluded_from_nat() -> None:
    assert not from_pod(changed(exclude_nodes=True), POD, PEER).masqueraded
    assert from_pod(changed(exclude_nodes=True), POD, "1.1.1.1").masqueraded


def test_pools_change_as_a_whole() -> None:
    table, nft = PolicyTable(SETTINGS), Nftables()
    settle(table, nft)
    table.set_node(NodeRules(all_pools=("10.0.0.0/8", "10.244.0.0/16"), masquerade_pools=("fd00::/64",)))
    flush = settle(table, nft)
    assert flush.transaction is not None
    assert "add element inet tortie pools4 { 10.0.0.0/8 }" in flush.transaction.lines()
    table.set_node(SETTINGS)
    settle(table, nft)
    fresh = Nftables()
    fresh.run(str(PolicyTable(SETTINGS).whole()))
    assert nft.snapshot() == fresh.snapshot()
