"""Writing and reading keys: compare-and-swap, tombstones, atomic batches."""

from __future__ import annotations

import asyncio
import os

import pytest

from bus_schemas.policy import Group
from bus_schemas.status import Lease
from bus_schemas.subjects import GROUP, LEASE, ROUTE, Stream
from chassis import bus as bus_module
from chassis import jetstream
from chassis.bus import Bus, Write
from chassis.errors import Conflict, Rejected, Unreadable
from tests.support.mirror import route
from tests.support.nats import Nats
from tests.support.waiting import until

A = ("10.244.0.0/26",)
B = ("10.244.0.64/26",)


async def test_put_and_get(nats: Nats) -> None:
    async with nats.bus() as bus:
        sequence = await bus.put(ROUTE, A, route("n1"))
        fact = await bus.get(ROUTE, A)
        assert (fact.key, fact.value, fact.sequence) == (A, route("n1"), sequence)
        assert await bus.get(ROUTE, B) == (ROUTE, B, None, 0)


async def test_swap_on_the_sequence_that_was_told(nats: Nats) -> None:
    async with nats.bus() as bus:
        first = await bus.swap(ROUTE, A, route("n1"), expected=0)
        second = await bus.swap(ROUTE, A, route("n2"), expected=first)
        with pytest.raises(Conflict) as caught:
            await bus.swap(ROUTE, A, route("n3"), expected=first)
        assert (caught.value.subject, caught.value.expected, caught.value.actual) == (ROUTE.subject(*A), first, second)
        with pytest.raises(Conflict):
            await bus.swap(ROUTE, A, route("n3"), expected=0)
        assert (await bus.get(ROUTE, A)).value == route("n2")


async def test_only_one_of_many_swaps_wins(nats: Nats) -> None:
    async with nats.bus() as bus:
        sequence = await bus.put(ROUTE, A, route("n0"))
        results = await asyncio.gather(
            *(bus.swap(ROUTE, A, route(f"n{i}"), expected=sequence) for i in range(1, 21)), return_exceptions=True
        )
        assert sum(isinstance(result, int) for result in results) == 1
        assert sum(isinstance(result, Conflict) for result in results) == 19


async def test_a_tombstone_is_absence(nats: Nats) -> None:
    async with nats.bus() as bus:
        await bus.put(ROUTE, A, route("n1"))
        grave = await bus.delete(ROUTE, A)
        assert await bus.get(ROUTE, A) == (ROUTE, A, None, grave)
        again = await bus.swap(ROUTE, A, route("n2"), expected=0)
        assert again > grave
        grave = await bus.swap(ROUTE, A, None, expected=again)
        assert await bus.swap(ROUTE, A, route("n3"), expected=grave) > grave


async def test_a_tombstone_expires_by_itself(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "TOMBSTONE_TTL_S", 1)
    async with nats.bus() as bus:
        await bus.put(ROUTE, A, route("n1"))
        grave = await bus.delete(ROUTE, A)

        async def expired() -> bool:
            return (await bus.get(ROUTE, A)).sequence == 0

        await until(expired, "the tombstone expires")
        # whoever still knows the sequence of the tombstone, and whoever knows of none, may both write
        assert await bus.swap(ROUTE, A, route("n2"), expected=grave) > grave
        with pytest.raises(Conflict):
            await bus.swap(ROUTE, A, route("n3"), expected=grave)


async def test_swap_on_a_value_that_vanished_is_a_conflict(nats: Nats) -> None:
    async with nats.bus() as bus:
        sequence = await bus.put(ROUTE, A, route("n1"))
        await jetstream.api(await bus.session(), f"STREAM.PURGE.{Stream.ROUTES}")
        with pytest.raises(Conflict) as caught:
            await bus.swap(ROUTE, A, route("n2"), expected=sequence)
        assert caught.value.actual == 0


async def test_swap_after_the_time_to_live(nats: Nats) -> None:
    """The server leaves a marker in the place of the expired message: absence, as a tombstone is."""
    lease = Lease(service="s", holder="h", until=0)
    async with nats.bus() as bus:
        first = await bus.swap(LEASE, ("s",), lease, expected=0, ttl_s=1)
        renewed = await bus.swap(LEASE, ("s",), lease, expected=first, ttl_s=1)

        async def expired() -> bool:
            return (await bus.get(LEASE, ("s",))).value is None

        await until(expired, "the lease expires")
        assert await bus.swap(LEASE, ("s",), lease, expected=0, ttl_s=1) > renewed


async def test_batch_is_atomic(nats: Nats) -> None:
    async with nats.bus() as bus:
        await bus.put(ROUTE, B, route("n1"))
        with pytest.raises(Conflict) as caught:
            await bus.batch([Write(ROUTE, A, route("n2"), 0), Write(ROUTE, B, route("n2"), 0)])
        assert caught.value.subject == ROUTE.subject(*B)
        assert (await bus.get(ROUTE, A)).sequence == 0


async def test_sequences_of_a_batch_are_consecutive_and_in_order(nats: Nats) -> None:
    async with nats.bus() as bus:
        await bus.put(ROUTE, ("0",), route("n0"))
        writes = [Write(ROUTE, (str(i),), route(f"n{i}")) for i in range(1000)]
        other = asyncio.gather(*(bus.put(ROUTE, (f"x{i}",), route("n")) for i in range(50)))
        sequences = await bus.batch(writes)
        await other
        assert sequences == list(range(sequences[0], sequences[0] + 1000))
        facts = await bus.get_many([(write.family, write.key) for write in writes])
        assert [fact.sequence for fact in facts] == sequences
        assert [fact.value for fact in facts if not isinstance(fact, Unreadable)] == [write.message for write in writes]


async def test_batch_with_expectations_tombstones_and_removals(nats: Nats) -> None:
    async with nats.bus() as bus:
        a, b = await bus.batch([Write(ROUTE, A, route("n1"), 0), Write(ROUTE, B, route("n1"), 0)])
        gone, kept = await bus.batch([Write(ROUTE, A, None, a), Write(ROUTE, B, route("n2"), b)])
        back, _ = await bus.batch([Write(ROUTE, A, route("n3"), 0), Write(ROUTE, B, None, kept)])
        assert back > gone
        assert (await bus.get(ROUTE, A)).value == route("n3")
        assert (await bus.get(ROUTE, B)).value is None


async def test_many_batches_at_once(nats: Nats) -> None:
    """More than the server takes at a time: they wait for one another, none is refused."""
    async with nats.bus() as bus:
        batches = [[Write(ROUTE, (f"{i}-{j}",), route("n"), 0) for j in range(5)] for i in range(200)]
        results = await asyncio.gather(*map(bus.batch, batches))
        stored = sorted(s for sequences in results for s in sequences)
        assert stored == list(range(stored[0], stored[0] + 1000))


async def test_too_large_a_message_is_refused_and_nothing_else_suffers(nats: Nats) -> None:
    async with nats.bus() as bus:
        huge = Group(v4=os.urandom(9 * 1024 * 1024))
        session = await bus.session()
        with pytest.raises(Rejected, match="bytes are more than"):
            await bus.put(GROUP, ("g", "0"), huge)
        with pytest.raises(Rejected, match="bytes are more than"):
            await bus.batch([Write(GROUP, ("h", "0"), Group()), Write(GROUP, ("g", "0"), huge)])
        large = Group(v4=os.urandom(7 * 1024 * 1024))
        await bus.put(GROUP, ("g", "0"), large)
        assert (await bus.get(GROUP, ("g", "0"))).value == large
        assert await bus.session() is session


async def test_unreadable_values_have_their_place(nats: Nats) -> None:
    async with nats.bus() as bus:
        first = await put_raw(bus, ROUTE.subject(*A), b"\xc1")
        await bus.put(ROUTE, B, route("n1"))
        garbage, good = await bus.get_many([(ROUTE, A), (ROUTE, B)])
        assert isinstance(garbage, Unreadable)
        assert garbage.sequence == first
        assert good.sequence == first + 1
        assert await bus.swap(ROUTE, A, route("n1"), expected=garbage.sequence) == first + 2


async def put_raw(bus: Bus, subject: str, payload: bytes) -> int:
    return await jetstream.publish(await bus.session(), jetstream.Outgoing(subject, payload))
