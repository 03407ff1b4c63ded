"""The node's own tunnel addresses: asked for, kept, moved, given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bus_schemas.ids import NodeName
from bus_schemas.ipam import Assigned, AssignRequest, Busy, Refused, Released, ReleaseRequest
from bus_schemas.resources import IPPool
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.subjects import Rpc
from chassis.errors import Unavailable
from chassis.health import Health
from services.node_dataplane import tunnel_address
from services.node_dataplane.tunnel_address import CAUSES, TunnelAddress
from tests.support.waiting import eventually

ADDRESSES = {4: "10.244.0.1", 6: "fd00::1"}


def pool(cidr: str) -> IPPool:
    return IPPool(metadata=Metadata(name=cidr), spec=IPPoolSpec(cidr=cidr, vxlan_mode="Always"))


POOLS = (pool("10.244.0.0/16"), pool("fd00::/64"))


class Ipam:
    """Holds one set of addresses for the one handle; refuses to change it, as the real one does."""

    def __init__(self) -> None:
        self.held: tuple[str, ...] = ()
        self.faults: list[Exception | Busy] = []
        self.asked: list[str] = []

    async def request(self, rpc: Rpc, message: Any, *, timeout_s: float) -> Any:
        self.asked.append(rpc.name)
        if self.faults:
            fault = self.faults.pop()
            if isinstance(fault, Exception):
                raise fault
            return fault
        if isinstance(message, ReleaseRequest):
            gone, self.held = self.held, ()
            return Released(addresses=gone)
        assert isinstance(message, AssignRequest)
        assert message.use == "tunnel"
        wanted = tuple(ADDRESSES[family] for family in message.families)
        if self.held and self.held != wanted:
            return Refused(reason="release it first")
        self.held = wanted
        return Assigned(addresses=wanted)


class Node:
    def __init__(self, ipam: Ipam) -> None:
        self.health = Health()
        self.seen: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
        self.tunnel = TunnelAddress(NodeName("node1"), "vxlan", ipam, self.health, self.gain)

    def gain(self, kind: str, addresses: tuple[str, ...]) -> None:
        assert kind == "vxlan"
        self.seen.put_nowait(addresses)

    async def gained(self) -> tuple[str, ...]:
        async with asyncio.timeout(5):
            return await self.seen.get()


@pytest.fixture
def ipam() -> Ipam:
    return Ipam()


@pytest.fixture
async def node(ipam: Ipam, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(tunnel_address, "RETRY_S", 0.0)
    made = Node(ipam)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.tunnel.run())
        yield made
        running.cancel()


async def test_asked_for_and_given_back(node: Node, ipam: Ipam) -> None:
    node.tunnel.want(frozenset({4}), POOLS)
    assert await node.gained() == ("10.244.0.1",)
    node.tunnel.want(frozenset(), ())
    assert await node.gained() == ()
    assert ipam.held == ()


async def test_a_second_family_is_asked_for_anew(node: Node, ipam: Ipam) -> None:
    node.tunnel.want(frozenset({4}), POOLS)
    assert await node.gained() == ("10.244.0.1",)
    node.tunnel.want(frozenset({4, 6}), POOLS)
    assert await node.gained() == ()
    assert await node.gained() == ("10.244.0.1", "fd00::1")


async def test_what_an_earlier_life_held_does_not_stand_in_the_way(node: Node, ipam: Ipam) -> None:
    ipam.held = ("fd00::1",)
    node.tunnel.want(frozenset({4}), POOLS)
    assert await node.gained() == ("10.244.0.1",)


async def test_it_moves_with_its_pool(node: Node, ipam: Ipam) -> None:
    node.tunnel.want(frozenset({4}), POOLS)
    assert await node.gained() == ("10.244.0.1",)
    ADDRESSES[4] = "10.9.0.1"
    try:
        node.tunnel.want(frozenset({4}), (pool("10.9.0.0/16"),))
        assert await node.gained() == ()
        assert await node.gained() == ("10.9.0.1",)
    finally:
        ADDRESSES[4] = "10.244.0.1"


async def test_a_silent_or_busy_service_is_asked_again(node: Node, ipam: Ipam) -> None:
    ipam.faults = [Unavailable("nobody"), Busy(reason="not ready")]
    node.tunnel.want(frozenset({4}), POOLS)
    assert await node.gained() == ("10.244.0.1",)
    assert ipam.asked == ["assign"] * 3
    assert CAUSES["vxlan"] not in node.health.notes


async def test_a_node_whose_resource_returns_asks_again_at_once(node: Node, ipam: Ipam) -> None:
    node.tunnel.want(frozenset({4}), POOLS)
    await node.gained()
    asked = len(ipam.asked)
    node.tunnel.want(frozenset({4}), POOLS, registered=False)
    ipam.held = ()  # The address service takes it back with the node's resource.
    await asyncio.sleep(0)
    assert len(ipam.asked) == asked, "a node that is not there does not ask for what was taken"
    node.tunnel.want(frozenset({4}), POOLS, registered=True)
    await eventually(lambda: ipam.held == ("10.244.0.1",))
