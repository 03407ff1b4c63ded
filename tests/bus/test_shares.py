"""Several replicas write one set of keys, each its shards: who holds what, and in which order they write together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import pytest

from bus_schemas.codec import Message
from bus_schemas.policy import Group, Match, Rule, Rules
from bus_schemas.subjects import GROUP, RULES, Key
from chassis.bus import Bus
from chassis.feed import Interest
from chassis.publication import Publication
from chassis.shares import PARTITIONS, Shares, fair, partition
from tests.support.mirror import mirror
from tests.support.nats import Nats
from tests.support.waiting import eventually

ALL = set(range(PARTITIONS))


def held(shares: Shares) -> set[int]:
    return {at for at, lease in enumerate(shares.leases) if lease.held}


@asynccontextmanager
async def replica(bus: Bus, instance: str, shards: int) -> AsyncIterator[Shares]:
    """Gives everything back at the end, as a replica that is told to stop."""
    shares = Shares(bus, "service", instance, shards=shards)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(shares.run())
        try:
            yield shares
        finally:
            running.cancel()


@pytest.mark.parametrize(
    ("shards", "replicas", "expected"), [(1, 0, 1), (1, 1, 1), (1, 3, 1), (2, 1, 2), (2, 2, 1), (4, 3, 2), (4, 9, 1)]
)
def test_the_fair_parts_cover_all(shards: int, replicas: int, expected: int) -> None:
    assert fair(shards, replicas) == expected


def test_keys_with_one_leading_token_stay_together() -> None:
    assert partition(("g", "0")) == partition(("g", "17"))
    assert {partition((f"g{n}",)) for n in range(100)} == ALL


async def test_with_one_shard_one_writes_all_and_the_next_takes_all(nats: Nats) -> None:
    async with nats.bus() as bus, replica(bus, "b", 1) as b:
        async with replica(bus, "a", 1) as a:
            await eventually(lambda: ALL in (held(a), held(b)))
        await eventually(lambda: held(b) == ALL)


async def test_shards_are_shared_and_taken_over(nats: Nats) -> None:
    async with nats.bus() as bus, replica(bus, "a", 2) as a:
        await eventually(lambda: held(a) == ALL)
        async with replica(bus, "b", 2) as b:
            await eventually(lambda: len(held(a)) == len(held(b)) == PARTITIONS // 2 and not held(a) & held(b))
            assert held(b) in ({0, 2, 4, 6}, {1, 3, 5, 7})
        await eventually(lambda: held(a) == ALL)


async def test_the_number_of_shards_changes_one_replica_after_the_other(nats: Nats) -> None:
    async with nats.bus() as bus, replica(bus, "b", 1) as b:
        await eventually(lambda: held(b) == ALL)
        async with replica(bus, "a", 4) as a:
            assert not held(a) & held(b)
        async with replica(bus, "c", 4) as c, replica(bus, "d", 2) as d:
            await eventually(lambda: held(b) | held(c) | held(d) == ALL)
            assert len(held(b)) + len(held(c)) + len(held(d)) == PARTITIONS


class Part:
    """A mandate for some keys."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = set(tokens)
        self.held = True

    def covers(self) -> Callable[[Key], bool]:
        return lambda key: key[0] in self.tokens

    def on_change(self, callback: object) -> None:
        pass


def names(message: Message) -> Iterable[str]:
    return [group for rule in message.ingress for group in rule.source.groups] if isinstance(message, Rules) else ()


def rules(*groups: str) -> Rules:
    return Rules(policy="p", ingress=(Rule(action="allow", source=Match(groups=groups)),))  # type: ignore[arg-type]


@asynccontextmanager
async def publication(bus: Bus, *tokens: str) -> AsyncIterator[Publication]:
    interests = [Interest(GROUP), Interest(RULES)]
    async with Publication(bus, interests, lease=Part(*tokens), names=names) as subject, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(subject.run())
        try:
            yield subject
        finally:
            running.cancel()


async def exists(bus: Bus, key: Key) -> bool:
    return (await bus.get(GROUP if len(key) == 2 else RULES, key)).value is not None


async def test_what_names_a_key_of_another_replica_waits_for_it_and_outlives_it(nats: Nats) -> None:
    async with (
        nats.bus() as bus,
        publication(bus, "p") as policies,
        publication(bus, "g") as groups,
        mirror(bus, Interest(GROUP), Interest(RULES)) as seen,
    ):
        for one in (policies, groups):
            one.want(RULES, ("p",), rules("g"))
            one.want(GROUP, ("g", "0"), Group())
            one.complete()
            await one.flush()
            assert await exists(bus, ("g", "0")) or not await exists(bus, ("p",))
        await eventually(lambda: set(seen.values) == {("g", "0"), ("p",)})
        assert seen.sequences["g", "0"] < seen.sequences["p",]

        for one in (groups, policies):
            one.want(GROUP, ("g", "0"), None)
            one.want(RULES, ("p",), rules())
            await one.flush()
            assert (one is policies) or await exists(bus, ("g", "0"))
        await eventually(lambda: set(seen.values) == {("p",)})


async def test_what_depends_on_what_waits_does_not_overtake_it(nats: Nats) -> None:
    """Rules that are to name a new group of another replica instead of our old one, which stays until they do."""
    async with (
        nats.bus() as bus,
        publication(bus, "p", "old") as ours,
        publication(bus, "new") as theirs,
        mirror(bus, Interest(GROUP), Interest(RULES)) as seen,
    ):
        for one in (ours, theirs):
            one.want(GROUP, ("old", "0"), Group())
            one.want(RULES, ("p",), rules("old"))
            one.complete()
        await ours.flush()
        for one in (ours, theirs):
            one.want(GROUP, ("old", "0"), None)
            one.want(GROUP, ("new", "0"), Group())
            one.want(RULES, ("p",), rules("new"))
            await one.flush()
            assert (one is theirs) or await exists(bus, ("old", "0"))
        await eventually(lambda: set(seen.values) == {("new", "0"), ("p",)})
        assert seen.sequences["new", "0"] < seen.sequences["p",]
