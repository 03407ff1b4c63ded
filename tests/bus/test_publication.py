"""Derived keys, kept as wanted: order, repair, removal, and only by the one who holds the lease."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bus_schemas.policy import Attachment, Group, Rules
from bus_schemas.subjects import ATTACHMENT, GROUP, ROUTE, RULES, Family, Stream
from chassis import jetstream, publication
from chassis.bus import Bus, Write
from chassis.errors import Conflict
from chassis.feed import Interest
from chassis.health import Health
from chassis.lease import Lease
from chassis.publication import Publication
from tests.support.mirror import mirror, route
from tests.support.nats import Nats
from tests.support.waiting import eventually

POLICY = [Interest(GROUP), Interest(RULES), Interest(ATTACHMENT)]
ROUTES = [Interest(ROUTE)]


@asynccontextmanager
async def published(bus: Bus, interests: list[Interest], lease: Lease | None = None) -> AsyncIterator[Publication]:
    async with Publication(bus, interests, lease=lease) as subject, asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(subject.run())]
        if lease is not None:
            running.append(tasks.create_task(lease.run()))
        try:
            yield subject
        finally:
            for task in running:
                task.cancel()


def want_policy(subject: Publication, name: str, *, exists: bool = True) -> None:
    attachment = Attachment(node="n", namespace="ns", name=name, container="c")  # type: ignore[arg-type]
    rows: list[tuple[Family[Any], tuple[str, ...], Any]] = [
        (ATTACHMENT, ("n", "ns", name), attachment),
        (RULES, (name,), Rules(policy=name)),
        (GROUP, (name, "0"), Group(selector=name)),
    ]
    for family, key, message in rows:
        subject.want(family, key, message if exists else None)


async def stored(bus: Bus, stream: Stream) -> list[str]:
    """Subjects of a stream's messages in the order in which they were written, tombstones with a minus."""
    found = []
    async for chunk in jetstream.snapshot(await bus.session(), stream, ["tortie.v1.>"]):
        found += [("" if m.payload else "-") + m.subject.removeprefix("tortie.v1.") for m in chunk]
    return found


async def test_groups_then_rules_then_attachments_and_removals_in_reverse(nats: Nats) -> None:
    async with nats.bus() as bus, published(bus, POLICY) as subject:
        want_policy(subject, "a")
        want_policy(subject, "b")
        subject.complete()
        await subject.flush()
        assert await stored(bus, Stream.POLICY) == [
            *("policy.group.a.0", "policy.group.b.0"),
            *("policy.rules.a", "policy.rules.b"),
            *("policy.attach.n.ns.a", "policy.attach.n.ns.b"),
        ]
        want_policy(subject, "a", exists=False)
        want_policy(subject, "c")
        await subject.flush()
        assert (await stored(bus, Stream.POLICY))[3:] == [
            *("policy.group.c.0", "policy.rules.c", "policy.attach.n.ns.c"),
            *("-policy.attach.n.ns.a", "-policy.rules.a", "-policy.group.a.0"),
        ]


async def test_more_than_a_batch(nats: Nats) -> None:
    async with nats.bus() as bus, published(bus, ROUTES) as subject, mirror(bus, Interest(ROUTE)) as seen:
        for i in range(2500):
            subject.want(ROUTE, (str(i),), route("n1"))
        subject.complete()
        await subject.flush()
        assert subject.pending == 0
        await eventually(lambda: len(seen.values) == 2500)


async def test_keys_are_written_in_the_order_in_which_they_were_last_wanted(nats: Nats) -> None:
    """A group that is cut finer while an earlier change of it could not be written: the new segment comes first."""
    async with nats.bus() as bus, published(bus, [Interest(GROUP)]) as subject:
        subject.want(GROUP, ("g", "0"), Group(selector="all of them"))
        subject.want(GROUP, ("g", "1"), Group(selector="the upper half"))
        subject.want(GROUP, ("g", "0"), Group(selector="the lower half"))
        subject.complete()
        await subject.flush()
        assert await stored(bus, Stream.POLICY) == ["policy.group.g.1", "policy.group.g.0"]


async def test_one_change_does_not_wait_for_a_great_many(nats: Nats) -> None:
    interests = [Interest(GROUP), Interest(RULES)]
    async with nats.bus() as bus, published(bus, interests) as subject, mirror(bus, *interests) as seen:
        for n in range(12_000):
            subject.want(RULES, (f"r{n}",), Rules(policy="many"))
        subject.complete()
        await subject.write()
        await eventually(lambda: seen.values)
        subject.want(RULES, ("one",), Rules(policy="one"))
        subject.want(GROUP, ("g", "0"), Group())
        await subject.write()
        await eventually(lambda: len(seen.values) == 12_002)
        after = [key for key, sequence in seen.sequences.items() if sequence > seen.sequences["one",]]
        assert len(after) > 1000
        assert seen.sequences["g", "0"] < seen.sequences["one",]


async def test_only_differences_are_written(nats: Nats) -> None:
    async with nats.bus() as bus:
        first = await bus.put(ROUTE, ("a",), route("n1"))
        async with published(bus, ROUTES) as subject:
            subject.want(ROUTE, ("a",), route("n1"))
            subject.want(ROUTE, ("b",), route("n2"))
            subject.complete()
            await subject.flush()
            await subject.flush()
            assert (await bus.get(ROUTE, ("a",))).sequence == first
            assert (await bus.get(ROUTE, ("b",))).sequence == first + 1


async def test_nothing_unwanted_is_removed_before_the_wanted_set_is_complete(nats: Nats) -> None:
    async with nats.bus() as bus:
        await bus.put(ROUTE, ("left over",), route("n1"))
        async with published(bus, ROUTES) as subject, mirror(bus, Interest(ROUTE)) as seen:
            subject.want(ROUTE, ("a",), route("n1"))
            await subject.flush()
            await eventually(lambda: set(seen.nodes) == {"a", "left over"})
            subject.complete()
            await subject.flush()
            await eventually(lambda: set(seen.nodes) == {"a"})


async def test_foreign_changes_are_repaired(nats: Nats) -> None:
    async with nats.bus() as bus, published(bus, ROUTES) as subject, mirror(bus, Interest(ROUTE)) as seen:
        subject.want(ROUTE, ("a",), route("n1"))
        subject.want(ROUTE, ("b",), route("n1"))
        subject.complete()
        await subject.flush()
        await bus.put(ROUTE, ("a",), route("somebody else"))
        await bus.delete(ROUTE, ("b",))
        await bus.put(ROUTE, ("c",), route("somebody else"))
        await eventually(lambda: len(seen.told("a")) == 3 and seen.nodes == {"a": "n1", "b": "n1"})
        await jetstream.publish(await bus.session(), jetstream.Outgoing(ROUTE.subject("a"), b"\xc1"))
        await eventually(lambda: len(seen.told("a")) == 4 and seen.nodes == {"a": "n1", "b": "n1"})


async def test_a_wiped_bus_is_written_again(nats: Nats) -> None:
    async with nats.bus() as bus, published(bus, POLICY) as subject, mirror(bus, *POLICY) as seen:
        want_policy(subject, "a")
        subject.complete()
        await subject.flush()
        await eventually(lambda: len(seen.values) == 3 and seen.in_sync)
        await nats.wipe()
        await eventually(lambda: len(seen.lost) == 3)
        await eventually(lambda: len(seen.facts) >= 6)
        assert await stored(bus, Stream.POLICY) == ["policy.group.a.0", "policy.rules.a", "policy.attach.n.ns.a"]
        assert len(seen.values) == 3


async def test_a_killed_server_holds_a_flush_up_and_no_more(nats: Nats) -> None:
    async with nats.bus() as bus, published(bus, ROUTES) as subject:
        subject.want(ROUTE, ("a",), route("n1"))
        subject.complete()
        await subject.flush()
        await nats.kill()
        subject.want(ROUTE, ("b",), route("n2"))
        async with asyncio.TaskGroup() as tasks:
            flushing = tasks.create_task(subject.flush())
            await eventually(lambda: "bus" in bus.health.causes)
            assert not flushing.done()
            subject.want(ROUTE, ("a",), None)
            await nats.start()
        assert (await bus.get(ROUTE, ("b",))).value == route("n2")
        assert (await bus.get(ROUTE, ("a",))).value is None


async def test_a_standby_writes_nothing_until_it_takes_over(nats: Nats) -> None:
    async with nats.bus() as one, nats.bus() as two, mirror(two, Interest(ROUTE)) as seen:
        standby = Lease(two, "s", "standby")
        async with nats.bus() as holder_bus:
            holder = Lease(holder_bus, "s", "holder")
            await holder._step()
            async with published(one, ROUTES, holder) as leading, published(two, ROUTES, standby) as waiting:
                leading.want(ROUTE, ("a",), route("leader"))
                leading.complete()
                await leading.flush()
                waiting.want(ROUTE, ("a",), route("standby"))
                waiting.complete()
                await waiting.flush()
                assert waiting.pending == 1
                await eventually(lambda: seen.nodes == {"a": "leader"})
                await holder._give_back()
                holder._holder = "gone"
                await eventually(lambda: seen.nodes == {"a": "standby"})


async def test_a_writer_that_lost_its_lease_cannot_overwrite(nats: Nats) -> None:
    async with nats.bus() as bus:
        known = await bus.put(ROUTE, ("a",), route("old leader"))
        await bus.swap(ROUTE, ("a",), route("new leader"), expected=known)
        with pytest.raises(Conflict):
            await bus.batch([Write(ROUTE, ("b",), route("old leader"), 0), Write(ROUTE, ("a",), route("late"), known)])
        assert (await bus.get(ROUTE, ("a",))).value == route("new leader")
        assert (await bus.get(ROUTE, ("b",))).value is None


async def test_what_the_server_refuses_is_set_aside_and_named(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "BATCH_BYTES", 64 * 1024 * 1024)
    health = Health()
    async with nats.bus(health=health) as bus, published(bus, [Interest(GROUP)]) as subject:
        for i in range(5):
            subject.want(GROUP, (f"g{i}", "0"), Group(selector=str(i)))
        subject.want(GROUP, ("huge", "0"), Group(v4=os.urandom(9 * 1024 * 1024)))
        subject.complete()
        await subject.flush()
        assert len(await stored(bus, Stream.POLICY)) == 5
        assert "1 messages are refused" in health.notes["refused"]
        assert GROUP.subject("huge", "0") in health.notes["refused"]
        subject.want(GROUP, ("huge", "0"), Group())
        await subject.flush()
        assert len(await stored(bus, Stream.POLICY)) == 6
        assert health.notes == {}


async def test_what_is_spared_is_not_removed_until_it_is_looked_at_again(nats: Nats) -> None:
    """What others wrote stays; what is spared for a while goes when it is not any more."""
    ours: set[str] = set()
    async with nats.bus() as bus, mirror(bus, Interest(ROUTE)) as seen, asyncio.TaskGroup() as tasks:
        await bus.put(ROUTE, ("theirs",), route("a"))
        await bus.put(ROUTE, ("left",), route("b"))
        async with Publication(bus, ROUTES, spared=lambda _family, key, _message: key[0] not in ours) as subject:
            running = tasks.create_task(subject.run())
            subject.complete()
            subject.want(ROUTE, ("wanted",), route("c"))
            await eventually(lambda: seen.nodes == {"theirs": "a", "left": "b", "wanted": "c"})
            assert subject.pending == 0
            ours |= {"left", "wanted"}
            subject.look_again(ROUTE)
            await eventually(lambda: seen.nodes == {"theirs": "a", "wanted": "c"})
            subject.want(ROUTE, ("wanted",), None)
            await subject.flush()
            await eventually(lambda: seen.nodes == {"theirs": "a"})
            running.cancel()


async def test_what_was_written_over_what_is_told_and_nothing_else(nats: Nats) -> None:
    first, second = route("a"), route("b")
    told: list[tuple[Any, Any]] = []
    async with nats.bus() as bus:
        for wanted in ([first, first, second], [second, None]):
            async with published(bus, ROUTES) as subject:  # the second life finds what the first one wrote
                subject.on_written = lambda family, key, before, after: told.append((before, after))
                for message in wanted:
                    subject.want(ROUTE, ("10.244.0.0/26",), message)
                    subject.complete()
                    await subject.flush()
    assert told == [(None, first), (first, second), (second, None)]
