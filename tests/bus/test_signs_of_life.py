"""Events and the heartbeat."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bus_schemas.codec import decode
from bus_schemas.events import Event
from bus_schemas.subjects import EVENT, STATUS, Stream
from chassis import bus as bus_module
from chassis import jetstream
from chassis.feed import Interest
from chassis.heartbeat import Heartbeat
from chassis.metrics import EVENTS_DROPPED
from tests.support.mirror import mirror
from tests.support.nats import Nats
from tests.support.waiting import until


def event(what: str) -> Event:
    return Event(time=1.0, domain="bus", what=what, message="It happened.")


async def test_events_are_kept_in_order_and_sent_when_the_bus_comes(nats: Nats) -> None:
    await nats.stop()
    async with nats.bus() as bus:
        for i in range(10):
            bus.emit(event(f"w{i}"))
        await nats.start()

        async def stored() -> bool:
            info = await jetstream.stream_info(await bus.session(), Stream.EVENTS)
            return info is not None and info.state.messages == 10

        await until(stored, "the events are stored")
        last = await jetstream.last(await bus.session(), Stream.EVENTS, EVENT.filter("bus"))
        assert last is not None
        assert decode(last.payload, Event) == event("w9")


async def test_events_never_block_and_what_is_dropped_is_counted(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "EVENT_BUFFER", 3)
    await nats.stop()
    before = EVENTS_DROPPED._value.get()
    async with nats.bus() as bus:
        for i in range(10):
            bus.emit(event(f"w{i}"))
        assert EVENTS_DROPPED._value.get() == before + 7


async def test_a_storm_becomes_a_few_events_and_a_number(nats: Nats) -> None:
    async with nats.bus() as bus:
        for i in range(5000):
            bus.emit(Event(time=1.0, domain="route", what="changed", object=str(i), message="m"))

        async def last() -> Event | None:
            found = await jetstream.last(await bus.session(), Stream.EVENTS, EVENT.filter("route"))
            return decode(found.payload, Event) if found is not None else None

        async def summed() -> bool:
            event = await last()
            return event is not None and event.detail == {"count": "4980"}

        await until(summed, "the number is told")
        info = await jetstream.stream_info(await bus.session(), Stream.EVENTS)
        assert info is not None
        assert info.state.messages == 21


async def test_an_event_says_what_to_do(nats: Nats) -> None:
    async with nats.bus() as bus:
        bus.emit(Event(time=1.0, domain="node", what="link_gone", object="shop/db", message="m"))

        async def told() -> bool:
            found = await jetstream.last(await bus.session(), Stream.EVENTS, EVENT.filter("node"))
            if found is None:
                return False
            event = decode(found.payload, Event)
            return (event.severity, event.advice) == ("error", "Restart the pod.")

        await until(told, "severity and advice are on the bus")


async def test_heartbeat_says_how_it_is_and_readiness_at_once(nats: Nats) -> None:
    async with nats.bus() as bus, mirror(bus, Interest(STATUS)) as seen, asyncio.TaskGroup() as tasks:
        heartbeat = Heartbeat(bus, "ipam", "a", bus.health, started=5.0)
        task = tasks.create_task(heartbeat.run())

        def status() -> Any:
            return seen.values.get(("ipam", "a"))

        async def ready() -> bool:
            return status() is not None and status().ready

        async def unready() -> bool:
            return status() is not None and status().causes == ("pools: none yet",)

        await until(ready, "it is ready")
        assert status().started == 5.0
        bus.health.fail("pools", "none yet")
        await until(unready, "it says that it is not ready")
        task.cancel()
