"""Probes, captures and fabric on the real kernel, without any of Tortie's services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.support.lab import lab_name
from tortie import netns
from tortie.lab import fabric, kernel, probes, requirements, scenario, topology, wire
from tortie.lab.errors import CannotDo
from tortie.lab.listeners import Listeners
from tortie.lab.topology import OUTSIDE_ADDRESS, Topology

pytestmark = pytest.mark.root

FILTER = """
table inet test {
    chain input {
        type filter hook input priority 0
        tcp dport 81 drop
        udp dport 54 drop
        sctp dport 91 drop
        tcp dport 82 reject with icmp type admin-prohibited
        ip saddr 10.0.9.21 icmp type echo-request drop
    }
    chain output {
        type filter hook output priority 0
        udp dport 99 drop
    }
}
"""
SERVER = "10.0.0.15"


@dataclass
class Net:
    topology: Topology

    async def probe(self, source: str, address: str, service: str = "icmp") -> probes.Outcome:
        protocol, port = ("icmp", 0) if service == "icmp" else scenario.port(service)
        return await probes.probe(self.topology.nodes[source].netns, address, protocol, port)


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    """Three nodes in two subnets; the first one listens on TCP 80, UDP 53 and SCTP 90 behind FILTER."""
    lab = lab_name()
    addresses = {"server": (f"{SERVER}/24",), "near": ("10.0.0.16/24",), "far": ("10.0.9.21/24",)}
    plan = topology.plan(lab, addresses)
    server = Listeners(plan.nodes["server"].netns)
    outside = Listeners(plan.outside.netns)
    try:
        await fabric.build(plan)
        await server.open("tcp", 80)
        await server.open("udp", 53)
        await server.open("sctp", 90)
        for protocol in ("tcp", "udp"):
            await outside.open(protocol, fabric.ANSWERING_PORT)
        await fabric.run("ip", "netns", "exec", plan.nodes["server"].netns, "nft", "-f", "-", stdin=FILTER)
        yield Net(plan)
    finally:
        server.close()
        outside.close()
        await fabric.remove_namespaces(netns.named(topology.prefix(lab)))


@pytest.mark.parametrize(
    ("source", "service"), [("near", "tcp/80"), ("near", "udp/53"), ("near", "sctp/90"), ("far", "tcp/80")]
)
async def test_an_answer_tells_who_asked(net: Net, source: str, service: str) -> None:
    outcome = await net.probe(source, SERVER, service)
    assert isinstance(outcome, probes.Answered)
    assert outcome.seen_as == net.topology.nodes[source].devices[0].addresses[0].partition("/")[0]


async def test_an_echo(net: Net) -> None:
    assert isinstance(await net.probe("near", SERVER), probes.Answered)


@pytest.mark.parametrize(
    ("source", "service"),
    [("near", "tcp/81"), ("near", "udp/54"), ("near", "sctp/91"), ("far", "icmp")],
    ids=["tcp", "udp", "sctp", "icmp"],
)
async def test_what_is_dropped_is_silent(net: Net, source: str, service: str) -> None:
    assert isinstance(await net.probe(source, SERVER, service), probes.Silent)


async def test_what_the_sender_itself_drops_is_silent(net: Net) -> None:
    assert isinstance(await net.probe("server", "10.0.0.16", "udp/99"), probes.Silent)


@pytest.mark.parametrize(
    "service",
    ["tcp/83", "udp/83", "tcp/82", "sctp/83"],
    ids=["reset", "icmp port", "icmp prohibited", "abort"],
)
async def test_a_refusal_is_no_silence(net: Net, service: str) -> None:
    assert isinstance(await net.probe("near", SERVER, service), probes.Refused)


@pytest.mark.parametrize("service", ["tcp/80", "udp/80", "icmp"])
async def test_neither_is_an_unreachable_network(net: Net, service: str) -> None:
    assert isinstance(await net.probe("near", "10.99.0.1", service), probes.Refused)


@pytest.mark.parametrize("service", ["tcp/1", "tcp/65535", "udp/4444", "icmp"])
async def test_the_outside_answers_on_every_port(net: Net, service: str) -> None:
    assert isinstance(await net.probe("far", OUTSIDE_ADDRESS, service), probes.Answered)


async def test_the_wire_shows_the_packets_between_two_addresses_only(net: Net) -> None:
    node = net.topology.nodes["near"]
    async with wire.capture(node.netns, "eth0", "10.0.0.16", SERVER) as capture:
        await net.probe("near", SERVER)
    async with wire.capture(node.netns, "eth0", "10.0.0.16", SERVER) as other:
        await net.probe("near", OUTSIDE_ADDRESS)
    assert (capture.seen, other.seen) == ({"plain"}, set())


async def test_the_kernel_is_read_as_iproute2_prints_it(net: Net) -> None:
    await net.probe("near", SERVER)
    netns_name = net.topology.nodes["near"].netns
    assert kernel.matching(await kernel.read("routes", netns_name), {"dst": "default", "gateway": "10.0.0.1"})
    assert kernel.matching(await kernel.read("neighbours", netns_name), {"dst": SERVER, "dev": "eth0"})
    link = await kernel.link(netns_name, "eth0")
    assert link is not None
    assert link["mtu"] == 1500
    assert await kernel.link(netns_name, "eth9") is None


async def test_a_command_that_fails_tells_what_the_program_said(net: Net) -> None:
    with pytest.raises(CannotDo, match=r"ip -n .*eth9"):
        await fabric.run("ip", "-n", net.topology.nodes["near"].netns, "link", "show", "eth9")


async def test_a_scenario_that_this_kernel_or_version_cannot_run_is_skipped_with_the_reason() -> None:
    head = "name: x\nnodes: {n: {address: 10.0.0.1/24}}\n"
    needs = {
        "kernel: [teleport]": "teleport",
        "resources: |\n  kind: Unheard\n": "Unheard",
        "resources: |\n  kind: List\n  items:\n  - kind: Unheard\n": "Unheard",
        "resources: |\n  kind: List\n  items:\n  - kind: Tier\n": "",
        "kernel: [vxlan]": "",
    }
    for text, reason in needs.items():
        told = await requirements.reason_to_skip(scenario.read(head + text))
        assert reason in told if reason else not told
