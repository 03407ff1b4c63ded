"""Route distribution as a service: facts on a real bus in, routes on the bus out, whoever of the replicas lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from bus_schemas.routes import Route
from bus_schemas.subjects import BGP, BGP_MESH, ROUTE, Fact
from chassis.bus import Bus
from chassis.feed import Interest
from chassis.health import Health
from services.route_distribution.settings import Settings
from tests.support.expanders import gone
from tests.support.nats import Nats
from tests.support.route_service import replica
from tests.support.routes import block, direct, node, pool, tunnelled
from tests.support.speakers import configuration, peer

DEADLINE_S = 20.0


N1, N2 = node("node1", "10.0.0.15/24"), node("node2", "10.0.1.16/24")
B1, B2 = block("10.244.1.0/26", "node1"), block("10.244.2.0/26", "node2", tunnels={"node2": 3})
DIRECT1, DIRECT2 = direct("10.244.1.0/26", "node1", "10.0.0.15/24"), direct("10.244.2.0/26", "node2", "10.0.1.16/24")
WORLD = (N1, N2, pool("pool4", "10.244.0.0/16"), B1, B2)


class Routes:
    """The routes as a node sees them, and a hand that changes the world."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._seen: dict[str, Route] = {}
        self._moved = asyncio.Event()

    async def follow(self) -> None:
        async with self._bus.follow(Interest(ROUTE)) as feed:
            while True:
                for fact in (await feed.next()).facts:
                    if fact.value is None:
                        self._seen.pop(fact.key[0], None)
                    else:
                        self._seen[fact.key[0]] = fact.value
                self._moved.set()

    async def tell(self, *facts: Fact) -> None:
        for fact in facts:
            if fact.value is None:
                await self._bus.delete(fact.family, fact.key)
            else:
                await self._bus.put(fact.family, fact.key, fact.value)

    async def become(self, *routes: Route) -> None:
        await self.until(lambda seen: seen == {route.cidr: route for route in routes})

    async def until(self, condition: Callable[[dict[str, Route]], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self._seen):
                self._moved.clear()
                await self._moved.wait()

    async def heard(self, interest: Interest, keys: set[str]) -> dict[str, Any]:
        """What a follower of the interest knows once it is exactly these keys' values."""
        seen: dict[str, Any] = {}
        async with asyncio.timeout(DEADLINE_S), self._bus.follow(interest) as feed:
            while True:
                for fact in (await feed.next()).facts:
                    seen[fact.key[0]] = fact.value
                if {key for key, value in seen.items() if value is not None} == keys:
                    return seen

    async def put_foreign(self, route: Route | None, cidr: str) -> None:
        if route is None:
            await self._bus.delete(ROUTE, (cidr,))
        else:
            await self._bus.put(ROUTE, (cidr,), route)


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[Routes]:
    async with (
        Bus.connect(Settings(nats_url=url), name="watcher", health=Health()) as bus,
        asyncio.TaskGroup() as tasks,
    ):
        await bus.connected()
        routes = Routes(bus)
        following = tasks.create_task(routes.follow())
        try:
            yield routes
        finally:
            following.cancel()


async def test_routes_follow_the_world(nats: Nats) -> None:
    async with watching(nats.url) as routes, replica(nats.url, "a"):
        await routes.tell(*WORLD)
        await routes.become(DIRECT1, DIRECT2)
        await routes.tell(pool("pool4", "10.244.0.0/16", "Always"))
        await routes.become(
            tunnelled("10.244.1.0/26", "node1", "10.0.0.15/24", "", "Always"),
            tunnelled("10.244.2.0/26", "node2", "10.0.1.16/24", "10.244.2.3", "Always"),
        )
        await routes.tell(pool("pool4", "10.244.0.0/16"), gone(N2))
        await routes.become(DIRECT1)


async def test_what_was_left_by_a_former_replica_is_taken_away(nats: Nats) -> None:
    async with watching(nats.url) as routes:
        await routes.tell(*WORLD)
        async with replica(nats.url, "a"):
            await routes.become(DIRECT1, DIRECT2)
        await routes.tell(gone(B2))
        async with replica(nats.url, "b"):
            await routes.become(DIRECT1)


async def test_the_other_replica_takes_over(nats: Nats) -> None:
    async with watching(nats.url) as routes, replica(nats.url, "b"):
        async with replica(nats.url, "a"):
            await routes.tell(*WORLD)
            await routes.become(DIRECT1, DIRECT2)
        await routes.tell(gone(B1))
        await routes.become(DIRECT2)


async def test_a_route_that_somebody_else_wrote_or_took_is_repaired(nats: Nats) -> None:
    async with watching(nats.url) as routes, replica(nats.url, "a"):
        await routes.tell(*WORLD)
        await routes.become(DIRECT1, DIRECT2)
        await routes.put_foreign(direct("10.244.1.0/26", "node9", ""), "10.244.1.0/26")
        await routes.put_foreign(None, "10.244.2.0/26")
        await routes.put_foreign(direct("10.9.9.0/24", "node9", ""), "10.9.9.0/24")
        await routes.become(DIRECT1, DIRECT2)


async def test_routes_survive_a_restart_of_the_bus(nats: Nats) -> None:
    async with watching(nats.url) as routes, replica(nats.url, "a"):
        await routes.tell(*WORLD)
        await routes.become(DIRECT1, DIRECT2)
        await nats.stop()
        await nats.start()
        await routes.until(lambda seen: len(seen) == 2)
        async with Bus.connect(Settings(nats_url=nats.url), name="writer", health=Health()) as bus:
            await bus.connected()
            await bus.delete(B1.family, B1.key)
        await routes.become(DIRECT2)


async def test_what_is_withheld_is_named_in_health(nats: Nats) -> None:
    async with watching(nats.url) as routes, replica(nats.url, "a") as health:
        await routes.tell(*WORLD)
        await routes.become(DIRECT1, DIRECT2)
        older = block("10.244.2.0/24", "node1", claimed=0.5)
        await routes.tell(older)
        await routes.become(DIRECT1, direct("10.244.2.0/24", "node1", DIRECT1.address))
        assert "10.244.2.0/24" in health.notes["contested 10.244.2.0/26"]
        await routes.tell(gone(older))
        await routes.become(DIRECT1, DIRECT2)
        assert "contested 10.244.2.0/26" not in health.notes


async def test_sessions_follow_the_world(nats: Nats) -> None:
    async with watching(nats.url) as routes, replica(nats.url, "a"):
        await routes.tell(*WORLD, configuration())
        members = await routes.heard(Interest(BGP_MESH), {"node1", "node2"})
        assert members["node2"].address4 == "10.0.1.16"
        await routes.become(DIRECT1, DIRECT2)
        record = (await routes.heard(Interest(BGP, ("node1",)), {"node1"}))["node1"]
        assert (record.mesh is not None, record.address4) == (True, "10.0.0.15/24")
        await routes.tell(peer("tor", node="node2", peer_ip="192.0.2.1", as_number=65001), gone(N1))
        await routes.heard(Interest(BGP_MESH), {"node2"})
        await routes.heard(Interest(BGP), {"node2"})
        await routes.tell(gone(peer("tor")), gone(configuration()))
        await routes.heard(Interest(BGP), set())
