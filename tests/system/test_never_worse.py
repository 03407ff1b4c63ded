"""Silence never deletes: the bus away for an hour, a node that is silent for longer than it may be and comes back, two
nodes with one address. Pods talk on meanwhile, and no packet is lost."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.ipam import Block
from bus_schemas.resources import Node
from bus_schemas.resources.core import NodeBgp, NodeSpec
from bus_schemas.resources.metadata import Metadata
from bus_schemas.subjects import BLOCK, EVENT, ROUTE, STATUS
from chassis.feed import Interest
from tests.support.netns import Namespace
from tests.support.packet_stream import packets
from tests.support.two_nodes import Cluster, Spaces, cluster_of, two_nodes, until
from tests.support.waiting import within

pytestmark = pytest.mark.root

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
FASTER = 120
HOUR_S = 3600
DEADLINE_S = 90.0
COUNTER = re.compile(r"counter packets \d+ bytes \d+")


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    with two_nodes() as made:
        yield made


@pytest.fixture
async def cluster(spaces: Spaces, tmp_path: Path) -> AsyncIterator[Cluster]:
    # without addresses kept ready: those come and go by themselves
    async with cluster_of(tmp_path, *spaces, warm_addresses="0") as made:
        await made.pool("Always")
        yield made


def kernel(node: Namespace) -> dict[str, list[str]]:
    """All that the agent put there."""

    def lines(*command: str) -> list[str]:
        return sorted(COUNTER.sub("", line) for line in node.run(*command).splitlines())

    return {
        "routes": lines("ip", "route", "show", "proto", "84"),
        "neighbours": lines("ip", "neigh", "show", "dev", "vxlan.tortie", "nud", "permanent"),
        "fdb": [line for line in lines("bridge", "fdb", "show", "dev", "vxlan.tortie") if "dst" in line],
        "devices": [row["ifname"] for row in json.loads(node.ip("-j", "link"))],
        "policy": lines("nft", "-s", "list", "table", "inet", "tortie"),
    }


async def state(cluster: Cluster) -> dict[str, Any]:
    """What the bus says of routes, and whose blocks and addresses are whose."""
    found: dict[str, Any] = {}
    async with cluster.bus.follow(Interest(ROUTE), Interest(BLOCK)) as feed:
        in_sync = False
        while not in_sync:
            batch = await feed.next()
            in_sync = batch.in_sync
            for fact in batch.facts:
                value = fact.value
                told = (
                    (value.node, {a.ordinal: a.handle for a in value.allocations})
                    if isinstance(value, Block)
                    else value
                )
                found["/".join((fact.family.name, *fact.key))] = told
    return found


async def lives(cluster: Cluster, node: str, alive: bool) -> None:
    async def so() -> bool:
        found = await cluster.bus.get(STATUS, ("node_dataplane", node))
        assert (found.value is not None) is alive
        return True

    await within(so, f"{node} is {'alive' if alive else 'silent'} for everybody", DEADLINE_S)


@pytest.mark.skipif(not FAKETIME.exists(), reason="needs the package faketime")
async def test_the_bus_gone_for_an_hour(cluster: Cluster) -> None:
    """For one agent, which is started again in the middle of it, an hour passes; for the other one half a minute."""
    web, client = await cluster.both()
    before = [kernel(node) for node in cluster.nodes]
    agent = cluster.agents[1]
    with packets(cluster.pods[0], web, cluster.pods[1], client) as stream:
        await cluster.nats.stop()
        agent.kill()
        begun = len(agent.log())
        agent.start(LD_PRELOAD=str(FAKETIME), FAKETIME=f"+0 x{FASTER}")

        await until(lambda: '"timestamp"' in agent.log()[begun:], "the agent has begun", DEADLINE_S)
        loop = asyncio.get_running_loop()
        over = loop.time() + 1.1 * HOUR_S / FASTER

        async def half_a_minute_has_passed() -> bool:
            assert loop.time() > over
            return True

        await within(half_a_minute_has_passed, "an hour has passed for the agent", DEADLINE_S)
        assert [kernel(node) for node in cluster.nodes] == before
        agent.stop()
        moments = [datetime.fromisoformat(text) for text in re.findall(r'"timestamp": "([^"Z]+)', agent.log()[begun:])]
        assert (moments[-1] - moments[0]).total_seconds() > HOUR_S
        await cluster.nats.start()
        agent.start()
        await lives(cluster, "node2", alive=True)
        await cluster.reach(1, web)
    assert stream.sent > 1000
    assert stream.lost == 0
    print(f"bus gone for an hour of the agent's: {stream.lost} of {stream.sent} packets lost")
    assert [kernel(node) for node in cluster.nodes] == before


@pytest.mark.parametrize("how", ["paused", "killed"])
async def test_a_node_taken_for_dead_loses_no_packet(cluster: Cluster, how: str) -> None:
    """Its agent says nothing for longer than its status lives. Its routes, its blocks and everybody's kernel stay."""
    web, client = await cluster.both()
    await lives(cluster, "node2", alive=True)
    before, said = [kernel(node) for node in cluster.nodes], await state(cluster)
    agent = cluster.agents[1]
    with packets(cluster.pods[0], web, cluster.pods[1], client) as stream:
        if how == "paused":
            os.kill(agent.pid, signal.SIGSTOP)
        else:
            agent.kill()
        await lives(cluster, "node2", alive=False)
        assert [kernel(node) for node in cluster.nodes] == before
        assert await state(cluster) == said
        if how == "paused":
            os.kill(agent.pid, signal.SIGCONT)
        else:
            agent.start()
        await lives(cluster, "node2", alive=True)
        await cluster.reach(1, web)
    assert stream.sent > 1000
    assert stream.lost == 0
    print(f"{how} past its status: {stream.lost} of {stream.sent} packets lost")
    assert [kernel(node) for node in cluster.nodes] == before
    assert await state(cluster) == said


async def test_a_second_node_with_the_address_of_an_older_one(cluster: Cluster) -> None:
    web, client = await cluster.both()
    routes = {key: value for key, value in (await state(cluster)).items() if key.startswith("route")}
    with packets(cluster.pods[0], web, cluster.pods[1], client) as stream:
        async with cluster.bus.follow(Interest(EVENT, ("route", "duplicate"))) as events:
            spec = NodeSpec(bgp=NodeBgp(ipv4_address="10.0.0.2/24"))
            await cluster.apply(Node(metadata=Metadata(name="node2-copy"), spec=spec))
            async with asyncio.timeout(DEADLINE_S):
                told: list[Any] = []
                while not told:
                    told += [fact.value for fact in (await events.next()).facts if fact.value is not None]
        assert told[0].object == "node2-copy"
        assert "10.0.0.2" in told[0].message
        assert "which node node2 has had for longer" in told[0].message
        assert {key: value for key, value in (await state(cluster)).items() if key.startswith("route")} == routes
        await cluster.reach(1, web)
    assert stream.lost == 0
