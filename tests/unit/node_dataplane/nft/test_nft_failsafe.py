"""Failsafe ports as lines of nft, and where they come from."""

from __future__ import annotations

import pytest

from bus_schemas.resources import FelixConfiguration
from bus_schemas.resources.configuration import FelixConfigurationSpec, ProtoPort
from bus_schemas.resources.metadata import Metadata
from services.node_dataplane.core import Surroundings
from services.node_dataplane.nft import failsafe
from services.node_dataplane.nft.failsafe import TCP, UDP, Failsafe
from services.node_dataplane.node_rules import bus_ports, faults, node_rules

SSH = ProtoPort(protocol="TCP", port=22, net="10.0.0.0/8")


def around(*specs: FelixConfigurationSpec) -> Surroundings:
    configurations = tuple(
        (name, FelixConfiguration(metadata=Metadata(name=name), spec=spec))
        for name, spec in zip(("node.node1", "default"), specs, strict=False)
    )
    return Surroundings(
        pools=(),
        node_addresses=(),
        own_addresses=(),
        tunnels=(),
        ipip=False,
        wireguard_ports=(),
        configurations=configurations,
    )


def test_ports_with_the_same_far_end_are_one_line() -> None:
    ports = [Failsafe(TCP, 443), Failsafe(TCP, 22), Failsafe(UDP, 68), Failsafe(TCP, 22, "10.1.2.3/8")]
    assert failsafe.inbound(ports) == (
        "meta l4proto 6 th dport { 22, 443 } accept",
        "ip saddr 10.0.0.0/8 meta l4proto 6 th dport 22 accept",
        "meta l4proto 17 th dport 68 accept",
    )
    assert failsafe.outbound(ports)[1] == "ip daddr 10.0.0.0/8 meta l4proto 6 th dport 22 accept"


def test_before_tracking_answers_pass_too() -> None:
    inbound, outbound = [Failsafe(TCP, 22, "fd00::/8")], [Failsafe(UDP, 53, "0.0.0.0/0")]
    assert failsafe.raw_inbound(inbound, outbound) == (
        "ip6 saddr fd00::/8 meta l4proto 6 th dport 22 accept",
        "meta nfproto ipv4 meta l4proto 17 th sport 53 accept",
    )
    assert failsafe.raw_outbound(inbound, outbound) == (
        "meta nfproto ipv4 meta l4proto 17 th dport 53 accept",
        "ip6 daddr fd00::/8 meta l4proto 6 th sport 22 accept",
    )


def test_the_bus_joins_the_lists_that_nobody_wrote() -> None:
    rules = node_rules(around(FelixConfigurationSpec(failsafe_inbound_host_ports=(SSH,))), (4222,))
    assert rules.failsafe_inbound == (Failsafe(TCP, 22, "10.0.0.0/8"),)
    assert rules.failsafe_outbound == (*failsafe.OUTBOUND, Failsafe(TCP, 4222))
    assert node_rules(around(), (179,)).failsafe_inbound == failsafe.INBOUND


def test_an_empty_list_is_a_list() -> None:
    empty = FelixConfigurationSpec(failsafe_inbound_host_ports=(), failsafe_outbound_host_ports=())
    rules = node_rules(around(empty, FelixConfigurationSpec(failsafe_inbound_host_ports=(SSH,))), (4222,))
    assert rules.failsafe_inbound == rules.failsafe_outbound == ()


@pytest.mark.parametrize(
    "entry",
    [
        ProtoPort(protocol="icmp", port=1),
        ProtoPort(protocol="tcp", port=0),
        ProtoPort(protocol="tcp", port=65536),
        ProtoPort(protocol="tcp", port=1, net="here"),
        ProtoPort(protocol="tcp", port=1, net="fe80::%eth0/64"),
    ],
)
def test_what_means_nothing_is_left_out_and_named(entry: ProtoPort) -> None:
    surroundings = around(FelixConfigurationSpec(failsafe_outbound_host_ports=(entry, SSH)))
    assert node_rules(surroundings).failsafe_outbound == (Failsafe(TCP, 22, "10.0.0.0/8"),)
    assert len(faults(surroundings)) == 1


def test_ports_of_the_bus() -> None:
    assert bus_ports("nats://127.0.0.1:4222") == (4222,)
    assert bus_ports("bus.example,tls://[fd00::1]:5222, wss://bus.example,nats://other:4222") == (443, 4222, 5222)
