"""A bus, replicas of ipam as processes of their own and agents without a kernel; what may break in it, and the books.

The agents are `tests.support.holding`: the agent's own store, announcements, debts and word. Clients see what a
container runtime sees: ADD and DEL until they succeed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from bus_schemas.ids import NodeName, PodKey
from bus_schemas.ipam import Assigned
from bus_schemas.ipam_check import Records, check
from bus_schemas.ipam_check.records import FAMILIES
from bus_schemas.resources import Metadata, Node
from bus_schemas.status import STATUS_TTL_S, Status
from bus_schemas.subjects import (
    BLOCK,
    CANDIDATE,
    DESIRED,
    ENDPOINT,
    EPOCH,
    HANDLE,
    HOLDING,
    STATUS,
    Fact,
    Family,
    Key,
    Stream,
)
from chassis import jetstream
from chassis.bus import Bus
from chassis.errors import BusError
from chassis.feed import Interest
from chassis.health import Health
from chassis.settings import ServiceSettings
from tests.support.holding import FakeAgent, agent
from tests.support.ipam import check_invariants, pool
from tests.support.nats import Nats
from tests.support.waiting import within

PATIENCE_S = 60.0
POOLS = (pool("four", "10.0.0.0/20", block_size=28), pool("six", "fd00::/112", block_size=124))

RUN_IPAM = """
from chassis.runner import run
from services.ipam.service import serve
from services.ipam.settings import Settings
raise SystemExit(run("ipam", Settings, serve))
"""


class IpamWorld:
    """Made by `ipam_world`."""

    def __init__(self, nats: Nats, bus: Bus, directory: Path, settings: dict[str, str]) -> None:
        self.nats = nats
        self.bus = bus
        self.agents: dict[str, FakeAgent] = {}
        self.replicas: dict[str, Process] = {}
        self.desired: list[Fact] = []
        """What people asked for: whoever mirrors it writes it back."""
        self._directory = directory
        self._settings = settings
        self._lives: dict[str, AsyncExitStack] = {}

    # --- who takes part

    async def ask_for(self, *facts: Fact) -> None:
        for fact in facts:
            await self.bus.put(fact.family, fact.key, fact.value)
            self.desired.append(fact)

    async def add_node(self, name: str) -> FakeAgent:
        """A Node resource, made now, and its agent."""
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        resource = Node(metadata=Metadata(name=name, creation_timestamp=created))
        await self.ask_for(Fact(DESIRED[Node], ("", name), resource))
        return await self.start_agent(name)

    async def remove_node(self, name: str) -> None:
        """The resource alone."""
        self.desired = [fact for fact in self.desired if fact.key != ("", name)]
        await self.bus.delete(DESIRED[Node], ("", name))

    async def start_agent(self, name: str) -> FakeAgent:
        stack = self._lives[name] = AsyncExitStack()
        self.agents[name] = await stack.enter_async_context(agent(self.nats.url, name, self._directory / name))
        await self.alive(name)
        return self.agents[name]

    async def kill_agent(self, name: str) -> None:
        """It says nothing any more; its store stays. Its last sign of life is over, too."""
        del self.agents[name]
        await self._lives.pop(name).aclose()
        await self.bus.delete(STATUS, ("node_dataplane", name))

    async def alive(self, name: str) -> None:
        """The agent's sign of life, which here does not expire while a test waits."""
        status = Status(component="node_dataplane", instance=name, node=NodeName(name), started=0.0, ready=True)
        await self.bus.put(STATUS, ("node_dataplane", name), status, ttl_s=30 * STATUS_TTL_S)

    async def start_ipam(self, name: str) -> None:
        environ = {"TORTIE_NATS_URL": self.nats.url, "TORTIE_INSTANCE": name, "TORTIE_HEALTH_LISTEN": ""}
        self.replicas[name] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            RUN_IPAM,
            env=os.environ | environ | self._settings,
            cwd=Path(__file__).parents[2],
            stderr=None if os.environ.get("SEE_IPAM") else DEVNULL,
        )

    async def kill_ipam(self, name: str) -> None:
        process = self.replicas.pop(name)
        assert process.returncode is None, f"{name} ended by itself: {process.returncode}"
        process.kill()
        await process.wait()

    async def close(self) -> None:
        for process in self.replicas.values():
            if process.returncode is None:
                process.kill()
                await process.wait()
        for stack in self._lives.values():
            await stack.aclose()

    # --- what breaks

    async def wipe(self, *streams: Stream, operation: str = "PURGE") -> None:
        """PURGE or DELETE; a deleted stream is made again by whoever needs it first."""
        for stream in streams:
            await jetstream.api(await self.bus.session(), f"STREAM.{operation}.{stream}")

    async def lose_the_store(self) -> None:
        """The server comes back with nothing, and what people asked for is written again. Not within the second in
        which the youngest Node was made: its age is told in whole seconds, and one that is not older is not awaited."""
        made = [fact.value.metadata.creation_timestamp for fact in self.desired if fact.family is DESIRED[Node]]
        youngest = max(map(datetime.fromisoformat, made)).timestamp()

        async def are_older() -> bool:
            return time.time() > youngest + 1.0

        await within(are_older, "the Nodes are older than the loss")
        await self.nats.wipe()
        await self.bus.connected()
        await self.write_back()

    async def write_back(self) -> None:
        """As the api does with what it mirrors."""
        for fact in self.desired:
            while True:
                try:
                    if (await self.bus.get(fact.family, fact.key)).value is None:
                        await self.bus.put(fact.family, fact.key, fact.value)
                except BusError:
                    continue
                break

    # --- what a runtime does

    async def add(self, node: str, name: str, *, families: tuple[int, ...] = ()) -> tuple[str, ...]:
        """ADD until it succeeds."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                reply = await self.agents[node].add(name, families=families)
                if isinstance(reply, Assigned):
                    return reply.addresses
                await asyncio.sleep(0.05)

    async def opened(self) -> None:
        """Addresses are given."""

        async def ready() -> bool:
            for name, process in self.replicas.items():
                assert process.returncode is None, f"{name} ended by itself: {process.returncode}"
            epoch = await self.epoch()
            return epoch is not None and epoch.state == "ready"

        await within(ready, "the records are ready", PATIENCE_S)

    async def epoch(self) -> Any:
        """None: there is none, or it cannot be read now."""
        try:
            return (await self.bus.get(EPOCH, ())).value
        except BusError:
            return None

    # --- the books

    async def snapshot(self, *families: Family[Any]) -> dict[Family[Any], dict[Key, Any]]:
        found: dict[Family[Any], dict[Key, Any]] = {family: {} for family in families}
        async with asyncio.timeout(PATIENCE_S), self.bus.follow(*map(Interest, families)) as feed:
            while not feed.in_sync:
                for fact in (await feed.next()).facts:
                    if fact.value is not None:
                        found[fact.family][fact.key] = fact.value
        return found

    async def discrepancies(self) -> list[str]:
        """What is not so that must be so when everything is quiet: what is held is exactly what the agents have."""
        bus = await self.snapshot(BLOCK, HANDLE, ENDPOINT, HOLDING, CANDIDATE)
        given = check_invariants(bus[BLOCK].values(), bus[HANDLE].values())
        wanted: dict[str, str] = {}
        faults: list[str] = []
        for made in self.agents.values():
            for plugin in made.store.all():
                for address in plugin.endpoint.addresses:
                    if address in wanted:
                        faults.append(f"{address} is {wanted[address]}'s and {plugin.handle}'s")
                    wanted[address] = plugin.handle
        faults += [f"{address} of {wanted[address]} is lost" for address in sorted(wanted.keys() - given.keys())]
        reasons = {handle: candidate.reason for (handle,), candidate in bus[CANDIDATE].items()}
        faults += [
            f"{address} is forgotten by {given[address]}: {reasons.get(given[address], 'it is no candidate')}"
            for address in sorted(given.keys() - wanted.keys())
        ]
        faults += [
            f"{address} is {given[address]}'s, not {wanted[address]}'s"
            for address in sorted(given.keys() & wanted.keys())
            if given[address] != wanted[address]
        ]
        known = {(name, *pod) for name, pod in self._pods()}
        found = set(bus[ENDPOINT])
        faults += [f"endpoint {key} is missing" for key in sorted(known - found)]
        faults += [f"endpoint {key} is nobody's" for key in sorted(found - known)]
        return faults

    async def check_finds_nothing(self, *, within_s: float = PATIENCE_S) -> None:
        """As `tortie ipam check`."""

        async def clean() -> bool:
            try:
                found = await self.snapshot(*FAMILIES)
            except (BusError, TimeoutError) as error:
                raise AssertionError(str(error)) from error
            facts = (Fact(family, key, value, 1) for family, some in found.items() for key, value in some.items())
            report = check(Records.of(facts), time.time())
            assert report.problems == (), "\n  ".join(["the check:", *map(str, report.problems)])
            return True

        await within(clean, "the check finds nothing", within_s)

    def _pods(self) -> Iterable[tuple[str, PodKey]]:
        return ((name, plugin.pod) for name, made in self.agents.items() for plugin in made.store.all())

    async def books_agree(self, *, within_s: float = PATIENCE_S) -> None:
        async def agree() -> bool:
            try:
                faults = await self.discrepancies()
            except (BusError, TimeoutError) as error:
                raise AssertionError(str(error)) from error
            assert faults == [], "\n  ".join(["the books do not agree:", *faults])
            return True

        await within(agree, "the books agree", within_s)


@asynccontextmanager
async def ipam_world(directory: Path, *, replicas: int = 1, **settings: str) -> AsyncIterator[IpamWorld]:
    """A running bus with the pools on it, and replicas of ipam. `settings`: environment of ipam without the prefix."""
    environ = {f"TORTIE_{name.upper()}": value for name, value in settings.items()}
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(Nats(directory / "nats"))
        options = ServiceSettings(nats_url=nats.url, instance="world", health_listen="")
        bus = await stack.enter_async_context(Bus.connect(options, name="world", health=Health()))
        await bus.connected()
        world = IpamWorld(nats, bus, directory, environ)
        stack.push_async_callback(world.close)
        await world.ask_for(*POOLS)
        for i in range(replicas):
            await world.start_ipam(f"ipam-{i}")
        yield world
