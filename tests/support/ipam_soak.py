"""Pods come and go on many nodes while everything that can fails: what `make soak` and its short sample run.

    agents (real code, no kernel) --ADD, DEL, leaks--> replicas of ipam --> nats-server
    breaker: kills a replica, the server, an agent; loses the records or the endpoints   every moment

Then it is quiet, and everything must be explained: the check of `tortie ipam check` finds nothing, every pod has what
it was given, and nobody else has any.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from bus_schemas.ipam import Assigned
from bus_schemas.subjects import Stream
from chassis.errors import BusError
from tests.support.holding import FakeAgent
from tests.support.ipam_world import IpamWorld
from tests.support.waiting import within

MAX_PODS = 12
"""On one node."""
LEAKS = 0.05
"""The share of DELs that nobody gives back."""
QUIET_S = 120.0


class Soak:
    def __init__(self, world: IpamWorld, dice: random.Random, *, nodes: int, replicas: int, fault_s: float) -> None:
        """`fault_s`: about so often something breaks."""
        self._world = world
        self._dice = dice
        self._nodes = [f"n{i}" for i in range(nodes)]
        self._replicas = [f"ipam-{i}" for i in range(replicas)]
        self._fault_s = fault_s
        self._pods = 0
        self.counts: Counter[str] = Counter()
        self._faults: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "ipam killed": (4, self._kill_ipam),
            "agent killed": (4, self._kill_agent),
            "server killed": (2, self._kill_server),
            "records purged": (1, self._purge_records),
            "records deleted": (1, self._delete_records),
            "endpoints purged": (1, self._purge_endpoints),
            "store lost": (1, self._lose_store),
        }

    async def run(self, duration_s: float) -> None:
        """Begins with an empty world, ends when everything is quiet. Raises AssertionError."""
        await asyncio.gather(*map(self._world.add_node, self._nodes))
        await self._world.opened()
        loop = asyncio.get_running_loop()
        until = loop.time() + duration_s
        async with asyncio.TaskGroup() as tasks:
            for node in self._nodes:
                tasks.create_task(self._live(node, until))
            tasks.create_task(self._break(until))
        await self.quiet()

    async def quiet(self) -> None:
        for name in self._nodes:
            if name not in self._world.agents:
                await self._world.start_agent(name)
            await self._world.alive(name)
        for name in self._replicas:
            if name not in self._world.replicas:
                await self._world.start_ipam(name)

        async def recovered() -> bool:
            epoch = await self._world.epoch()
            return epoch is not None and epoch.state == "ready"

        await within(recovered, "addresses are given", QUIET_S)
        await self._world.books_agree(within_s=QUIET_S)
        await self._world.check_finds_nothing(within_s=QUIET_S)

    # --- pods

    async def _live(self, node: str, until: float) -> None:
        loop = asyncio.get_running_loop()
        dice = random.Random(f"{self._dice.random()} {node}")
        while loop.time() < until:
            await asyncio.sleep(dice.uniform(0.0, 0.2))
            made = self._world.agents.get(node)
            if made is None:
                continue
            try:
                await self._come_or_go(made, dice)
            except BusError:
                self.counts["no bus"] += 1

    async def _come_or_go(self, made: FakeAgent, dice: random.Random) -> None:
        pods = [plugin.pod.name for plugin in made.store.all()]
        if len(pods) < dice.randrange(MAX_PODS):
            self._pods += 1
            reply = await made.add(f"p{self._pods}", families=dice.choice([(4,), (4, 6)]))
            self.counts["added" if isinstance(reply, Assigned) else "not added"] += 1
        elif pods:
            name = dice.choice(pods)
            if dice.random() < LEAKS:
                await made.forget(name)
                self.counts["leaked"] += 1
            else:
                await made.delete(name)
                self.counts["deleted"] += 1

    # --- what breaks

    async def _break(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        names = list(self._faults)
        weights = [self._faults[name][0] for name in names]
        while (left := until - loop.time()) > 0:
            await asyncio.sleep(min(left, self._dice.uniform(0.3, 1.7) * self._fault_s))
            if loop.time() >= until:
                return
            [name] = self._dice.choices(names, weights)
            self.counts[name] += 1
            await self._faults[name][1]()

    async def _kill_ipam(self) -> None:
        name = self._dice.choice(self._replicas)
        await self._world.kill_ipam(name)
        await self._world.start_ipam(name)

    async def _kill_agent(self) -> None:
        name = self._dice.choice(self._nodes)
        await self._retried(lambda: self._world.kill_agent(name))
        await asyncio.sleep(self._dice.uniform(0.0, self._fault_s))
        await self._retried(lambda: self._world.start_agent(name))

    async def _kill_server(self) -> None:
        await self._world.nats.kill()
        await asyncio.sleep(self._dice.uniform(0.0, 1.0))
        await self._world.nats.start()

    async def _purge_records(self) -> None:
        await self._retried(lambda: self._world.wipe(Stream.BLOCKS))

    async def _delete_records(self) -> None:
        await self._retried(lambda: self._world.wipe(Stream.BLOCKS, operation="DELETE"))

    async def _purge_endpoints(self) -> None:
        await self._retried(lambda: self._world.wipe(Stream.ENDPOINTS))

    async def _lose_store(self) -> None:
        """All streams; the api mirrors what people asked for."""
        await self._world.nats.wipe()
        await self._world.write_back()
        for name in list(self._world.agents):
            await self._retried(lambda name=name: self._world.alive(name))  # type: ignore[misc]

    async def _retried(self, act: Callable[[], Awaitable[object]]) -> None:
        """The bus may be away."""
        for _ in range(100):
            try:
                await act()
            except BusError:
                await asyncio.sleep(0.1)
            else:
                return
        raise AssertionError("the bus does not come back")
