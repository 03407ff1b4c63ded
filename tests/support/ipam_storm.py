"""A storm of address requests against real replicas, and what must be so when it is over.

    nodes x addresses --ask as agents do--> door --> nats-server <-- door <-- replicas of ipam, processes of their own
                                             `-- what passes here can be cut, or vanish on its way back

Every request ends with an address, or with words that say why not; who asks again under the same handle is told the
same; and what the bus holds is exactly what was answered, by the check of `tortie ipam check`.
"""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, AssignRequest, Busy, Held, Holding, PoolExhausted
from bus_schemas.ipam_check import Records, check
from bus_schemas.ipam_check.records import FAMILIES
from bus_schemas.subjects import ASSIGN, EPOCH, HOLDING, Fact
from chassis.bus import Bus
from chassis.errors import BusError, Unavailable
from chassis.feed import Interest
from chassis.health import Health
from chassis.settings import ServiceSettings
from tests.support.ipam import node
from tests.support.ipam_process import ipam_process
from tests.support.nats import Nats
from tests.support.waiting import within

NODES, EACH = 60, 5
PATIENCE_S = 60.0
REQUEST_S = 1.0
"""How long one request waits: short, so that a fault does not last as long as agents' patience."""
PAUSE_S = 0.05


class Door:
    """A way to the server of which the test is the master."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._visitors: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._deaf: set[asyncio.StreamWriter] = set()
        self.url = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Door]:
        listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            listening.close()
            self.cut()
            if self._visitors:
                await asyncio.wait(list(self._visitors))

    def cut(self) -> None:
        """Every connection ends; who comes again may pass."""
        for writers in self._visitors.values():
            for writer in writers:
                writer.transport.abort()

    def lose_answers(self) -> None:
        """What the server says on the present connections reaches nobody any more."""
        self._deaf.update(writers[0] for writers in self._visitors.values())

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._visitors[task] = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._server)
            self._visitors[task].append(far_writer)
            await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
        except OSError:
            writer.transport.abort()  # the server is not there
        finally:
            self._deaf.discard(writer)
            del self._visitors[task]

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if writer not in self._deaf:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass  # cut: the other half ends, too
        finally:
            writer.transport.abort()


class Storm:
    """Made by `storm_of`. `some_answered` is set when a part of the requests is."""

    def __init__(
        self, nats: Nats, agents: Door, behind: Door, replicas: Sequence[Process], bus: Bus, asking: Bus
    ) -> None:
        self.nats = nats
        self.agents = agents
        """Through which the nodes ask."""
        self.behind = behind
        """Through which the first replica reaches the bus."""
        self.replicas = replicas
        self.bus = bus
        """Past all doors."""
        self.some_answered = asyncio.Event()
        self.answered: dict[HandleId, Assigned | PoolExhausted] = {}
        self._asking = asking

    async def run(self, *, copies: int = 1) -> None:
        """Every node asks for some addresses at once, then for the rest. `copies`: as often each request is sent."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(NODES):
                tasks.create_task(self._node(f"node-{number}", copies))

    async def _node(self, name: str, copies: int) -> None:
        handles = [HandleId(f"{name}.{number}") for number in range(EACH)]
        for some in (handles[:2], handles[2:]):
            await asyncio.gather(*(self._ask_and_note(name, handle) for handle in some for _ in range(copies)))

    async def _ask_and_note(self, name: str, handle: HandleId) -> None:
        reply = await self.ask(name, handle)
        if isinstance(known := self.answered.setdefault(handle, reply), Assigned):
            assert isinstance(reply, Assigned), (handle, known, reply)
            assert reply.addresses == known.addresses, (handle, known, reply)
        if len(self.answered) >= NODES * EACH // 6:
            self.some_answered.set()

    async def ask(self, name: str, handle: HandleId) -> Assigned | PoolExhausted:
        """Until there is an answer."""
        request = AssignRequest(node=NodeName(name), handle=handle, families=(4,), namespace="storm", pod=handle)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    reply = await self._asking.request(ASSIGN, request, timeout_s=REQUEST_S)
                except Unavailable:
                    continue
                if isinstance(reply, Assigned | PoolExhausted):
                    return reply
                assert isinstance(reply, Busy), reply
                await asyncio.sleep(PAUSE_S)

    async def is_over(self) -> None:
        """Who asks again is told the same, no address is two handles', and the books say what was answered."""
        again = await asyncio.gather(*(self.ask(handle.rpartition(".")[0], handle) for handle in self.answered))
        given: dict[str, HandleId] = {}
        for handle, reply in zip(list(self.answered), again, strict=True):
            known = self.answered[handle]
            if isinstance(known, Assigned):
                assert isinstance(reply, Assigned), (handle, known, reply)
                assert (reply.addresses, reply.repeated) == (known.addresses, True), (handle, known, reply)
            self.answered[handle] = reply
            for address in reply.addresses if isinstance(reply, Assigned) else ():
                assert given.setdefault(address, handle) == handle, f"{address}: {given[address]} and {handle}"
        await self._say_what_is_held(given)
        await within(self._books_agree, "the books agree", PATIENCE_S)

    @property
    def given(self) -> int:
        return sum(isinstance(reply, Assigned) for reply in self.answered.values())

    async def _say_what_is_held(self, given: dict[str, HandleId]) -> None:
        """As the agents would."""
        epoch = (await self.bus.get(EPOCH, ())).value.id
        held: dict[NodeName, list[Held]] = {}
        for address, handle in given.items():
            name = NodeName(handle.rpartition(".")[0])
            held.setdefault(name, []).append(Held(handle=handle, addresses=(address,), use="workload"))
        for name, some in held.items():
            await self.bus.put(HOLDING, (name,), Holding(node=name, epoch=epoch, held=tuple(some)))

    async def _books_agree(self) -> bool:
        facts: list[Fact] = []
        async with self.bus.follow(*map(Interest, FAMILIES)) as feed:
            while not feed.in_sync:
                facts += (await feed.next()).facts
        report = check(Records.of(facts), time.time())
        assert report.problems == (), report.problems
        assert report.counts.allocations == report.counts.handles == self.given
        return True


@asynccontextmanager
async def storm_of(directory: Path, replicas: int, *facts: Fact) -> AsyncIterator[Storm]:
    """Replicas that have read `facts` and the nodes, and are ready."""
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(Nats(directory / "nats"))
        agents, behind = [await stack.enter_async_context(Door(nats.host, nats.port).open()) for _ in range(2)]
        buses = []
        for url in (nats.url, agents.url):
            settings = ServiceSettings(nats_url=url, instance="storm", health_listen="")
            buses.append(await stack.enter_async_context(Bus.connect(settings, name="storm", health=Health())))
        for fact in (*facts, *(node(f"node-{number}") for number in range(NODES))):
            await buses[0].put(fact.family, fact.key, fact.value)
        urls = [behind.url] + [nats.url] * (replicas - 1)
        running = [await stack.enter_async_context(ipam_process(url, f"ipam-{i}")) for i, url in enumerate(urls)]
        storm = Storm(nats, agents, behind, running, *buses)
        await storm.ask("node-0", HandleId("node-0.0"))
        yield storm


async def ready_again(storm: Storm) -> None:
    """The bus of the test has found the server again."""

    async def there() -> bool:
        try:
            return (await storm.bus.get(EPOCH, ())).value is not None
        except BusError:
            return False

    await within(there, "the bus is back", PATIENCE_S)
