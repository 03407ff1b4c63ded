"""Requests and what comes of them: blocks claimed, addresses given and taken back, on a bus in memory."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import (
    AffinityState,
    Assigned,
    Busy,
    PoolExhausted,
    Refused,
    Released,
    ReleaseRequest,
    tunnel_handle,
)
from bus_schemas.subjects import AFFINITY, BLOCK, HANDLE, Fact
from services.ipam.core import Reply
from services.ipam.limits import Limits
from tests.support.ipam import (
    START,
    Replica,
    Store,
    affinities,
    ask,
    check_store,
    cluster,
    give_back,
    node,
    owners,
    pool,
    without,
)

N1, N2, N3 = node("n1"), node("n2"), node("n3")
FOUR = pool("four", "10.0.0.0/24", block_size=30)
ONE_BLOCK = pool("one", "10.0.0.0/30", block_size=30)
TWO_BLOCKS = pool("two", "10.0.0.0/29", block_size=30)
SIX = pool("six", "fd00::/64", block_size=126)


def addresses(*replies: Reply) -> list[str]:
    assert all(isinstance(reply, Assigned) for reply in replies), replies
    return [address for reply in replies if isinstance(reply, Assigned) for address in reply.addresses]


def assigned(ipam: Replica, *handles: str, on: str = "n1") -> list[str]:
    return addresses(*ipam.answer(*(ask(handle, on) for handle in handles)))


def reason(reply: Reply) -> str:
    assert isinstance(reply, PoolExhausted | Refused | Busy), reply
    return reply.reason


def test_a_claim_has_two_phases() -> None:
    store, [ipam] = cluster(FOUR, N1)
    first = ipam.core.decide([ask("h")], START)
    assert [(w.family, w.message.state) for w in first.writes if w.message] == [(AFFINITY, "pending")]  # type: ignore[attr-defined]
    assert first.replies == (None,)
    assert ipam.commit(first)
    second = ipam.core.decide([ask("h")], START)
    assert [w.family for w in second.writes] == [BLOCK, AFFINITY, HANDLE]
    assert isinstance(second.replies[0], Assigned)
    assert ipam.commit(second)
    assert set(affinities(store).values()) == {"confirmed"}
    assert len(check_store(store)) == 1


def test_a_claim_that_a_crash_cut_short_is_finished_by_whoever_comes_next() -> None:
    store, [ipam, other] = cluster(FOUR, N1, replicas=2)
    ipam.commit(ipam.core.decide([ask("h")], START))
    [(_, begun)] = affinities(store)
    other.catch_up()
    assigned(other, "h")
    assert owners(store) == {begun: "n1"}
    assert affinities(store) == {("n1", begun): "confirmed"}


def test_a_lost_race_for_a_block_moves_on_to_the_next() -> None:
    store, [one, two] = cluster(TWO_BLOCKS, N1, N2, replicas=2)
    [contested] = [w.key[1] for w in one.core.decide([ask("a", "n1")], START).writes]
    one.commit(one.core.decide([ask("a", "n1", addresses=("10.0.0.1",))], START))
    two.commit(two.core.decide([ask("b", "n2", addresses=("10.0.0.1",))], START))
    assert addresses(*one.answer(ask("a", "n1", addresses=("10.0.0.1",)))) == ["10.0.0.1"]
    [lost] = two.answer(ask("b", "n2", addresses=("10.0.0.1",)))
    assert "in use by handle a" in reason(lost)
    assert assigned(two, "b", on="n2") == ["10.0.0.4"], contested
    two.repair()
    assert affinities(store) == {("n1", "10.0.0.0/30"): "confirmed", ("n2", "10.0.0.4/30"): "confirmed"}


def test_requests_that_wait_together_are_one_write() -> None:
    store, [ipam] = cluster(pool("p", "10.0.0.0/24"), N1)
    assigned(ipam, "first")
    decision = ipam.core.decide([ask(f"h{i}") for i in range(63)], START)
    assert [w.family for w in decision.writes] == [BLOCK, *[HANDLE] * 63]
    assert ipam.commit(decision)
    assert len(check_store(store)) == 64


def test_more_requests_than_a_block_holds_claim_all_the_blocks_at_once() -> None:
    store, [ipam] = cluster(FOUR, N1)
    decision = ipam.core.decide([ask(f"h{i}") for i in range(10)], START)
    assert [w.family for w in decision.writes] == [AFFINITY] * 3
    assigned(ipam, *(f"h{i}" for i in range(10)))
    assert len(owners(store)) == 3
    assert len(check_store(store)) == 10


def test_a_repeated_request_has_the_same_answer_and_writes_nothing() -> None:
    store, [ipam] = cluster(FOUR, N1, N2)
    [address] = assigned(ipam, "h")
    told = len(store.log)
    assert ipam.answer(ask("h")) == [Assigned(addresses=(address,), repeated=True)]
    assert ipam.answer(ask("h", families=(4,), addresses=(address,))) == [Assigned(addresses=(address,), repeated=True)]
    assert len(store.log) == told
    assert "not on n2" in reason(ipam.answer(ask("h", "n2"))[0])
    assert "release it first" in reason(ipam.answer(ask("h", families=(6,)))[0])
    assert "release it first" in reason(ipam.answer(ask("h", addresses=("10.0.0.99",)))[0])


def test_the_same_request_twice_in_one_batch() -> None:
    store, [ipam] = cluster(FOUR, N1)
    one, two = ipam.answer(ask("h"), ask("h"))
    assert addresses(one) == addresses(two)
    assert two == Assigned(addresses=tuple(addresses(one)), repeated=True)
    assert len(check_store(store)) == 1


def test_assign_release_assign_in_one_batch_happen_in_that_order() -> None:
    store, [ipam] = cluster(FOUR, N1)
    first, released, second = ipam.answer(ask("h"), give_back("h"), ask("h"))
    assert released == Released(addresses=tuple(addresses(first)))
    assert second == Assigned(addresses=tuple(addresses(second)))
    assert list(check_store(store)) == addresses(second)


def test_both_families_or_none() -> None:
    store, [ipam] = cluster(FOUR, SIX, N1)
    [reply] = ipam.answer(ask("both"))
    assert [":" in a for a in addresses(reply)] == [False, True]
    [reply] = ipam.answer(ask("six first", families=(6, 4)))
    assert [":" in a for a in addresses(reply)] == [True, False]
    full = pool("six", "fd00::/128", block_size=128)
    store, [ipam] = cluster(FOUR, full, N1)
    assigned(ipam, "one")
    before = len(store.log)
    [reply] = ipam.answer(ask("two"))
    assert isinstance(reply, PoolExhausted)
    assert "IPv6" in reason(reply)
    assert len(store.log) == before
    check_store(store)


def test_release_by_handle_by_address_and_of_what_is_not_held() -> None:
    store, [ipam] = cluster(FOUR, SIX, N1)
    [reply] = ipam.answer(ask("h"))
    four, six = addresses(reply)
    assert ipam.answer(ReleaseRequest(address=six)) == [Released(addresses=(six,))]
    assert ipam.answer(ReleaseRequest(address=six)) == [Released()]
    assert ipam.answer(ReleaseRequest(address=four, handle=HandleId("other"))) == [Released()]
    assert "not n2's" in reason(ipam.answer(give_back("h", node=NodeName("n2")))[0])
    assert check_store(store) == {four: "h"}
    assert ipam.answer(give_back("h", node=NodeName("n1"))) == [Released(addresses=(four,))]
    assert ipam.answer(give_back("h")) == [Released()]
    assert ipam.answer(ReleaseRequest(address="192.0.2.1")) == [Released()]
    assert "nonsense" in reason(ipam.answer(ReleaseRequest(address="nonsense"))[0])
    assert "neither" in reason(ipam.answer(ReleaseRequest())[0])
    assert check_store(store) == {}


def test_a_release_that_another_replica_has_not_heard_the_assignment_of() -> None:
    """The agent gave up and says DEL to whoever listens: the answer must not rest on a stale view."""
    store, [one, two] = cluster(FOUR, N1, replicas=2)
    [address] = assigned(one, "h")
    assert two.answer(give_back("h")) == [Released(addresses=(address,))]
    assert check_store(store) == {}
    assert one.answer(ask("h")) != [Assigned(addresses=(address,), repeated=True)]


def test_a_requested_address() -> None:
    store, [ipam] = cluster(FOUR, SIX, N1, N2)
    want = ("10.0.0.77", "fd00::5")
    assert ipam.answer(ask("h", addresses=want)) == [Assigned(addresses=want)]
    assert "in use by handle h" in reason(ipam.answer(ask("i", addresses=("10.0.0.77",)))[0])
    assert addresses(*ipam.answer(ask("j", "n2", addresses=("10.0.0.78",)))) == ["10.0.0.78"]
    [lent] = [a for block in store.values(BLOCK) for a in block.allocations if a.handle == "j"]
    assert lent.borrower == "n2"
    check_store(store)


def test_a_requested_address_of_another_nodes_block_under_strict_affinity() -> None:
    _, [ipam] = cluster(FOUR, N1, N2, limits=Limits(strict_affinity=True))
    ipam.answer(ask("h", addresses=("10.0.0.77",)))
    assert "strict affinity" in reason(ipam.answer(ask("j", "n2", addresses=("10.0.0.78",)))[0])


def test_borrowing_when_no_block_is_free() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, N2)
    assigned(ipam, "own")
    borrowed = assigned(ipam, "a", "b", "c", on="n2")
    assert len(borrowed) == 3
    assert owners(store) == {"10.0.0.0/30": "n1"}
    assert [a.borrower for a in store.values(BLOCK)[0].allocations] == [None, "n2", "n2", "n2"]
    text = reason(ipam.answer(ask("d", "n2"))[0])
    assert "one (10.0.0.0/30): 4 of 4 addresses in use, 1 of 1 blocks claimed" in text
    assert "Add an IPPool or a larger CIDR; `tortie ipam show` lists usage." in text


def test_strict_affinity_does_not_borrow() -> None:
    _, [ipam] = cluster(ONE_BLOCK, N1, N2, limits=Limits(strict_affinity=True))
    assigned(ipam, "own")
    text = reason(ipam.answer(ask("a", "n2"))[0])
    assert "1 of 4 addresses in use" in text
    assert "strict affinity forbids" in text


def test_the_limit_of_blocks_is_named() -> None:
    store, [ipam] = cluster(FOUR, SIX, N1, limits=Limits(max_blocks_per_node=2))
    replies = ipam.answer(*(ask(f"h{i}", families=(4,)) for i in range(9)))
    assert "TORTIE_MAX_BLOCKS_PER_NODE=2" in reason(replies[-1])
    assert len(check_store(store)) == 8
    assert addresses(*ipam.answer(ask("six", families=(6,)))), "the limit counts blocks of one family"


def test_an_empty_block_stays_with_its_node_until_somebody_needs_it() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, N2, limits=Limits(strict_affinity=True))
    assigned(ipam, "h")
    ipam.answer(give_back("h"))
    ipam.repair(START + 1000)
    assert owners(store) == {"10.0.0.0/30": "n1"}
    assert isinstance(ipam.answer(ask("i", "n2"), now=START + 59)[0], PoolExhausted)
    assert addresses(*ipam.answer(ask("i", "n2"), now=START + 60))
    assert owners(store) == {"10.0.0.0/30": "n2"}
    assert affinities(store) == {("n2", "10.0.0.0/30"): "confirmed"}


def test_a_block_is_not_taken_while_its_node_uses_it_again() -> None:
    store, [one, two] = cluster(ONE_BLOCK, N1, N2, replicas=2, limits=Limits(strict_affinity=True))
    assigned(one, "h")
    one.answer(give_back("h"))
    two.catch_up()
    assigned(one, "again")
    assert isinstance(two.answer(ask("i", "n2"), now=START + 100)[0], PoolExhausted)
    assert owners(store) == {"10.0.0.0/30": "n1"}


def test_a_node_that_is_deleted_gives_back_its_tunnel_address_and_its_empty_blocks() -> None:
    store, [ipam] = cluster(pool("p", "10.0.0.0/24", block_size=30, vxlan_mode="Always"), N1, N2)
    tunnel = tunnel_handle(NodeName("n1"))
    ipam.answer(ask(tunnel, use="tunnel"))
    ipam.answer(*(ask(f"h{i}") for i in range(5)))
    ipam.answer(*(give_back(f"h{i}") for i in (0, 1, 2)))
    store.put(without(N1))
    ipam.catch_up()
    ipam.repair()
    assert AffinityState.PENDING_DELETION in [
        fact.value.state for fact in store.log if fact.family is AFFINITY and fact.value
    ]
    assert sorted(check_store(store).values()) == ["h3", "h4"]
    assert affinities(store) == {}
    assert set(owners(store).values()) == {None}
    assert {a.borrower for block in store.values(BLOCK) for a in block.allocations} == {"n1"}
    ipam.answer(give_back("h3"), give_back("h4"))
    assert owners(store) == {}


def test_a_node_that_comes_back_takes_over_what_it_left() -> None:
    store, [ipam] = cluster(FOUR, N1)
    [address] = assigned(ipam, "h")
    block = owners(store)
    store.put(without(N1))
    ipam.catch_up()
    ipam.repair()
    assert "unknown node n1" in reason(ipam.answer(ask("i"))[0])
    store.put(N1)
    ipam.catch_up()
    assigned(ipam, "i")
    assert owners(store) == block
    assert check_store(store)[address] == "h"
    assert {a.borrower for b in store.values(BLOCK) for a in b.allocations} == {None}


@pytest.mark.parametrize("change", ["disabled", "deleted", "unselected"])
def test_a_pool_that_no_longer_serves_gets_its_empty_blocks_back(change: str) -> None:
    store, [ipam] = cluster(FOUR, N1)
    used, *rest = assigned(ipam, *(f"h{i}" for i in range(5)))
    ipam.answer(*(give_back(f"h{i}") for i in range(1, 5)))
    changed = {
        "disabled": pool("four", "10.0.0.0/24", block_size=30, disabled=True),
        "deleted": without(FOUR),
        "unselected": pool("four", "10.0.0.0/24", block_size=30, node_selector="has(x)"),
    }[change]
    store.put(changed)
    ipam.catch_up()
    ipam.repair()
    assert check_store(store) == {used: "h0"}
    assert list(owners(store).values()) == ["n1"], rest
    assert set(affinities(store).values()) == {"confirmed"}
    ipam.answer(give_back("h0"))
    ipam.repair()
    assert (owners(store), affinities(store)) == ({}, {})


def test_silence_takes_nothing_away() -> None:
    """A fresh replica that has not heard of any node or pool."""
    store, [ipam] = cluster(FOUR, N1)
    assigned(ipam, "h")
    ipam.answer(give_back("h"))
    fresh, _ = cluster()
    blind = Replica(fresh)
    for fact in store.log:
        if fact.family in (BLOCK, AFFINITY, HANDLE):
            blind.core.apply(fact)
    assert not blind.core.repairs(START).writes


@pytest.mark.parametrize(
    "change",
    [{"addresses": ("nonsense",)}, {"sequences": ()}, {"handle": HandleId("x")}, {"addresses": ("10.00.0.0",)}],
)
def test_a_senseless_handle_is_left_alone(change: dict[str, Any]) -> None:
    store, [ipam] = cluster(FOUR, N1)
    assigned(ipam, "h")
    senseless = msgspec.structs.replace(store.get(HANDLE, ("h",)).value, **change)
    store.put(Fact(HANDLE, ("h",), senseless))
    ipam.catch_up()
    for reply in ipam.answer(ask("h"), give_back("h")):
        assert reason(reply).startswith("handle h: ")
    assert store.get(HANDLE, ("h",)).value == senseless
    assert list(ipam.core.faults) == [(HANDLE, ("h",))]


def wipe(store: Store) -> None:
    """The stream is deleted and made anew by hand."""
    for family in (BLOCK, AFFINITY, HANDLE):
        store.lose(family)


def test_a_key_that_the_bus_lost_is_put_back_by_the_next_write() -> None:
    store, [ipam] = cluster(FOUR, N1)
    [first] = assigned(ipam, "h")
    wipe(store)
    [second] = assigned(ipam, "i")
    assert first != second
    [block] = store.values(BLOCK)
    assert [a.handle for a in block.allocations] == ["h", "i"]


def test_a_wiped_stream_is_written_again() -> None:
    store, replicas = cluster(FOUR, SIX, N1, N2, replicas=2)
    ipam, other = replicas
    assigned(ipam, *(f"h{i}" for i in range(9)))
    assigned(ipam, "x", "y", on="n2")
    other.catch_up()
    before = check_store(store), affinities(store)
    lost = [Fact(family, key, None, 0) for family, key in store.existing() if family in (BLOCK, AFFINITY, HANDLE)]
    wipe(store)
    for replica in replicas:
        for fact in lost:
            replica.core.learned(fact)
    ipam.commit(ipam.core.repairs(START))
    other.repair()
    ipam.repair()
    assert (check_store(store), affinities(store)) == before


def test_blocks_of_another_size_are_not_claimed_over() -> None:
    store, [ipam] = cluster(pool("p", "10.0.0.0/28", block_size=28), N1, N2)
    assigned(ipam, "h")
    store.put(without(pool("p", "10.0.0.0/28")))
    store.put(pool("p2", "10.0.0.0/27", block_size=30))
    ipam.catch_up()
    taken = assigned(ipam, *(f"i{i}" for i in range(16)), on="n2")
    assert all(int(address.split(".")[3]) >= 16 for address in taken)
    check_store(store)


def test_a_huge_pool_is_not_enumerated() -> None:
    _, [ipam] = cluster(pool("p", "10.0.0.0/8", block_size=32), pool("q", "fd00::/8"), N1)
    assert len(assigned(ipam, "a", "b")) == 4


def test_whatever_is_asked_for_at_once_fits_in_a_batch() -> None:
    """Every request wants addresses of many blocks: those without room are answered by the next decision."""
    store, [ipam] = cluster(pool("big", "10.0.0.0/16", block_size=30), N1, limits=Limits(max_blocks_per_node=0))
    requests = [ask(f"h{i}", addresses=tuple(f"10.0.{i}.{4 * j}" for j in range(32))) for i in range(100)]
    decision = ipam.core.decide(requests, START)
    assert len(decision.writes) <= 1000
    replies = ipam.answer(*requests)
    assert len(addresses(*replies)) == 3200
    check_store(store)


def test_more_addresses_than_a_request_may_name() -> None:
    _, [ipam] = cluster(FOUR, N1)
    (reply,) = ipam.answer(ask("h", addresses=tuple(f"10.0.0.{i}" for i in range(33))))
    assert "33 addresses are asked for, at most 32" in reason(reply)


@pytest.mark.parametrize("handle", ["", "x" * 513, "é" * 257])
def test_a_handle_that_makes_no_subject_is_refused(handle: str) -> None:
    _, [ipam] = cluster(FOUR, N1)
    assert "a handle has 1 to 512 bytes" in reason(ipam.answer(ask(handle))[0])
