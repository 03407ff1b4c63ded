"""BGP at work: three nodes and a router outside, real BIRDs, and packets that must not be lost whatever is done."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.bgp import NODES, REFLECTOR, Speakers, speakers
from tests.support.waiting import until
from tortie.lab.scenario import Reference

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        shutil.which("bird", path="/usr/sbin:/usr/bin") is None, reason="needs BIRD: apt-get install bird2"
    ),
]

TOR = "10.0.0.2"
PASSWORD = """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: nodes}
spec:
  nodeSelector: all()
  peerSelector: all()
  password: {secretKeyRef: {name: bgp, key: rr}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[Speakers]:
    async with speakers() as made:
        yield made


async def test_an_agent_that_was_killed_finds_its_bird_at_work(world: Speakers) -> None:
    pid, before = world.bird("node1").pid(), await world.sessions("node1")
    with world.pings():
        await world.cluster.kill_process("agent-node1")
        assert world.bird("node1").pid() == pid
        await world.cluster.start_process("agent-node1")
        await world.cluster.processes["agent-node1"].ready()

        async def told_again() -> bool:
            return (await world.sessions("node1")).keys() == before.keys()

        await until(told_again, "the agent tells of its sessions")
    after = await world.sessions("node1")
    assert world.bird("node1").pid() == pid
    assert {peer: s["since"] for peer, s in after.items()} == {peer: s["since"] for peer, s in before.items()}


async def test_a_bird_that_was_killed_costs_no_packet(world: Speakers) -> None:
    blocks, before = (await world.cluster.blocks())["node2"], await world.sessions("node2")
    with world.pings():
        killed = world.kill_bird("node2")
        assert set(blocks) <= (await world.ways("node1")).keys()

        async def another() -> bool:
            return world.bird("node2").pid() not in (None, killed)

        await until(another, "another BIRD")

        async def named() -> bool:
            status, text = await world.health("node2")
            return status == 200 and "it ended within the last" in text

        await until(named, "the end of the BIRD before is named, and the node is ready")

        async def back() -> bool:
            now = await world.sessions("node2")
            return all(s["established"] and s["since"] > before[peer]["since"] for peer, s in now.items())

        await until(back, "new sessions")
        assert set(blocks) <= (await world.ways("node1")).keys()
        assert set(blocks) <= (await world.ways("tor")).keys()


async def test_a_password_that_all_have(world: Speakers) -> None:
    secret = world.cluster.directory / "secrets" / "bgp" / "rr"
    secret.parent.mkdir(parents=True)
    with world.pings():
        await world.cluster.apply(PASSWORD)

        async def named() -> bool:
            status, text = await world.health("node2")
            return status == 200 and str(secret) in text

        await until(named, "the missing password is named, and the node is ready")
        secret.write_text("tabby\n")
        await world.meshed()
        await world.cluster.delete(Reference("BGPPeer", "", "nodes"))
        await world.meshed()


async def test_a_peer_that_is_gone_is_named_and_the_node_stays_ready(world: Speakers) -> None:
    await world.meshed()
    before = await world.sessions("node1")
    await world.cluster.routers[0].kill()

    async def named() -> bool:
        status, text = await world.health("node1")
        return status == 200 and f"not established: {TOR} (node specific)" in text

    await until(named, "the peer that is gone")
    after = await world.sessions("node1")
    assert not after[TOR]["established"]
    assert [after[peer]["since"] for peer in after if peer != TOR] == [
        before[peer]["since"] for peer in after if peer != TOR
    ]


async def test_from_mesh_to_reflector_without_losing_a_packet(world: Speakers) -> None:
    with world.pings() as pings:
        await world.cluster.apply(REFLECTOR)

        async def reflected() -> bool:
            return await world.established("node2", "10.0.0.11", kind="node") and await world.established(
                "node3", "10.0.0.11", kind="node"
            )

        await until(reflected, "one session each, with the reflector")
        for node in NODES:

            async def knows(node: str = node) -> bool:
                return await world.knows_all_blocks(node)

            await until(knows, f"BIRD's routes on {node}")
    assert all(flow.sent for flow in pings)


async def test_without_bgp_the_bus_alone_and_no_packet_lost(world: Speakers) -> None:
    with world.pings():
        for what in ("BGPPeer/reflector", "BGPPeer/tor", "BGPConfiguration/default"):
            kind, name = what.split("/")
            await world.cluster.delete(Reference(kind, "", name))

        async def silent() -> bool:
            ended = [world.bird(node).pid() is None for node in NODES]
            return all(ended) and not any([await world.ways(node) for node in NODES])

        await until(silent, "no BIRD and no route of one")
        rows = await world.ways("node1", "84")
        assert {row.get("metric", 0) for row in rows.values() if "gateway" in row} == {0}
