"""Replicas of ipam on a real nats-server: many nodes ask at once, one replica dies, nothing is given twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog

from bus_schemas.ipam import Assigned, AssignRequest, Busy, PoolExhausted, Released, tunnel_handle
from bus_schemas.subjects import AFFINITY, ASSIGN, BLOCK, HANDLE, RELEASE, Fact, Family
from chassis.bus import Bus
from chassis.errors import Unavailable
from chassis.feed import Interest
from chassis.health import Health
from chassis.runner import Context
from services.ipam.core import Reply, Request
from services.ipam.service import Allocator, serve
from services.ipam.settings import Settings
from tests.support.ipam import ask, check_invariants, give_back, node, pool, without
from tests.support.nats import NatsServer

NODES = [node(f"node-{i}") for i in range(5)]
POOLS = [pool("four", "10.0.0.0/22", vxlan_mode="Always"), pool("six", "fd00:1::/112")]
PATIENCE_S = 30.0


class Ipam:
    """One replica in a task of its own, with a connection of its own."""

    def __init__(self, url: str, instance: str) -> None:
        self._settings = Settings(nats_url=url, instance=instance, health_listen="")
        self.health = Health()
        self._stopping = asyncio.Event()

    async def _live(self) -> None:
        async with Bus.connect(self._settings, name="ipam", health=self.health) as bus:
            await serve(
                Context(
                    name="ipam",
                    settings=self._settings,
                    bus=bus,
                    health=self.health,
                    log=structlog.get_logger(),
                    stopping=self._stopping,
                )
            )

    def start(self, tasks: asyncio.TaskGroup) -> Ipam:
        self._task = tasks.create_task(self._live())
        return self

    def stop(self) -> None:
        self._stopping.set()

    async def kill(self) -> None:
        """At once, wherever it stands."""
        self._task.cancel()
        await asyncio.wait([self._task])


@asynccontextmanager
async def client(server: NatsServer, *facts: Fact) -> AsyncIterator[Bus]:
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
    async with asyncio.timeout(PATIENCE_S), bus.follow(*map(Interest, (BLOCK, AFFINITY, HANDLE))) as feed:
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


async def test_two_replicas_many_nodes_one_killed_in_the_middle(nats_server: NatsServer) -> None:
    async with client(nats_server, *NODES, *POOLS) as bus, asyncio.TaskGroup() as tasks:
        first, second = (Ipam(nats_server.url, f"ipam-{i}").start(tasks) for i in range(2))
        asked = [ask(f"h{i}", f"node-{i % 5}", families=(4,) if i % 3 else (4, 6)) for i in range(200)]
        answered = asyncio.Event()

        async def one(message: Request) -> Reply:
            reply = await request(bus, message)
            answered.set()
            return reply

        running = [tasks.create_task(one(message)) for message in asked]
        await answered.wait()
        await first.kill()
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
        second.stop()


async def test_a_node_that_leaves_gives_back_and_a_full_pool_says_so(nats_server: NatsServer) -> None:
    small = pool("small", "10.9.0.0/30", block_size=30, vxlan_mode="Always")
    async with client(nats_server, *NODES, small) as bus, asyncio.TaskGroup() as tasks:
        ipam = Ipam(nats_server.url, "ipam-0").start(tasks)
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
        assert ipam.health.ready
        ipam.stop()


async def test_nothing_is_answered_before_the_state_is_read() -> None:
    health = Health()
    settings = Settings(nats_url="nats://127.0.0.1:9")
    async with Bus.connect(settings, name="test", health=Health()) as bus, asyncio.TaskGroup() as tasks:
        allocator = Allocator(bus, settings, health, tasks)
        assert isinstance(await allocator.answer(ask("h")), Busy)
        assert isinstance(await allocator.answer(give_back("h")), Busy)
        assert not health.ready
        assert "not yet read" in health.causes["ipam"]
