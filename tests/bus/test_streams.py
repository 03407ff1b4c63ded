"""The streams as the map of the system asks for them, on a real server."""

from __future__ import annotations

import asyncio

import pytest

from bus_schemas.subjects import LIVE_PREFIX, PREFIX, ROUTE, STREAMS, Stream
from chassis import jetstream, streams
from chassis.errors import Unusable
from chassis.health import Health
from tests.support.mirror import route
from tests.support.nats import Nats
from tests.support.waiting import eventually


async def test_every_stream_is_as_asked(nats: Nats) -> None:
    async with nats.bus() as bus:
        session = await bus.session()
        for spec in STREAMS.values():
            info = await jetstream.stream_info(session, spec.stream)
            assert info is not None
            assert streams.differences(streams.wanted(spec, 1), info.config) == []
            assert info.config["republish"] == {"src": PREFIX + ">", "dest": LIVE_PREFIX + ">"}


async def test_a_stream_made_otherwise_is_updated(nats: Nats) -> None:
    async with nats.bus() as bus:
        session = await bus.session()
        asked = streams.wanted(STREAMS[Stream.ROUTES], 1)
        await jetstream.update_stream(session, asked | {"max_msgs_per_subject": 5, "allow_direct": False})
        await streams.ensure(session, 1)
        info = await jetstream.stream_info(session, Stream.ROUTES)
        assert info is not None
        assert info.config["max_msgs_per_subject"] == 1
        assert info.config["allow_direct"] is True


async def test_a_stream_that_cannot_be_as_asked_makes_the_bus_unusable(nats: Nats) -> None:
    health = Health()
    async with nats.bus() as bus:
        session = await bus.session()
        await jetstream.api(session, f"STREAM.DELETE.{Stream.ROUTES}")
        asked = streams.wanted(STREAMS[Stream.ROUTES], 1)
        await jetstream.create_stream(session, asked | {"storage": "memory"})
        with pytest.raises(Unusable, match=Stream.ROUTES):
            await streams.ensure(session, 1)
        async with nats.bus(health=health):
            await eventually(lambda: str(Stream.ROUTES) in health.causes["bus"])


async def test_a_stream_removed_under_a_living_session_is_made_again(nats: Nats) -> None:
    async with nats.bus() as bus:
        before = await bus.put(ROUTE, ("a",), route("n1"))
        await jetstream.api(await bus.session(), f"STREAM.DELETE.{Stream.ROUTES}")
        assert await bus.put(ROUTE, ("a",), route("n1")) > before, "no sequence of an earlier life comes again"


async def test_many_make_the_streams_at_once(nats: Nats) -> None:
    async with nats.bus() as one, nats.bus() as other, nats.bus() as third:
        await asyncio.gather(one.connected(), other.connected(), third.connected())
        await asyncio.gather(*(bus.put(ROUTE, (f"{i}",), route("n1")) for i, bus in enumerate((one, other, third))))
