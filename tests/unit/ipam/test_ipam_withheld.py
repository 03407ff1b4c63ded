"""Free addresses that are not given to whoever comes: reserved ones, and those that cool down."""

from __future__ import annotations

import msgspec
import pytest

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, Busy, Cooling, PoolExhausted, Released, ReleaseRequest
from bus_schemas.subjects import BLOCK
from services.ipam.block import OpenBlock, Withholding, adopted, disowned, fault, fresh
from services.ipam.cidr import parse
from services.ipam.core import Reply
from services.ipam.limits import Limits
from tests.support.ipam import (
    START,
    Replica,
    Store,
    ask,
    check_store,
    cluster,
    configuration,
    give_back,
    node,
    owners,
    pool,
    reservation,
    without,
)

N1, N2 = node("n1"), node("n2")
ONE_BLOCK = pool("one", "10.0.0.0/30", block_size=30)
TWO_BLOCKS = pool("two", "10.0.0.0/29", block_size=30)
RESTS = Limits(cooldown_s=60.0)
MOMENT = Limits(cooldown_s=2.0)


def given(ipam: Replica, *handles: str, on: str = "n1", now: float = START) -> list[str]:
    replies = ipam.answer(*(ask(handle, on) for handle in handles), now=now)
    assert all(isinstance(reply, Assigned) for reply in replies), replies
    return [address for reply in replies if isinstance(reply, Assigned) for address in reply.addresses]


def says(reply: Reply) -> str:
    assert isinstance(reply, PoolExhausted | Busy), reply
    return reply.reason


# --- reserved


def test_a_reserved_address_is_given_to_who_names_it_and_to_nobody_else() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, reservation("r", "10.0.0.0/31"))
    assert given(ipam, "a", "b") == ["10.0.0.2", "10.0.0.3"]
    [reply] = ipam.answer(ask("c"))
    assert isinstance(reply, PoolExhausted)
    assert "2 of 4 addresses in use, 1 of 1 blocks claimed, 2 reserved (IPReservation)" in reply.reason
    assert ipam.answer(ask("d", addresses=("10.0.0.1",))) == [Assigned(addresses=("10.0.0.1",))]
    assert ipam.answer(give_back("d")) == [Released(addresses=("10.0.0.1",))]
    assert isinstance(ipam.answer(ask("e"))[0], PoolExhausted)
    store.put(without(reservation("r")))
    ipam.catch_up()
    assert sorted(given(ipam, "e", "f")) == ["10.0.0.0", "10.0.0.1"]


def test_an_address_that_is_reserved_while_it_is_held_stays_until_it_comes_back() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1)
    assert given(ipam, "a") == ["10.0.0.0"]
    store.put(reservation("r", "10.0.0.0"))
    ipam.catch_up()
    assert check_store(store) == {"10.0.0.0": "a"}
    ipam.answer(give_back("a"))
    assert given(ipam, "b", "c", "d") == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert isinstance(ipam.answer(ask("e"))[0], PoolExhausted)


def test_blocks_that_are_reserved_whole_are_not_claimed() -> None:
    store, [ipam] = cluster(pool("p", "10.0.0.0/24", block_size=30), N1, reservation("r", "10.0.0.0/25", "10.0.0.130"))
    taken = given(ipam, *(f"h{i}" for i in range(79)))
    assert all(int(address.split(".")[3]) >= 128 for address in taken)
    assert "10.0.0.130" not in taken
    assert len(owners(store)) == 20


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "fd00::/16"])
def test_a_reservation_of_a_huge_pool_costs_nothing(cidr: str) -> None:
    size = 32 if "." in cidr else 128
    store, [ipam] = cluster(pool("p", cidr, block_size=size), N1, reservation("r", cidr))
    [reply] = ipam.answer(ask("h"))
    assert isinstance(reply, PoolExhausted)
    assert "reserved (IPReservation)" in reply.reason
    first = cidr.split("/")[0]
    assert isinstance(ipam.answer(ask("h", addresses=(first,)))[0], Assigned)
    store.put(reservation("r", cidr.replace("/8", "/9").replace("/16", "/17")))
    ipam.catch_up()
    assert len(given(ipam, "i")) == 1


def test_a_block_of_reserved_addresses_alone_is_not_taken_from_its_node() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, N2, limits=Limits(strict_affinity=True))
    given(ipam, "h")
    ipam.answer(give_back("h"))
    store.put(reservation("r", "10.0.0.0/24"))
    ipam.catch_up()
    assert isinstance(ipam.answer(ask("i", "n2"), now=START + 100)[0], PoolExhausted)
    assert owners(store) == {"10.0.0.0/30": "n1"}


def test_an_entry_that_is_no_network_is_named() -> None:
    _, [ipam] = cluster(ONE_BLOCK, N1, reservation("r", "nonsense", "10.0.0.0"))
    assert "IPReservation r: " in str(ipam.core.faults)
    assert given(ipam, "a") == ["10.0.0.1"]


# --- cooling down


def test_a_released_address_rests() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, limits=RESTS)
    given(ipam, "a", "b", "c", "d")
    ipam.answer(give_back("a"), now=START + 1)
    ipam.answer(give_back("b"), now=START + 2)
    [block] = store.values(BLOCK)
    assert block.cooling == (Cooling(ordinal=0, released=START + 1), Cooling(ordinal=1, released=START + 2))
    text = says(ipam.answer(ask("e"), now=START + 50)[0])
    assert "2 of 4 addresses in use" in text
    assert "2 cooling down after their release (ipCooldownSeconds; the first is free in 11 s)" in text
    assert "or wait, or lower ipCooldownSeconds of IPAMConfiguration default" in text
    assert given(ipam, "e", now=START + 61) == ["10.0.0.0"]
    [block] = store.values(BLOCK)
    assert block.cooling == (Cooling(ordinal=1, released=START + 2),)
    assert given(ipam, "f", now=START + 62) == ["10.0.0.1"]
    assert store.values(BLOCK)[0].cooling == ()


def test_what_is_released_and_asked_for_in_one_batch_rests() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, limits=RESTS)
    given(ipam, "a", "b", "c", "d")
    released, reply = ipam.answer(give_back("a"), ask("e"))
    assert isinstance(released, Released)
    assert isinstance(reply, PoolExhausted)
    assert "the first is free in 60 s" in reply.reason
    assert "a" not in check_store(store).values()


def test_whoever_comes_in_the_last_moment_is_told_to_ask_again() -> None:
    _, [ipam] = cluster(ONE_BLOCK, N1, limits=MOMENT)
    given(ipam, "a", "b", "c", "d")
    ipam.answer(give_back("a"))
    [reply] = ipam.answer(ask("e"), now=START + 1)
    assert isinstance(reply, Busy)
    assert "the first is free in 1 s" in reply.reason
    assert given(ipam, "e", now=START + 2) == ["10.0.0.0"]


def test_the_limit_of_blocks_knows_of_addresses_that_rest() -> None:
    _, [ipam] = cluster(TWO_BLOCKS, N1, limits=MOMENT._replace(max_blocks_per_node=1))
    given(ipam, "a", "b", "c", "d")
    ipam.answer(give_back("a"))
    assert isinstance(ipam.answer(ask("e"), now=START + 1)[0], Busy)
    assert isinstance(ipam.answer(ask("e"), now=START + 2)[0], Assigned)


def test_a_neighbours_resting_address_is_no_reason_to_wait_under_strict_affinity() -> None:
    _, [ipam] = cluster(ONE_BLOCK, N1, N2, limits=MOMENT._replace(strict_affinity=True))
    given(ipam, "a", "b")
    ipam.answer(give_back("a"))
    assert isinstance(ipam.answer(ask("e", "n2"), now=START + 1)[0], PoolExhausted)


def test_other_addresses_are_given_meanwhile_and_other_blocks_claimed() -> None:
    store, [ipam] = cluster(TWO_BLOCKS, N1, limits=RESTS)
    first = given(ipam, "a", "b", "c", "d")
    ipam.answer(give_back("a"))
    second = given(ipam, "e")
    assert not set(first) & set(second)
    assert len(owners(store)) == 2


def test_who_names_an_address_need_not_wait() -> None:
    _, [ipam] = cluster(ONE_BLOCK, N1, limits=RESTS)
    given(ipam, "a")
    ipam.answer(give_back("a"))
    assert ipam.answer(ask("b", addresses=("10.0.0.0",))) == [Assigned(addresses=("10.0.0.0",))]


def test_a_block_whose_addresses_rest_is_not_taken_over() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, N2, limits=Limits(strict_affinity=True, cooldown_s=600))
    given(ipam, "a")
    ipam.answer(give_back("a"), now=START + 100)
    assert isinstance(ipam.answer(ask("b", "n2"), now=START + 699)[0], PoolExhausted)
    assert given(ipam, "b", on="n2", now=START + 700)
    assert owners(store) == {"10.0.0.0/30": "n2"}


@pytest.mark.parametrize("what", ["node", "pool"])
def test_what_goes_goes_when_its_addresses_have_rested(what: str) -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, limits=RESTS)
    given(ipam, "a")
    ipam.answer(give_back("a"))
    store.put(without(N1 if what == "node" else ONE_BLOCK))
    ipam.catch_up()
    ipam.repair(START + 10)
    assert list(owners(store)) == ["10.0.0.0/30"]
    assert ipam.core.due == START + 60
    ipam.repair(START + 60)
    assert owners(store) == {}
    assert ipam.core.due is None


def test_what_goes_goes_although_the_clock_was_set_back() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, limits=RESTS)
    given(ipam, "a")
    ipam.answer(give_back("a"))
    store.put(without(N1))
    ipam.catch_up()
    ipam.repair(START + 10)
    ipam.repair(START - 7200)
    assert owners(store) == {}


def test_the_last_address_of_nobodys_block_rests_too() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, N2, limits=RESTS)
    given(ipam, "a")
    store.put(without(N1))
    ipam.catch_up()
    ipam.repair()
    ipam.answer(give_back("a"))
    assert owners(store) == {"10.0.0.0/30": None}
    ipam.repair()
    assert given(ipam, "b", on="n2") == ["10.0.0.1"], "its other addresses are to be had"
    ipam.answer(give_back("b"))
    store.put(without(N2))
    ipam.catch_up()
    ipam.repair()
    ipam.repair(START + 60)
    assert owners(store) == {}


def test_who_names_an_address_of_a_block_that_goes_at_this_moment_asks_again() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, N2)
    given(ipam, "a")
    store.put(without(N1))
    ipam.catch_up()
    ipam.repair()
    replies = ipam.answer(give_back("a"), ask("b", "n2", addresses=("10.0.0.1",)))
    assert isinstance(replies[1], Busy)
    assert isinstance(ipam.answer(ask("b", "n2", addresses=("10.0.0.1",)))[0], Assigned)


def test_a_shorter_rest_counts_at_once() -> None:
    store, [ipam] = cluster(ONE_BLOCK, N1, limits=RESTS)
    given(ipam, "a", "b", "c", "d")
    ipam.answer(give_back("a"))
    assert isinstance(ipam.answer(ask("e"), now=START + 11)[0], PoolExhausted)
    store.put(configuration(ip_cooldown_seconds=10))
    ipam.catch_up()
    assert given(ipam, "e", now=START + 11) == ["10.0.0.0"]


def test_a_clock_that_ran_ahead_blocks_nothing_for_ever() -> None:
    _, [ipam] = cluster(ONE_BLOCK, N1, limits=RESTS)
    given(ipam, "a", "b", "c", "d")
    ipam.answer(give_back("a"), now=START + 1e9)
    assert given(ipam, "e", now=START + 1) == ["10.0.0.0"]


def test_a_block_keeps_what_rests_whoever_has_it() -> None:
    rests = Withholding(START, 60.0)
    opened = OpenBlock(fresh(parse("10.0.0.0/30"), "p", NodeName("n1"), START), rests)
    taken = opened.take(HandleId("h"))
    opened.release(0, HandleId("h"), taken.sequence)
    block = opened.close()
    assert (opened.free, opened.unused, fault(block)) == (3, False, None)
    left = disowned(block)
    assert left.cooling == adopted(left, NodeName("n2"), START).cooling == block.cooling
    assert OpenBlock(block, rests).free == 3
    assert OpenBlock(block, rests._replace(now=START + 60)).free == 4


@pytest.mark.parametrize(
    "cooling",
    [
        (Cooling(ordinal=0, released=START),),
        (Cooling(ordinal=7, released=START),),
        (Cooling(ordinal=1, released=START), Cooling(ordinal=1, released=START)),
    ],
    ids=["given", "outside", "twice"],
)
def test_what_cannot_rest_is_found_out(cooling: tuple[Cooling, ...]) -> None:
    opened = OpenBlock(fresh(parse("10.0.0.0/30"), "p", NodeName("n1"), START))
    opened.take(HandleId("h"))
    assert "cools down" in str(fault(msgspec.structs.replace(opened.close(), cooling=cooling)))


def test_a_release_of_what_was_given_anew_changes_nothing() -> None:
    """A report of `tortie ipam check` names the sequence that it saw."""
    store, [ipam] = cluster(ONE_BLOCK, N1)
    given(ipam, "a")
    seen: Store = store
    sequence = seen.values(BLOCK)[0].allocations[0].sequence
    ipam.answer(give_back("a"))
    assert ipam.answer(ask("b", addresses=("10.0.0.0",))) == [Assigned(addresses=("10.0.0.0",))]
    late = ReleaseRequest(address="10.0.0.0", sequence=sequence)
    assert ipam.answer(late, ReleaseRequest(address="10.0.0.0", handle=HandleId("b"), sequence=sequence)) == [
        Released(),
        Released(),
    ]
    assert check_store(store) == {"10.0.0.0": "b"}
    now = store.values(BLOCK)[0].allocations[0].sequence
    assert ipam.answer(ReleaseRequest(address="10.0.0.0", sequence=now)) == [Released(addresses=("10.0.0.0",))]
