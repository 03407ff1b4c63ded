"""The rules of following: replay, in sync, live; one slot a key; gaps healed; silence never deletes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bus_schemas.codec import encode
from bus_schemas.policy import Attachment, Group, Rules
from bus_schemas.status import Status
from bus_schemas.subjects import ATTACHMENT, BLOCK, ENDPOINT, GROUP, LEASE, ROUTE, RULES, STATUS, Stream, live
from chassis import feed as feed_module
from chassis import jetstream
from chassis.bus import Bus, Write
from chassis.delivery import Delivery
from chassis.errors import Rejected, Unavailable
from chassis.feed import Feed, Interest
from chassis.health import Health
from chassis.jetstream import Stored
from chassis.metrics import GAPS, MALFORMED
from chassis.session import Session
from tests.support.mirror import mirror, route
from tests.support.nats import Nats
from tests.support.waiting import eventually

ROUTES = Interest(ROUTE)


async def put_routes(bus: Bus, **nodes: str) -> None:
    for cidr, node in nodes.items():
        await bus.put(ROUTE, (cidr,), route(node))


async def put_raw(bus: Bus, subject: str, payload: bytes) -> int:
    return await jetstream.publish(await bus.session(), jetstream.Outgoing(subject, payload))


# --- rule 2: replay, then in sync, then live


async def test_replay_then_in_sync_then_live(nats: Nats) -> None:
    async with nats.bus() as bus:
        first = await bus.put(ROUTE, ("a",), route("old"))
        await put_routes(bus, b="n2")
        await put_routes(bus, a="n1")
        async with bus.follow(ROUTES) as feed:
            assert not feed.in_sync
            batch = await feed.next()
            assert [(fact.key, fact.value.node, fact.sequence) for fact in batch.facts] == [
                (("b",), "n2", first + 1),
                (("a",), "n1", first + 2),
            ]
            assert batch.synced == {ROUTES}
            assert batch.in_sync
            assert feed.in_sync
            await put_routes(bus, c="n3")
            batch = await feed.next()
            assert [(fact.key, fact.value.node, fact.sequence) for fact in batch.facts] == [(("c",), "n3", first + 3)]
            assert batch.synced == frozenset()


async def test_a_removal_is_told_after_what_was_written_before_it(nats: Nats) -> None:
    """Where one key takes another's place, a reader that is behind must not lose the first before it has the second."""
    async with nats.bus() as bus, bus.follow(ROUTES) as feed:
        assert (await feed.next()).in_sync
        async with bus.follow(ROUTES) as slow:
            assert (await slow.next()).in_sync
            await put_routes(bus, a="n1", b="n1")
            await bus.delete(ROUTE, ("a",))
            await put_routes(bus, c="n1")
            heard: set[str] = set()
            while "c" not in heard:  # then the slow one has everything before it
                heard.update(fact.key[0] for fact in (await feed.next()).facts)
            batch = await slow.next()
        assert [(fact.key[0], fact.value is None) for fact in batch.facts[:2]] == [("b", False), ("a", True)]


async def test_nothing_on_the_bus_is_in_sync_too(nats: Nats) -> None:
    async with nats.bus() as bus, bus.follow(ROUTES, Interest(BLOCK)) as feed:
        batch = await feed.next()
        while not batch.in_sync:
            batch = await feed.next()
        assert batch.facts == []


async def test_a_feed_of_nothing_is_in_sync(nats: Nats) -> None:
    async with nats.bus() as bus, bus.follow() as feed:
        assert feed.in_sync


async def test_every_stream_in_one_feed(nats: Nats) -> None:
    async with nats.bus() as bus:
        await put_routes(bus, a="n1")
        await bus.put(GROUP, ("g", "0"), Group(selector="all()"))
        async with mirror(bus, ROUTES, Interest(GROUP), Interest(ENDPOINT), Interest(STATUS)) as seen:
            await eventually(lambda: seen.in_sync)
            assert set(seen.values) == {("a",), ("g", "0")}


async def test_a_large_snapshot_comes_in_pieces_and_in_sync_last(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_FACTS", 100)
    monkeypatch.setattr(feed_module, "MAX_PENDING", 300)
    monkeypatch.setattr(jetstream, "PULL", 128)
    async with nats.bus() as bus:
        for start in (0, 1000, 2000):
            await bus.batch([Write(ROUTE, (str(start + i),), route("n1")) for i in range(1000)])
        async with mirror(bus, ROUTES) as seen:
            await eventually(lambda: seen.in_sync)
            assert len(seen.values) == 3000
            assert [batch.in_sync for batch in seen.batches] == [False] * (len(seen.batches) - 1) + [True]
            assert max(len(batch.facts) for batch in seen.batches) == 100


async def test_writes_during_the_snapshot_are_not_lost(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream, "PULL", 16)
    async with nats.bus() as bus, nats.bus("writer") as writer, asyncio.TaskGroup() as tasks:
        await bus.batch([Write(ROUTE, (str(i),), route("old")) for i in range(500)])

        async def write() -> None:
            for i in range(0, 500, 3):
                await writer.put(ROUTE, (str(i),), route("new"))
            for i in range(1, 500, 3):
                await writer.delete(ROUTE, (str(i),))

        writing = tasks.create_task(write())
        async with mirror(bus, ROUTES) as seen:
            await writing
            expected = {str(i): "new" if i % 3 == 0 else "old" for i in range(500) if i % 3 != 1}
            await eventually(lambda: seen.in_sync and seen.nodes == expected)


# --- rule 3: coalesce, do not queue


async def test_one_pending_slot_for_each_key(nats: Nats) -> None:
    async with nats.bus() as bus, bus.follow(ROUTES) as feed:
        await feed.next()
        await put_routes(bus, a="n0", b="n0")
        for i in range(1, 50):
            await put_routes(bus, a=f"n{i}")
        await (await bus.session()).echo(5)
        batch = await feed.next()
        assert [(fact.key, fact.value.node) for fact in batch.facts] == [(("a",), "n49"), (("b",), "n0")]


# --- tombstones


async def test_tombstones_are_told_with_their_sequence(nats: Nats) -> None:
    async with nats.bus() as bus, mirror(bus, ROUTES) as seen:
        await put_routes(bus, a="n1")
        await eventually(lambda: seen.nodes == {"a": "n1"})
        grave = await bus.delete(ROUTE, ("a",))
        await eventually(lambda: seen.nodes == {})
        assert seen.sequences["a",] == grave
        async with mirror(bus, ROUTES) as later:
            await eventually(lambda: later.in_sync)
            assert later.sequences == {("a",): grave}
            assert later.values == {}
            # what the feed told is what a writer may swap on
            await bus.swap(ROUTE, ("a",), route("n2"), expected=later.sequences["a",])
            await eventually(lambda: seen.nodes == later.nodes == {"a": "n2"})


async def test_expiry_is_told_like_a_tombstone(nats: Nats) -> None:
    status = Status(component="c", instance="i", started=0, ready=True)
    async with nats.bus() as bus, mirror(bus, Interest(STATUS), Interest(LEASE)) as seen:
        await bus.put(STATUS, ("c", "i"), status, ttl_s=1)
        await eventually(lambda: seen.values == {("c", "i"): status})
        await eventually(lambda: seen.values == {})


# --- reconnecting


async def test_deletions_while_away_are_swept_after_the_reconnect(nats: Nats) -> None:
    async with nats.bus() as bus, mirror(bus, ROUTES) as seen:
        await put_routes(bus, a="n1", b="n2", c="n3")
        await eventually(lambda: len(seen.values) == 3 and seen.in_sync)
        await nats.stop()
        async with Nats(nats.store) as elsewhere, elsewhere.bus("other") as other:
            await other.delete(ROUTE, ("a",))
            await purge(other, ROUTE.subject("b"))
            await put_routes(other, d="n4")
        await nats.start()
        await eventually(lambda: seen.nodes == {"c": "n3", "d": "n4"})
        assert seen.told("c") == [route("n3")]


async def test_only_differences_are_told_after_a_reconnect(nats: Nats) -> None:
    async with nats.bus() as bus, mirror(bus, ROUTES) as seen:
        await bus.batch([Write(ROUTE, (str(i),), route("n1")) for i in range(200)])
        await eventually(lambda: len(seen.values) == 200)
        told = len(seen.facts)
        await nats.restart()
        await put_routes(bus, x="n2")
        await eventually(lambda: "x" in seen.nodes)
        assert len(seen.facts) == told + 1


async def test_killed_server_comes_back_and_feeds_converge(nats: Nats) -> None:
    async with nats.bus() as bus, nats.bus("writer") as writer, mirror(bus, ROUTES) as seen:
        for i in range(5):
            await writer.put(ROUTE, ("a",), route(f"n{i}"))
            await nats.restart()
            await writer.put(ROUTE, (f"b{i}",), route(f"n{i}"))
        await eventually(lambda: seen.nodes == {"a": "n4"} | {f"b{i}": f"n{i}" for i in range(5)})


async def disconnect(bus: Bus) -> None:
    session = await bus.session()
    session.end("cut by the test")


async def purge(bus: Bus, subject: str) -> None:
    await jetstream.api(await bus.session(), f"STREAM.PURGE.{Stream.ROUTES}", {"filter": subject})


# --- rule 8: gaps


async def test_a_lost_live_message_is_found_and_healed(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "FIRST_CHECK_S", 0.1)
    monkeypatch.setattr(feed_module, "SETTLE_S", 0.02)
    deaf = deafen(monkeypatch)
    gaps = GAPS.labels(Stream.ROUTES)._value.get()
    async with nats.bus() as bus, mirror(bus, ROUTES, Interest(RULES, ("r",))) as seen:
        await eventually(lambda: seen.in_sync)
        deaf.add(live(ROUTE.subject("a")))
        await put_routes(bus, a="n1")
        await eventually(lambda: seen.nodes == {"a": "n1"})
        assert GAPS.labels(Stream.ROUTES)._value.get() == gaps + 1


async def test_a_lost_message_among_many_narrow_interests_is_healed(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "FIRST_CHECK_S", 0.05)
    monkeypatch.setattr(feed_module, "CHECK_S", 0.05)
    deaf = deafen(monkeypatch)
    interests = [Interest(RULES, (f"r{i}",)) for i in range(200)]
    async with nats.bus() as bus, mirror(bus, *interests) as seen:
        await eventually(lambda: seen.in_sync)
        deaf.add(live(RULES.subject("r150")))
        await bus.put(RULES, ("r150",), Rules(policy="p"))
        await bus.put(RULES, ("r151",), Rules(policy="q"))
        await eventually(lambda: set(seen.values) == {("r150",), ("r151",)})


async def test_what_a_later_message_hides_is_found_by_reading_again(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "FIRST_CHECK_S", 0.05)
    monkeypatch.setattr(feed_module, "CHECK_S", 0.05)
    monkeypatch.setattr(feed_module, "REREAD_S", 0.3)
    deaf = deafen(monkeypatch)
    async with nats.bus() as bus, mirror(bus, ROUTES) as seen:
        await eventually(lambda: seen.in_sync)
        deaf.add(live(ROUTE.subject("a")))
        await put_routes(bus, a="n1", b="n2")
        await eventually(lambda: seen.nodes == {"a": "n1", "b": "n2"})


def deafen(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Live subjects that the feeds from now on do not hear."""
    deaf: set[str] = set()
    hear = feed_module.Feed._on_live

    def selective(self: feed_module.Feed, followed: feed_module._Followed, delivery: Delivery) -> None:
        if delivery.subject not in deaf:
            hear(self, followed, delivery)

    monkeypatch.setattr(feed_module.Feed, "_on_live", selective)
    return deaf


# --- rule 6: silence never deletes


async def test_a_wiped_stream_deletes_nothing_and_is_named(nats: Nats) -> None:
    health = Health()
    async with nats.bus(health=health) as bus, mirror(bus, ROUTES, Interest(RULES, ("r",))) as seen:
        await put_routes(bus, a="n1", b="n2", c="n3")
        await bus.put(RULES, ("r",), Rules(policy="p"))
        await eventually(lambda: len(seen.values) == 4 and seen.in_sync)
        await nats.wipe()
        await eventually(lambda: seen.lost == {("a",), ("b",), ("c",), ("r",)})
        assert len(seen.values) == 4
        assert health.ready
        await eventually(lambda: "was wiped or re-created: 4 keys are kept" in str(health.notes))
        # the next positive word settles each of them, in whatever life of the stream
        await put_routes(bus, a="n1", b="n9")
        await bus.delete(ROUTE, ("c",))
        await bus.put(RULES, ("r",), Rules(policy="q"))
        await eventually(lambda: seen.values.get(("b",)) == route("n9") and ("c",) not in seen.values)
        await eventually(lambda: seen.values[("r",)].policy == "q")
        await eventually(lambda: not health.notes)
        assert set(seen.values) == {("a",), ("b",), ("r",)}


async def test_a_stream_made_anew_under_a_living_session_deletes_nothing(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "FIRST_CHECK_S", 0.1)
    async with nats.bus() as bus, mirror(bus, ROUTES) as seen:
        await put_routes(bus, a="n1", b="n2")
        await eventually(lambda: len(seen.values) == 2 and seen.in_sync)
        await jetstream.api(await bus.session(), f"STREAM.DELETE.{Stream.ROUTES}")
        await eventually(lambda: seen.lost == {("a",), ("b",)})
        assert seen.nodes == {"a": "n1", "b": "n2"}
        await put_routes(bus, a="n7")
        await eventually(lambda: seen.nodes == {"a": "n7", "b": "n2"})


async def test_a_purged_stream_deletes_nothing(nats: Nats) -> None:
    async with nats.bus() as bus, mirror(bus, ROUTES) as seen:
        await put_routes(bus, a="n1", b="n2")
        await eventually(lambda: len(seen.values) == 2 and seen.in_sync)
        await purge(bus, ">")
        await disconnect(bus)
        await eventually(lambda: seen.lost == {("a",), ("b",)})
        assert seen.nodes == {"a": "n1", "b": "n2"}


# --- a bad message is an absent one, counted and named


async def test_a_malformed_message_is_kept_out_and_named(nats: Nats) -> None:
    health = Health()
    counted = MALFORMED.labels(Stream.ROUTES)._value.get()
    async with nats.bus(health=health) as bus, mirror(bus, ROUTES) as seen:
        await put_routes(bus, a="n1")
        await eventually(lambda: seen.nodes == {"a": "n1"} and seen.in_sync)
        await put_raw(bus, ROUTE.subject("a"), b"\xc1garbage")
        await put_raw(bus, ROUTE.subject("b"), encode(Group()))
        await put_routes(bus, c="n3")
        await eventually(lambda: "c" in seen.nodes)
        assert seen.nodes == {"a": "n1", "c": "n3"}
        assert MALFORMED.labels(Stream.ROUTES)._value.get() == counted + 2
        assert health.ready
        assert ROUTE.subject("a") in health.notes["malformed"]
        assert "2 messages cannot be read" in health.notes["malformed"]
        unreadable = [fault for batch in seen.batches for fault in batch.unreadable]
        assert [fault.subject for fault in unreadable] == [ROUTE.subject("a"), ROUTE.subject("b")]
        await put_routes(bus, a="n2")
        await bus.delete(ROUTE, ("b",))
        await eventually(lambda: seen.nodes == {"a": "n2", "c": "n3"} and "malformed" not in health.notes)


async def test_a_subject_that_is_no_key_is_kept_out(nats: Nats) -> None:
    health = Health()
    async with nats.bus(health=health) as bus:
        await put_raw(bus, "tortie.v1.route.not=escaped", encode(route("n1")))
        async with mirror(bus, ROUTES) as seen:
            await eventually(lambda: seen.in_sync)
            assert seen.values == {}
            assert "tortie.v1.route.not=escaped" in health.notes["malformed"]
        assert health.notes == {}


# --- rule 7: nodes pay only for what is theirs


async def test_interests_come_and_go(nats: Nats) -> None:
    async with nats.bus() as bus:
        attachment = Attachment(node="n1", namespace="ns", name="pod", container="c")  # type: ignore[arg-type]
        await bus.put(ATTACHMENT, ("n1", "ns", "pod"), attachment)
        await bus.put(ATTACHMENT, ("n2", "ns", "pod"), attachment)
        await bus.batch([Write(GROUP, (f"g{i}", str(j)), Group()) for i in range(3) for j in range(2)])
        async with mirror(bus, Interest(ATTACHMENT, ("n1",))) as seen:
            await eventually(lambda: seen.in_sync)
            assert set(seen.values) == {("n1", "ns", "pod")}
            seen.feed.add(Interest(GROUP, ("g0",)), Interest(GROUP, ("g1",)))
            assert not seen.feed.in_sync
            await eventually(lambda: seen.in_sync and len(seen.values) == 5)
            assert frozenset().union(*(b.synced for b in seen.batches)) >= {
                Interest(GROUP, ("g0",)),
                Interest(GROUP, ("g1",)),
            }
            seen.feed.discard(Interest(GROUP, ("g0",)))
            await bus.put(GROUP, ("g0", "0"), Group(selector="changed"))
            await bus.put(GROUP, ("g1", "0"), Group(selector="changed"))
            await eventually(lambda: seen.values[("g1", "0")].selector == "changed")
            assert seen.values[("g0", "0")].selector == ""
            seen.feed.add(Interest(GROUP, ("g0",)))
            await eventually(lambda: seen.values[("g0", "0")].selector == "changed")
            info = await jetstream.stream_info(await bus.session(), Stream.POLICY)
            assert info is not None


async def test_discarding_the_last_missing_interest_brings_in_sync(nats: Nats) -> None:
    async with nats.bus() as bus, bus.follow(ROUTES) as feed:
        while not feed.in_sync:
            await feed.next()
        await nats.kill()
        await eventually(lambda: "bus" in bus.health.causes)
        feed.add(Interest(GROUP, ("g",)))
        assert not feed.in_sync
        feed.discard(Interest(GROUP, ("g",)))
        assert feed.in_sync


async def test_what_was_discarded_is_not_told_any_more(nats: Nats) -> None:
    async with nats.bus() as bus, bus.follow(ROUTES, Interest(BLOCK)) as feed:
        while not feed.in_sync:
            await feed.next()
        followed = feed._followed[ROUTES]
        feed.discard(ROUTES)
        # on its way when the interest was dropped
        feed._heard(followed, Stored(ROUTE.subject("late"), 9, encode(route("n1"))))
        assert feed._pending == {}


async def test_reading_again_on_the_same_session_subscribes_once(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = 3

    async def failing(self: Feed, session: Session, stream: Stream, group: Any) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise Unavailable("no leader yet")
        await read_stream(self, session, stream, group)

    read_stream = Feed._read_stream
    monkeypatch.setattr(Feed, "_read_stream", failing)
    monkeypatch.setattr(feed_module, "SETTLE_S", 0.01)
    async with nats.bus() as bus:
        before = len((await bus.session()).client.deliver)
        async with bus.follow(ROUTES) as feed:
            while not feed.in_sync:
                await feed.next()
            assert failures == 0
            assert len((await bus.session()).client.deliver) == before + 1
            await eventually(lambda: not any("waits" in name for name in bus.health.notes))


async def test_a_stream_that_refuses_to_be_read_is_named_and_asked_again(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = True

    async def refuse(self: Feed, session: Session, stream: Stream, group: Any) -> None:
        if refusing:
            raise Rejected("maximum consumers limit reached")
        await read_stream(self, session, stream, group)

    read_stream = Feed._read_stream
    monkeypatch.setattr(Feed, "_read_stream", refuse)
    monkeypatch.setattr(feed_module, "SETTLE_S", 0.01)
    async with nats.bus() as bus, mirror(bus, ROUTES) as seen:
        await eventually(lambda: "maximum consumers limit reached" in " ".join(bus.health.notes.values()))
        refusing = False
        await eventually(lambda: seen.in_sync and bus.health.notes == {})


async def test_current_is_of_this_session_in_sync_is_for_good(nats: Nats) -> None:
    async with nats.bus() as bus, mirror(bus, ROUTES) as seen:
        await eventually(lambda: seen.feed.current == 1)
        await nats.kill()
        await eventually(lambda: seen.feed.current == 0)
        assert seen.feed.in_sync
        await nats.start()
        await eventually(lambda: seen.feed.current == 2)


async def test_narrow_interests_leave_no_consumers(nats: Nats) -> None:
    async with nats.bus() as bus, mirror(bus, *(Interest(GROUP, (f"g{i}",)) for i in range(300))) as seen:
        await eventually(lambda: seen.in_sync)
        assert b'"consumer_count":0' in await jetstream.api(await bus.session(), f"STREAM.INFO.{Stream.POLICY}")


async def test_more_keys_than_a_direct_get_returns(nats: Nats) -> None:
    async with nats.bus() as bus:
        for part in range(3):
            await bus.batch([Write(GROUP, ("g", str(part * 500 + i)), Group()) for i in range(500)])
        await bus.put(GROUP, ("h", "0"), Group())
        async with mirror(bus, Interest(GROUP, ("g",)), Interest(GROUP, ("h",))) as seen:
            await eventually(lambda: seen.in_sync)
            assert len(seen.values) == 1501


async def test_overlapping_interests(nats: Nats) -> None:
    async with nats.bus() as bus:
        await bus.put(GROUP, ("g", "0"), Group())
        async with mirror(bus, Interest(GROUP), Interest(GROUP, ("g",)), Interest(GROUP, ("g", "0"))) as seen:
            await eventually(lambda: seen.in_sync)
            seen.feed.discard(Interest(GROUP))
            await bus.put(GROUP, ("g", "1"), Group())
            await bus.put(GROUP, ("h", "0"), Group())
            await eventually(lambda: set(seen.values) == {("g", "0"), ("g", "1")})
