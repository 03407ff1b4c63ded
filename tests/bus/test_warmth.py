"""The leader has the server read all of a stream, a piece at a time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from bus_schemas.policy import Group
from bus_schemas.subjects import GROUP, ROUTE, Stream
from chassis import jetstream, warmth
from chassis.bus import Bus, Write
from chassis.errors import Unavailable
from chassis.warmth import Warmth
from tests.support.mirror import route
from tests.support.nats import Nats
from tests.support.waiting import eventually

KEYS = 40
SIZE = 100_000


async def fill(bus: Bus) -> None:
    for at in range(0, KEYS, 10):
        await bus.batch([Write(GROUP, (f"g{n}", "0"), Group(v4=bytes(SIZE))) for n in range(at, at + 10)])


def of(bus: Bus, streams: list[Stream], *, limit_bytes: int = 10**9) -> Warmth:
    return Warmth(bus, streams, limit_bytes=limit_bytes, wanted=lambda: True)


async def test_it_reads_a_message_of_every_stride(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int | None] = []
    touch = jetstream.touch

    async def seen(*arguments: object) -> int | None:
        read.append(await touch(*arguments))  # type: ignore[arg-type]
        return read[-1]

    async with nats.bus() as bus:
        await fill(bus)
        first = (await bus.get(GROUP, ("g0", "0"))).sequence
        monkeypatch.setattr(jetstream, "touch", seen)
        assert await of(bus, [Stream.POLICY]).turn() == len(read)
    apart = warmth.STRIDE // SIZE
    found = [sequence for sequence in read if sequence is not None]
    assert found[0] == first
    assert found[-1] >= first + KEYS - apart
    assert all(0 < after - before <= apart for before, after in pairwise(found))


async def test_what_was_replaced_is_passed_over(nats: Nats) -> None:
    async with nats.bus() as bus:
        await fill(bus)
        first = (await bus.get(GROUP, ("g0", "0"))).sequence
        await fill(bus)
        session = await bus.session()
        assert await jetstream.touch(session, Stream.POLICY, first) == first + KEYS
        assert await jetstream.touch(session, Stream.POLICY, first + 2 * KEYS) is None


async def test_a_stream_that_does_not_fit_is_left_alone_and_the_next_is_not(nats: Nats) -> None:
    async with nats.bus() as bus:
        await fill(bus)
        await bus.put(ROUTE, ("a",), route("n"))
        assert await of(bus, [Stream.POLICY, Stream.ROUTES], limit_bytes=SIZE).turn() == 1
        assert await of(bus, [Stream.POLICY, Stream.ROUTES]).turn() > 1


async def test_an_empty_stream_is_not_read(nats: Nats) -> None:
    async with nats.bus() as bus:
        await bus.connected()
        assert await of(bus, [Stream.POLICY]).turn() == 0


async def test_a_server_that_does_not_answer_is_named_and_asked_again(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = asyncio.Event()
    refusing.set()
    turns: list[int] = []
    monkeypatch.setattr(warmth, "PERIOD_S", 0.0)
    async with nats.bus() as bus, asyncio.TaskGroup() as tasks:
        warm = of(bus, [Stream.POLICY])
        turn = warm.turn

        async def answered() -> int:
            if refusing.is_set():
                raise Unavailable("not now")
            turns.append(await turn())
            return turns[-1]

        monkeypatch.setattr(warm, "turn", answered)
        running = tasks.create_task(warm.run())
        await eventually(lambda: "not now" in bus.health.notes.get("warmth", ""))
        refusing.clear()
        await eventually(lambda: bool(turns) and "warmth" not in bus.health.notes)
        running.cancel()


async def test_it_rests_while_it_is_not_wanted(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(warmth, "PERIOD_S", 0.0)

    def wanted() -> bool:
        asked.append(False)
        return False

    async def turn() -> int:
        raise AssertionError("it was not wanted")

    async with nats.bus() as bus, asyncio.TaskGroup() as tasks:
        warm = Warmth(bus, [Stream.POLICY], limit_bytes=1, wanted=wanted)
        monkeypatch.setattr(warm, "turn", turn)
        running = tasks.create_task(warm.run())
        await eventually(lambda: len(asked) > 3)
        running.cancel()
