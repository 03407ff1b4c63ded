"""A replica that was cut off does not write what it believed before over what was written since."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from bus_schemas.policy import Group
from bus_schemas.subjects import GROUP, LEASE, ROUTE
from chassis.bus import Bus
from chassis.derivation import Derivation
from chassis.errors import Unavailable
from chassis.feed import Batch, Feed, Interest
from chassis.heartbeat import Heartbeat
from chassis.lease import Lease
from chassis.pacing import Pacer
from chassis.runner import Context
from chassis.session import Session
from tests.support.mirror import mirror, route
from tests.support.nats import Nats
from tests.support.waiting import eventually

KEY = ("a",)
SOURCE = ("g", "0")


class Service:
    """Derives one route from one group: its node is the group's selector."""

    def __init__(self, nats: Nats, bus: Bus) -> None:
        context = Context(
            name="sample",
            settings=nats.settings(instance="cut off"),
            bus=bus,
            health=bus.health,
            log=structlog.get_logger(),
            stopping=asyncio.Event(),
            heartbeat=Heartbeat(bus, "sample", "test", bus.health, started=0.0),
        )
        self.derivation = Derivation(context, "sample", reads=[GROUP], writes=[ROUTE], pacer=Pacer(0.0, 0.0))
        self.derivation.lease._ttl_s = 1.0
        self.believed = ""

    async def run(self) -> None:
        await self.derivation.run(self.hear, self.derive)

    def hear(self, batch: Batch) -> None:
        for fact in batch.facts:
            self.believed = fact.value.selector

    async def derive(self) -> None:
        self.derivation.publication.want(ROUTE, KEY, route(self.believed))
        self.derivation.publication.complete()


async def test_a_replica_that_was_cut_off_leads_only_after_it_has_caught_up(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        nats.bus() as bus,
        nats.bus("other") as other,
        mirror(other, Interest(ROUTE)) as seen,
        asyncio.TaskGroup() as tasks,
    ):
        await other.put(GROUP, SOURCE, Group(selector="old"))
        service = Service(nats, bus)
        lease = service.derivation.lease
        running = tasks.create_task(service.run())
        await eventually(lambda: seen.nodes == {"a": "old"})

        connected, readable = asyncio.Event(), asyncio.Event()
        open_session, read = Bus._open, Feed._read

        async def cut_off(self: Bus, server: str) -> Session:
            if self is bus and not connected.is_set():
                raise Unavailable("cut off")
            return await open_session(self, server)

        async def slow(self: Feed, session: Session, unread: list[object]) -> None:
            if self is service.derivation._feed:
                await readable.wait()
            await read(self, session, unread)  # type: ignore[arg-type]

        monkeypatch.setattr(Bus, "_open", cut_off)
        monkeypatch.setattr(Feed, "_read", slow)
        assert bus._session is not None
        bus._session.end("cut off")
        successor = Lease(other, "sample", "successor", ttl_s=1.0)
        while not successor.held:
            await successor._step()
        await other.put(GROUP, SOURCE, Group(selector="new"))
        await other.put(ROUTE, KEY, route("new"))
        await other.delete(LEASE, ("sample",))  # the successor leaves

        connected.set()
        await bus.connected()
        publication = service.derivation.publication
        await eventually(lambda: publication.pending == 1)  # it sees what it did not write, and would "repair" it
        lease.became_fit()
        await lease._step()
        assert not lease.held
        readable.set()
        await eventually(lambda: lease.held)
        await publication.flush()
        assert seen.nodes == {"a": "new"}
        assert [value.node for value in seen.told("a")] == ["old", "new"]
        running.cancel()
