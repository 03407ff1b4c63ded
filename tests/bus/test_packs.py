"""Large families in few messages: whoever reads the pack knows what whoever reads every key knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bus_schemas.subjects import PACK, ROUTE, Stream
from chassis import jetstream, packs
from chassis.bus import Bus
from chassis.feed import Interest
from chassis.jetstream import Stored
from chassis.packer import Packer
from tests.support.mirror import route
from tests.support.nats import Nats

ROUTES = Interest(ROUTE)


async def fill(bus: Bus, **nodes: str | None) -> None:
    for cidr, node in nodes.items():
        if node is None:
            await bus.delete(ROUTE, (cidr,))
        else:
            await bus.put(ROUTE, (cidr,), route(node))


async def read(bus: Bus, *, packed: bool = True) -> dict[str, str]:
    known: dict[str, str] = {}
    async with bus.follow(ROUTES, packed=packed) as feed:
        while not feed.in_sync:
            for fact in (await feed.next()).facts:
                if fact.value is None:
                    known.pop(fact.key[0], None)
                else:
                    known[fact.key[0]] = fact.value.node
    return known


def packer(bus: Bus, least: int = 1) -> Packer:
    return Packer(bus, [ROUTE], wanted=lambda: True, least=least)


@pytest.fixture
def by_key(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The filters that were read key by key."""
    asked: list[str] = []
    inner = jetstream.snapshot

    async def noted(session: Any, stream: str, filters: list[str]) -> AsyncIterator[list[Stored]]:
        asked.extend(filters)
        async for chunk in inner(session, stream, filters):
            yield chunk

    monkeypatch.setattr(jetstream, "snapshot", noted)
    return asked


async def test_a_pack_and_what_is_newer_are_all_there_is(nats: Nats, by_key: list[str]) -> None:
    async with nats.bus() as bus:
        await fill(bus, a="n1", b="n1", c="n1", gone="n1", gone_before="n1")
        await fill(bus, gone_before=None)
        await packer(bus).turn()
        await fill(bus, b="n2", gone=None, new="n3")
        by_key.clear()
        assert await read(bus) == {"a": "n1", "b": "n2", "c": "n1", "new": "n3"}
        assert by_key == []
        assert await read(bus, packed=False) == await read(bus)


async def test_parts_and_pages(nats: Nats, by_key: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PART_KEYS", 7)
    monkeypatch.setattr(jetstream, "PAGE", 5)
    async with nats.bus() as bus:
        await fill(bus, **{f"k{n}": "n1" for n in range(30)})
        await packer(bus).turn()
        await fill(bus, **{f"k{n}": "n2" for n in range(20, 41)})
        by_key.clear()
        known = await read(bus)
        assert known == {f"k{n}": "n2" if n >= 20 else "n1" for n in range(41)}
        assert by_key == []


async def test_a_pack_that_lacks_a_part_is_none(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PART_KEYS", 2)
    async with nats.bus() as bus:
        await fill(bus, a="n1", b="n1", c="n1")
        await packer(bus).turn()
        await bus.delete(PACK, (ROUTE.name, "1"))
        assert await read(bus) == {"a": "n1", "b": "n1", "c": "n1"}


async def test_a_pack_of_a_former_life_of_the_stream_is_none(nats: Nats) -> None:
    async with nats.bus() as bus:
        await fill(bus, a="n1", b="n1")
        await packer(bus).turn()
        session = await bus.session()
        old = await jetstream.last_of_each(session, Stream.ROUTES, [PACK.filter()])
        await jetstream.api(session, f"STREAM.DELETE.{Stream.ROUTES}")
        await bus.repair_streams(session)
        await fill(bus, c="n2")
        for message in old:
            await jetstream.publish(session, jetstream.Outgoing(message.subject, message.payload))
        assert await read(bus) == {"c": "n2"}


async def test_what_was_purged_does_not_come_back(nats: Nats) -> None:
    async with nats.bus() as bus:
        await fill(bus, a="n1", b="n1")
        await packer(bus).turn()
        await jetstream.api(await bus.session(), f"STREAM.PURGE.{Stream.ROUTES}", {"filter": ROUTES.filter})
        assert await read(bus) == {}


async def test_many_keys_without_a_pack_are_read_through_a_consumer(
    nats: Nats, by_key: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream, "MAX_LAST", 3)
    async with nats.bus() as bus:
        await fill(bus, a="n1", b="n1", c="n1", d="n1", e="n1")
        assert await read(bus) == dict.fromkeys("abcde", "n1")
        assert by_key == [ROUTES.filter]


async def test_few_keys_are_not_packed(nats: Nats) -> None:
    async with nats.bus() as bus:
        await fill(bus, a="n1")
        await packer(bus, least=2).turn()
        assert await jetstream.last_of_each(await bus.session(), Stream.ROUTES, [PACK.filter()]) == []
