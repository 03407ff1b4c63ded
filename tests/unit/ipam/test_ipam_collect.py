"""What looks forgotten, what it waits for, and what is superfluous."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import LOAD_BALANCER, Candidate, Handle, Held, Holding
from bus_schemas.subjects import CANDIDATE, HANDLE, HOLDING, Fact
from services.ipam.collect import OBSERVATIONS, World, give_back, may_go, observe, surplus
from services.ipam.core import Decision
from services.ipam.words import Words
from tests.support.ipam import START, ask, check_store, cluster, node, owners, pool
from tests.support.ipam import give_back as release

N1 = NodeName("n1")
LATER = START + 900


def held(handle: str = "h", address: str = "10.0.0.1", **fields: Any) -> Handle:
    return Handle(
        handle=HandleId(handle), node=N1, addresses=(address,), sequences=(7,), **{"assigned": START - 60, **fields}
    )


def said(*addresses: str, epoch: str = "one", on: str = "n1") -> Fact:
    word = Holding(node=NodeName(on), epoch=epoch, held=(Held(handle=HandleId("w"), addresses=addresses),))
    return Fact(HOLDING, (on,), word, 1)


def world(*facts: Fact, now: float = START, **fields: Any) -> World:
    return World(
        **{
            "words": Words(facts),
            "nodes": {N1: {}}.keys(),
            "gone": set(),
            "epoch": "one",
            "alive": {N1},
            "now": now,
            "grace_s": 900.0,
            **fields,
        }
    )


def looks(one: Handle, *worlds: World) -> tuple[Candidate | None, bool]:
    """The candidate after one look at each world, and whether it is due."""
    known: dict[HandleId, Candidate] = {}
    due: list[HandleId] = []
    for seen in worlds:
        known, due = observe([one], known, seen)
    return known.get(one.handle), bool(due)


def test_due_when_seen_twice_and_the_grace_has_passed() -> None:
    candidate, due = looks(held(), world(said()))
    assert candidate is not None
    assert (candidate.since, candidate.due, candidate.observations) == (START, LATER, 1)
    assert candidate.reason == "no pod or device of node n1 has the address"
    assert not due
    assert not looks(held(), world(said()), world(said(), now=LATER - 1))[1]
    assert not looks(held(), world(said(), now=LATER))[1], "seen once"
    candidate, due = looks(held(), world(said()), world(said(), now=LATER))
    assert due
    assert candidate is not None
    assert may_go(held(), candidate, world(said(), now=LATER))


@pytest.mark.parametrize("use", ["workload", "tunnel", "warm", "floating"])
def test_what_an_agent_lists_is_none_under_whatever_handle(use: str) -> None:
    assert looks(held(use=use), world(said("10.0.0.1"))) == (None, False)
    assert looks(held(use=use), world(said(), said("10.0.0.1", on="n2"), alive={N1, NodeName("n2")})) == (None, False)


def test_addresses_of_services_are_none() -> None:
    assert looks(held(use="loadbalancer"), world(said())) == (None, False)


@pytest.mark.parametrize(
    ("facts", "fields", "why"),
    [
        ((), {}, "the agent of node n1 has not said what it holds since the records were begun"),
        ((said(epoch="zero"),), {}, "the agent of node n1 has not said what it holds since the records were begun"),
        ((said(),), {"alive": set()}, "the agent of node n1 is silent"),
        ((said(),), {"nodes": {}.keys(), "gone": {N1}}, "node n1 has no resource, but its agent is alive"),
        ((said(),), {"nodes": {}.keys(), "alive": set()}, "there is no Node resource at all"),
    ],
)
def test_why_one_waits(facts: tuple[Fact, ...], fields: dict[str, Any], why: str) -> None:
    candidate, due = looks(held(), *(world(*facts, now=START + i * 1000, **fields) for i in range(3)))
    assert candidate is not None
    assert candidate.reason.endswith(f"it waits: {why}")
    assert candidate.observations == 0
    assert not due
    # what was waited for begins the count, and the grace
    candidate, due = looks(held(), world(*facts, **fields), world(said(), now=LATER))
    assert candidate is not None
    assert (candidate.since, candidate.observations, due) == (LATER, 1, False)


def test_of_a_deleted_node_without_grace_but_seen_twice() -> None:
    gone: dict[str, Any] = {"nodes": {}.keys(), "gone": {N1}, "alive": set()}
    remains = said("10.0.0.1")
    assert not looks(held(), world(remains, **gone))[1]
    candidate, due = looks(held(), world(remains, **gone), world(remains, now=START + 5, **gone))
    assert due, "what a dead agent of a deleted node left behind is no evidence"
    assert candidate is not None
    assert may_go(held(), candidate, world(remains, now=START + 5, **gone))
    assert not may_go(held(), candidate, world(remains, now=START + 5, **{**gone, "alive": {N1}})), "it lives after all"


def test_of_a_node_that_nobody_speaks_of_after_the_grace() -> None:
    unknown: dict[str, Any] = {"nodes": {NodeName("n2"): {}}.keys(), "alive": set()}
    assert not looks(held(), world(**unknown), world(now=START + 5, **unknown))[1]
    assert looks(held(), world(**unknown), world(now=LATER, **unknown))[1]


@pytest.mark.parametrize("changed", [{"sequences": (8,)}, {"assigned": START + 1}])
def test_given_anew_or_asked_for_again_it_begins_anew(changed: dict[str, Any]) -> None:
    candidate, _ = looks(held(), world(said()), world(said(), now=LATER))
    assert candidate is not None
    other = msgspec.structs.replace(held(), **changed)
    assert not may_go(other, candidate, world(said(), now=LATER))
    found = observe([other], {other.handle: candidate}, world(said(), now=LATER))
    assert (found.candidates[other.handle].since, found.candidates[other.handle].observations) == (LATER, 1)
    assert not found.due


def test_looks_are_counted_up_to_what_it_takes() -> None:
    candidate, _ = looks(held(), *(world(said(), now=START + i) for i in range(10)))
    assert candidate is not None
    assert candidate.observations == OBSERVATIONS


def test_who_asks_again_for_what_looks_forgotten_keeps_it() -> None:
    store, [replica] = cluster(pool("four", "10.0.0.0/28", block_size=30), node("n1"))
    replica.answer(ask("h"))
    [before] = store.values(HANDLE)
    candidate = Candidate(handle=HandleId("h"), node=N1, reason="", since=LATER, due=LATER, sequences=before.sequences)
    store.put(Fact(CANDIDATE, ("h",), candidate))
    replica.catch_up()
    sequence = store.get(HANDLE, ("h",)).sequence
    [reply] = replica.answer(ask("h"), now=LATER + 5)
    assert reply.repeated  # type: ignore[union-attr]
    [after] = store.values(HANDLE)
    assert after.assigned == LATER + 5
    assert store.get(HANDLE, ("h",)).sequence > sequence, "whoever would release it now finds it changed"


def test_empty_blocks_beyond_one_of_each_pool() -> None:
    store, [replica] = cluster(
        pool("a", "10.0.0.0/26", block_size=30), pool("b", "10.1.0.0/26", block_size=30), node("n1"), node("n2")
    )
    for i in range(9):
        replica.answer(ask(f"a{i}", "n1", pools=("a",)))
    for i in range(5):
        replica.answer(ask(f"b{i}", "n1", pools=("b",)))
    replica.answer(ask("other", "n2", pools=("a",)))
    assert len(owners(store)) == 6
    replica.answer(*(release(f"b{i}") for i in range(5)), *(release(f"a{i}") for i in range(4)))
    replica.catch_up()

    def look(seen: dict[Any, int]) -> tuple[dict[Any, int], list[Any]]:
        return surplus(replica.core.draft(START), seen, replica.core.desired.nodes.keys())

    seen, due = look({})
    assert len(seen) == 2, "one of a's, which has others in use; one of b's two"
    assert not due
    again, due = look(seen)
    assert set(due) == set(again) == set(seen)
    for cidr in due:
        draft = replica.core.draft(START)
        give_back(draft, cidr)
        assert replica.commit(Decision(writes=tuple(draft.writes())))
    replica.catch_up()
    assert len(owners(store)) == 4
    assert look({}) == ({}, [])
    replica.repair()
    check_store(store)


def test_a_block_that_was_used_meanwhile_is_not_superfluous() -> None:
    _, [replica] = cluster(pool("a", "10.0.0.0/28", block_size=30), node("n1"))
    for i in range(5):
        replica.answer(ask(f"h{i}"))
    replica.answer(*(release(f"h{i}") for i in range(5)))
    seen, _ = surplus(replica.core.draft(START), {}, replica.core.desired.nodes.keys())
    replica.answer(*(ask(f"x{i}") for i in range(5)))
    replica.answer(*(release(f"x{i}") for i in range(5)))
    assert surplus(replica.core.draft(START), seen, replica.core.desired.nodes.keys())[1] == []


def test_a_node_that_was_deleted_while_nobody_listened_keeps_no_block() -> None:
    store, [replica] = cluster(pool("a", "10.0.0.0/28", block_size=30), node("n1"), node("n2"))
    replica.answer(ask("a", "n1"), ask("lb", LOAD_BALANCER, use="workload"), ask("b", "n2"))
    replica.answer(release("a"), release("lb"), release("b"))
    draft = replica.core.draft(START)
    lost, _ = surplus(draft, {}, [])
    assert not lost, "no resource is there at all: they may come back"
    spare, _ = surplus(draft, {}, [N1])
    assert [replica.core.ledger.blocks[cidr].node for cidr in spare] == ["n2"]
    assert set(surplus(draft, spare, [N1])[1]) == set(spare)
    assert len(owners(store)) == 3
