"""What holds for addresses changes while the service runs, and what cools down is looked after when nobody asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.ipam import Assigned, Busy, PoolExhausted
from bus_schemas.subjects import ASSIGN, BLOCK, RELEASE, STATUS, Fact
from chassis.bus import Bus
from chassis.embedded import EmbeddedNats
from chassis.errors import Unavailable
from chassis.feed import Interest
from chassis.health import Health
from services.ipam.core import Reply, Request
from services.ipam.settings import Settings
from tests.support.ipam import ask, configuration, give_back, node, pool, reservation, without
from tests.support.ipam_process import ipam_process

SMALL = pool("small", "10.9.0.0/30", block_size=30)
PATIENCE_S = 30.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    async with EmbeddedNats(tmp_path) as running:
        yield running


async def tell(bus: Bus, *facts: Fact) -> None:
    for fact in facts:
        if fact.value is None:
            await bus.delete(fact.family, fact.key)
        else:
            await bus.put(fact.family, fact.key, fact.value)


async def until(bus: Bus, message: Request, fits: Callable[[Reply], bool]) -> Reply:
    """The same request until the answer is as expected, as an agent asks again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                reply: Reply = await bus.request(ASSIGN, message, timeout_s=2.0)
            except Unavailable:
                continue
            if fits(reply):
                return reply
            await asyncio.sleep(0.05)


async def seen(bus: Bus, interest: Interest, fits: Callable[[dict[object, Any]], bool]) -> None:
    """Waits until the values of all keys are as expected."""
    values: dict[object, Any] = {}
    async with asyncio.timeout(PATIENCE_S), bus.follow(interest) as feed:
        while not (feed.in_sync and fits(values)):
            for fact in (await feed.next()).facts:
                values[fact.key] = fact.value


def assigned(reply: Reply) -> bool:
    return isinstance(reply, Assigned)


async def test_live_configuration_and_cool_down(server: EmbeddedNats) -> None:
    async with (
        Bus.connect(Settings(nats_url=server.url), name="test", health=Health()) as bus,
        ipam_process(server.url, "ipam-0", IP_COOLDOWN_S="1"),
    ):
        await bus.connected()
        await tell(bus, node("n1"), node("n2"), SMALL, reservation("r", "10.9.0.0"))
        for name in ("a", "b", "c"):
            given = await until(bus, ask(name), assigned)
            assert isinstance(given, Assigned)
            assert given.addresses != ("10.9.0.0",)
        full = await until(bus, ask("d"), lambda reply: isinstance(reply, PoolExhausted))
        assert isinstance(full, PoolExhausted)
        assert "1 reserved" in full.reason

        await bus.request(RELEASE, give_back("a"), timeout_s=2.0)
        soon = await bus.request(ASSIGN, ask("d"), timeout_s=2.0)
        assert isinstance(soon, Busy)
        assert "cooling down" in soon.reason
        assert await until(bus, ask("d"), assigned)

        await tell(bus, configuration(ip_cooldown_seconds=300, strict_affinity=True, max_blocks_per_host=1))
        shown = {"strictAffinity": "true", "MaxBlocksPerHost": "1", "IPCooldownSeconds": "300"}

        def tells(values: dict[object, Any]) -> bool:
            status = values.get(("ipam", "ipam-0"))
            return status is not None and shown.items() <= status.detail.items()

        await seen(bus, Interest(STATUS), tells)
        await bus.request(RELEASE, give_back("d"), timeout_s=2.0)
        rests = await until(bus, ask("e"), lambda reply: isinstance(reply, PoolExhausted))
        assert isinstance(rests, PoolExhausted)
        assert "maxBlocksPerHost of IPAMConfiguration default=1" in rests.reason
        assert "cooling down" in rests.reason

        await tell(bus, configuration(ip_cooldown_seconds=1), without(SMALL))
        for name in ("b", "c"):
            await bus.request(RELEASE, give_back(name), timeout_s=2.0)
        await seen(bus, Interest(BLOCK), lambda values: not any(values.values()))
