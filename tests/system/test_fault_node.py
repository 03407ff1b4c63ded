"""What somebody else breaks in a node's kernel is put right within seconds and told in an event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.fault_streams import WEB, A
from tests.support.faults import REPAIRED_S, World
from tests.support.waiting import within
from tortie.lab import kernel

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

NODE = "node1"
"""Where web lives: its kernel enforces the policy."""
OPEN_S = 5.0
"""A flushed table is open until the agent has seen it, which takes a self-check (2 s) and a moment."""
VXLAN = "vxlan.tortie"


async def test_a_pod_route_that_somebody_deleted(world: World) -> None:
    pod = world.cluster.pods[WEB]
    async with world.watched(lossless=False):
        async with world.telling(NODE, pod.addresses[0]):
            await world.on_node(NODE, "ip", "route", "delete", pod.addresses[0])
        await world.allowed(A)
        await world.books_agree()


async def test_the_routes_to_other_nodes_that_somebody_deleted(world: World) -> None:
    async with world.watched(lossless=False):
        async with world.telling("node2", "10.244."):
            await world.on_node("node2", "ip", "route", "flush", "proto", "84", "dev", VXLAN)
        await world.allowed(A)


async def test_a_tunnel_device_that_somebody_deleted(world: World) -> None:
    async with world.watched(lossless=False):
        async with world.telling("node2", VXLAN):
            await world.on_node("node2", "ip", "link", "delete", VXLAN)
        await world.allowed(A)
        await world.books_agree()


async def test_the_tunnels_address_that_somebody_deleted(world: World) -> None:
    """With it the kernel drops the routes and neighbours of the device."""
    link = await kernel.link(world.node_netns("node2"), VXLAN)
    assert link is not None
    address = next(row["local"] for row in link["addr_info"] if row["scope"] == "global")
    async with world.watched(lossless=False):
        async with world.telling("node2", VXLAN):
            await world.on_node("node2", "ip", "address", "delete", f"{address}/32", "dev", VXLAN)
        await world.allowed(A)


@pytest.mark.parametrize("table", ["neighbours", "fdb"])
async def test_an_entry_of_the_tunnel_that_somebody_deleted(world: World, table: kernel.Table) -> None:
    async def entries() -> list[Any]:
        rows = await kernel.read(table, world.node_netns("node2"))
        return [row for row in kernel.matching(rows, {"dev": VXLAN}) if "permanent" in json.dumps(row).lower()]

    before = await entries()
    async with world.watched(lossless=False):
        async with world.telling("node2", VXLAN):
            if table == "neighbours":
                await world.on_node("node2", "ip", "neigh", "flush", "dev", VXLAN, "nud", "permanent")
            else:
                row = next(row for row in before if "dst" in row)
                await world.on_node("node2", "bridge", "fdb", "delete", row["mac"], "dev", VXLAN, "dst", row["dst"])
        await world.allowed(A)

    async def restored() -> bool:
        now = await entries()
        assert _keys(now) == _keys(before)
        return True

    await within(restored, "the entries are as they were")


def _keys(rows: list[Any]) -> set[tuple[str, str]]:
    return {(row.get("dst", ""), row.get("lladdr", row.get("mac", ""))) for row in rows}


@pytest.mark.parametrize(
    "command",
    [
        "nft flush ruleset",
        "nft delete table inet tortie",
        "nft flush table inet tortie",
        "nft flush chain inet tortie forward",
    ],
)
async def test_a_policy_table_that_somebody_flushed(world: World, command: str) -> None:
    """Until the agent sees it the node is open: that time is bounded, and afterwards nothing new gets in."""
    async with world.measured() as streams:
        async with world.telling(NODE, "table inet tortie"):
            await world.on_node(NODE, *command.split())
        await streams.silent()
        await streams.more()
    streams.assert_nothing_lost()
    world.figures.append(f"{command}: open for {streams.open_s:.2f} s, {len(streams.open)} answers")
    assert streams.open_s < (REPAIRED_S if "chain" in command else OPEN_S)
    async with world.watched():
        await world.converged(command)


async def test_all_of_it_at_once(world: World) -> None:
    async with world.measured() as streams:
        for node in world.nodes:
            await world.on_node(node, "nft", "flush", "ruleset")
            await world.on_node(node, "ip", "route", "flush", "proto", "84")
            await world.on_node(node, "ip", "link", "delete", VXLAN)
        await world.allowed(A)
        await streams.silent()
    assert streams.open_s < OPEN_S
    async with world.watched():
        await world.converged("tables, routes and tunnels deleted on every node")
