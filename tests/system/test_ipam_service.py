"""Replicas of ipam on a real nats-server: many nodes ask at once, one replica dies, nothing is given twice."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, AssignRequest, Busy, Handle, PoolExhausted, Released, tunnel_handle
from bus_schemas.subjects import ASSIGN, BLOCK, HANDLE, RELEASE, Fact, Family
from chassis.bus import Bus, Write
from chassis.embedded import EmbeddedNats
from chassis.errors import Conflict, Rejected, Unavailable
from chassis.feed import Interest
from chassis.health import Health
from services.ipam.commits import Commits
from services.ipam.core import Reply, Request
from services.ipam.service import Allocator
from services.ipam.settings import Settings
from tests.support.ipam import ask, check_invariants, give_back, node, pool, without

NODES = [node(f"node-{i}") for i in range(5)]
POOLS = [pool("four", "10.0.0.0/22", vxlan_mode="Always"), pool("six", "fd00:1::/112")]
PATIENCE_S = 30.0


RUN_IPAM = """
from chassis.runner import run
from services.ipam.service import serve
from services.ipam.settings import Settings
raise SystemExit(run("ipam", Settings, serve))
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    async with EmbeddedNats(tmp_path) as running:
        yield running


@asynccontextmanager
async def ipam(server: EmbeddedNats, instance: str) -> AsyncIterator[Process]:
    """One replica in a process of its own."""
    environ = {"TORTIE_NATS_URL": server.url, "TORTIE_INSTANCE": instance, "TORTIE_HEALTH_LISTEN": ""}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN_IPAM, env=os.environ | environ, cwd=Path(__file__).parents[2], stderr=DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            assert await process.wait() == 0


@asynccontextmanager
async def client(server: EmbeddedNats, *facts: Fact) -> AsyncIterator[Bus]:
    async with Bus.connect(Settings(nats_url=server.url), name="test", health=Health()) as bus:
        await bus.connected()
        for fact in facts:
            await bus.put(fact.family, fact.key, fact.value)
        yield bus


async def request(bus: Bus, message: Request) -> Reply:
    """As an agent does: again until there is an answer."""
    rpc = ASSIGN if isinstance(message, AssignRequest) else RELEASE
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                reply: Reply = await bus.request(rpc, message, timeout_s=2.0)
            except Unavailable:
                continue
            if not isinstance(reply, Busy):
                return reply


async def stored(bus: Bus) -> tuple[dict[str, str], list[Fact]]:
    """Address -> handle, after the invariants are checked; and everything that there is."""
    facts: dict[object, Fact] = {}
    async with asyncio.timeout(PATIENCE_S), bus.follow(Interest(BLOCK), Interest(HANDLE)) as feed:
        while not feed.in_sync:
            for fact in (await feed.next()).facts:
                facts[fact.family, fact.key] = fact
    present = [fact for fact in facts.values() if fact.value is not None]
    given = check_invariants(
        [fact.value for fact in present if fact.family is BLOCK],
        [fact.value for fact in present if fact.family is HANDLE],
    )
    return given, present


async def absent(bus: Bus, family: Family[Any], *key: str) -> None:
    """Waits until a key is deleted."""
    async with asyncio.timeout(PATIENCE_S), bus.follow(Interest(family)) as feed:
        while (await bus.get(family, key)).value is not None:
            await feed.next()


async def test_two_replicas_many_nodes_one_killed_in_the_middle(server: EmbeddedNats) -> None:
    async with (
        client(server, *NODES, *POOLS) as bus,
        ipam(server, "ipam-0") as first,
        ipam(server, "ipam-1"),
        asyncio.TaskGroup() as tasks,
    ):
        asked = [ask(f"h{i}", f"node-{i % 5}", families=(4,) if i % 3 else (4, 6)) for i in range(200)]
        answers = 0
        some = asyncio.Event()

        async def one(message: Request) -> Reply:
            nonlocal answers
            reply = await request(bus, message)
            answers += 1
            if answers == 40:
                some.set()
            return reply

        running = [tasks.create_task(one(message)) for message in asked]
        await some.wait()
        first.kill()
        replies = [await task for task in running]

        held: dict[str, str] = {}
        for message, reply in zip(asked, replies, strict=True):
            assert isinstance(reply, Assigned), reply
            assert len(reply.addresses) == (1 if message.families == (4,) else 2)
            for address in reply.addresses:
                assert address not in held, "an address was given twice"
                held[address] = message.handle
        given, _ = await stored(bus)
        assert given == held

        again = [await request(bus, message) for message in asked[:20]]
        assert [(r.addresses, r.repeated) for r in again if isinstance(r, Assigned)] == [
            (r.addresses, True) for r in replies[:20] if isinstance(r, Assigned)
        ]
        released = await asyncio.gather(*(request(bus, give_back(message.handle)) for message in asked))
        assert all(isinstance(reply, Released) for reply in released)
        given, _ = await stored(bus)
        assert given == {}


async def test_a_node_that_leaves_gives_back_and_a_full_pool_says_so(server: EmbeddedNats) -> None:
    small = pool("small", "10.9.0.0/30", block_size=30, vxlan_mode="Always")
    async with client(server, *NODES, small) as bus, ipam(server, "ipam-0"):
        tunnel = tunnel_handle(ask("", "node-0").node)
        await request(bus, ask(tunnel, "node-0", use="tunnel"))
        for i in range(3):
            assert isinstance(await request(bus, ask(f"h{i}", "node-1")), Assigned)
        full = await request(bus, ask("h4", "node-1"))
        assert isinstance(full, PoolExhausted)
        assert "small (10.9.0.0/30): 4 of 4 addresses in use" in full.reason

        gone = without(NODES[0])
        await bus.delete(gone.family, gone.key)
        await absent(bus, HANDLE, tunnel)
        assert isinstance(await request(bus, ask("h4", "node-1")), Assigned)


async def test_changes_that_are_written_together_fail_alone(server: EmbeddedNats) -> None:
    def change(handle: str, expected: int) -> list[Write]:
        message = Handle(handle=HandleId(handle), node=NodeName("n1"), addresses=("10.0.0.1",), sequences=(0,))
        return [Write(HANDLE, (handle,), message, 0), Write(HANDLE, (f"{handle} again",), message, expected)]

    async with client(server) as bus, asyncio.TaskGroup() as tasks:
        commits = Commits(bus, tasks)
        writes = [change("a", 0), change("b", 77), change("c", 0), change("a", 0)]
        a, b, c, late = await asyncio.gather(*map(commits.commit, writes), return_exceptions=True)
        assert isinstance(a, list)
        assert isinstance(c, list)
        assert sorted(a + c) == list(range(min(a + c), min(a + c) + 4)), "one batch"
        assert isinstance(b, Conflict)
        assert isinstance(late, Conflict)
        assert (await bus.get(HANDLE, ("b",))).value is None


async def test_nothing_is_answered_before_the_state_is_read() -> None:
    health = Health()
    settings = Settings(nats_url="nats://127.0.0.1:9")
    async with Bus.connect(settings, name="test", health=Health()) as bus, asyncio.TaskGroup() as tasks:
        allocator = Allocator(bus, settings, health, tasks)
        assert isinstance(await allocator.answer(ask("h")), Busy)
        assert isinstance(await allocator.answer(give_back("h")), Busy)
        assert not health.ready
        assert "not yet read" in health.causes["ipam"]


async def test_a_repair_that_the_bus_refuses_is_named_until_it_is_taken(
    server: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = Health()
    async with client(server) as bus, asyncio.TaskGroup() as tasks:
        allocator = Allocator(bus, Settings(nats_url=server.url), health, tasks)

        async def refused() -> None:
            raise Rejected("maximum bytes exceeded")

        with monkeypatch.context() as patched:
            patched.setattr(allocator, "_repair_all", refused)
            with pytest.raises(Rejected):
                await allocator._repair()
        assert "maximum bytes exceeded" in health.notes["ipam refused"]
        await allocator._repair()
        assert "ipam refused" not in health.notes
