"""What keeps many nodes from being in each other's way: claims that keep apart, reads and refusals in common."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import pytest

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Handle
from bus_schemas.subjects import AFFINITY, HANDLE, Fact, Family, Key
from chassis.bus import Bus, Write
from chassis.errors import Conflict, Unavailable
from services.ipam.cidr import parse
from services.ipam.commits import Commits
from services.ipam.pools import Pool, candidates
from services.ipam.reads import MAX_KEYS, Reads
from services.ipam.search import Reserved
from tests.support.ipam import START, ask, check_store, cluster, node, pool

BLOCKS = Pool("p", parse("10.0.0.0/20"), 26)
NAMES = sorted((f"n{i}" for i in range(100)), key=lambda name: next(candidates(BLOCKS, NodeName(name), Reserved())))
RIVALS = next(
    (one, other)
    for one, other in pairwise(NAMES)
    if next(candidates(BLOCKS, NodeName(one), Reserved())) == next(candidates(BLOCKS, NodeName(other), Reserved()))
)
"""Two nodes whose order of blocks begins at the same place."""


def test_nodes_that_begin_together_claim_different_blocks() -> None:
    one, other = RIVALS
    store, [replica] = cluster(pool("p", "10.0.0.0/20"), node(one), node(other))
    core = replica.core
    first = core.decide([ask("a", one)], START)
    with core.under_way(first):
        second = core.decide([ask("b", other)], START)
        assert replica.commit(first)
    assert replica.commit(second)
    claimed = [write.key[1] for decision in (first, second) for write in decision.writes if write.family is AFFINITY]
    assert len(set(claimed)) == 2
    replica.answer(ask("a", one), ask("b", other))
    assert len(check_store(store)) == 2


def test_what_is_no_longer_under_way_is_no_obstacle() -> None:
    one, other = RIVALS
    _, [replica] = cluster(pool("p", "10.0.0.0/20"), node(one), node(other))
    void = replica.core.decide([ask("a", one)], START)
    with replica.core.under_way(void):
        pass
    claim = replica.core.decide([ask("b", other)], START)
    assert claim.writes[0].key[1] == void.writes[0].key[1]


def test_the_last_free_block_is_contested_rather_than_refused() -> None:
    _, [replica] = cluster(pool("p", "10.0.0.0/26"), node("n1"), node("n2"))
    first = replica.core.decide([ask("a", "n1")], START)
    with replica.core.under_way(first):
        second = replica.core.decide([ask("b", "n2")], START)
    assert second.writes, "it waits for what comes of the claim"


class SlowBus:
    """Holds every read until it is let go; the first `refused` keys of a batch conflict."""

    def __init__(self, *refused: str) -> None:
        self.reads: list[list[tuple[Family[Any], Key]]] = []
        self.batches: list[list[str]] = []
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.fail = False
        self._refused = refused

    async def get_many(self, keys: Sequence[tuple[Family[Any], Key]]) -> list[Fact]:
        self.reads.append(list(keys))
        self.asked.set()
        await self.go.wait()
        if self.fail:
            raise Unavailable("gone")
        return [Fact(family, key, None, len(self.reads)) for family, key in keys]

    async def batch(self, writes: Sequence[Write]) -> list[int]:
        names = [write.key[0] for write in writes]
        self.batches.append(names)
        wrong = [HANDLE.subject(name) for name in names if name in self._refused]
        if wrong:
            raise Conflict(wrong[0], expected=0, actual=1, others=wrong[1:])
        return list(range(1, len(names) + 1))


async def test_reads_of_many_are_one_and_nobody_joins_one_that_is_under_way() -> None:
    bus = SlowBus()
    async with asyncio.TaskGroup() as tasks:
        reads = Reads(cast(Bus, bus), tasks)
        early = [tasks.create_task(reads.get_many([(HANDLE, (name,)), (HANDLE, ("all",))])) for name in "ab"]
        await bus.asked.wait()
        late = tasks.create_task(reads.get_many([(HANDLE, ("a",))]))
        await asyncio.sleep(0)
        bus.go.set()
        answers = [await task for task in early]
    assert bus.reads == [[(HANDLE, ("a",)), (HANDLE, ("all",)), (HANDLE, ("b",))], [(HANDLE, ("a",))]]
    assert [[fact.key[0] for fact in answer if isinstance(fact, Fact)] for answer in answers] == [
        ["a", "all"],
        ["b", "all"],
    ]
    assert [fact.sequence for fact in late.result()] == [2], "what was read before it asked is not its answer"


async def test_a_read_that_fails_fails_for_all_who_share_it() -> None:
    bus = SlowBus()
    bus.fail = True
    bus.go.set()
    async with asyncio.TaskGroup() as tasks:
        reads = Reads(cast(Bus, bus), tasks)
        asked = [reads.get_many([(HANDLE, (name,))]) for name in "ab"]
        assert all(isinstance(e, Unavailable) for e in await asyncio.gather(*asked, return_exceptions=True))
    assert len(bus.reads) == 1


async def test_a_read_is_not_larger_than_the_server_takes() -> None:
    bus = SlowBus()
    bus.go.set()
    async with asyncio.TaskGroup() as tasks:
        reads = Reads(cast(Bus, bus), tasks)
        await asyncio.gather(*(reads.get_many([(HANDLE, (f"{i}",))]) for i in range(MAX_KEYS + 1)))
    assert [len(read) for read in bus.reads] == [MAX_KEYS, 1]


@pytest.mark.parametrize("refused", [("b",), ("b", "d"), ("a", "b", "c", "d")])
async def test_all_whose_keys_conflict_are_told_at_once(refused: tuple[str, ...]) -> None:
    bus = SlowBus(*refused)
    async with asyncio.TaskGroup() as tasks:
        commits = Commits(cast(Bus, bus), tasks)
        handles = [Handle(handle=HandleId(name), node=NodeName("n")) for name in "abcd"]
        changes = [commits.commit([Write(HANDLE, (handle.handle,), handle, 0)]) for handle in handles]
        outcomes = await asyncio.gather(*changes, return_exceptions=True)
    assert {name for name, o in zip("abcd", outcomes, strict=True) if isinstance(o, Conflict)} == {*refused}
    left = [name for name in "abcd" if name not in refused]
    assert bus.batches == [list("abcd"), *([left] if left else [])]
