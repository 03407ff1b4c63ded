"""Neighbouring blocks that are reached alike are one route, and no address is ever reached otherwise for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.routes import Route, WireguardEnd
from bus_schemas.subjects import Fact
from tests.support.expanders import EXPANDERS, Expander, by_key, gone, world
from tests.support.routes import Outcome, block, direct, keys, node, pool, tunnelled

A1, A2 = "10.9.0.1/24", "10.9.0.2/24"
QUARTERS = tuple(f"10.0.0.{n}/26" for n in (0, 64, 128, 192))
POOL = pool("p", "10.0.0.0/16")
NODES = world(node("n1", A1, "fd09::1/64"), node("n2", A2))


def of(owner: str, *cidrs: str, pool: str = "p", **more: object) -> list[Fact]:
    return [block(cidr, owner, pool=pool, **more) for cidr in cidrs]  # type: ignore[arg-type]


WHOLE = world(NODES, POOL, of("n1", *QUARTERS))
ONE_LEFT = world(WHOLE, gone(block(QUARTERS[1], None)))
ONE_MOVED = world(WHOLE, of("n2", QUARTERS[1]))
LENT = world(WHOLE, of("n1", QUARTERS[1], lent={"n2": 3}))
OTHER_SIZES = world(NODES, POOL, of("n1", "10.0.0.0/27", "10.0.0.32/28", "10.0.0.48/28", "10.0.0.64/26"))
NOT_ALIGNED = world(NODES, POOL, of("n1", *QUARTERS[1:3]))
TWO_POOLS = world(
    NODES,
    pool("p", "10.0.0.0/25", "Always"),
    pool("q", "10.0.0.128/25"),
    of("n1", *QUARTERS[:2]),
    of("n1", *QUARTERS[2:], pool="q"),
)
ALIKE_POOLS = world(TWO_POOLS, pool("p", "10.0.0.0/25"))
NODE_GONE = world(WHOLE, gone(NODES[0]))
OLDER_INSIDE = world(WHOLE, block("10.0.0.64/28", "n2", pool="p", claimed=0.5))
V6 = world(NODES, pool("p6", "fd00::/64"), of("n1", "fd00::/122", "fd00::40/122", pool="p6"))
END = WireguardEnd(key="A" * 43 + "=", port=51820)

N1 = "10.0.0.0/24"
STATES: dict[str, tuple[list[Fact], set[Route]]] = {
    "empty": ([], set()),
    "whole": (WHOLE, {direct(N1, "n1", A1, "p")}),
    "one left": (ONE_LEFT, {direct(QUARTERS[0], "n1", A1, "p"), direct("10.0.0.128/25", "n1", A1, "p")}),
    "one moved": (
        ONE_MOVED,
        {
            direct(QUARTERS[0], "n1", A1, "p"),
            direct(QUARTERS[1], "n2", A2, "p"),
            direct("10.0.0.128/25", "n1", A1, "p"),
        },
    ),
    "lent": (LENT, {direct(N1, "n1", A1, "p"), direct("10.0.0.67/32", "n2", A2, "p", borrowed=True)}),
    "blocks of other sizes": (OTHER_SIZES, {direct("10.0.0.0/25", "n1", A1, "p")}),
    "not aligned": (NOT_ALIGNED, {direct(cidr, "n1", A1, "p") for cidr in QUARTERS[1:3]}),
    "pools of two modes": (
        TWO_POOLS,
        {tunnelled("10.0.0.0/25", "n1", A1, "", "Always", "p"), direct("10.0.0.128/25", "n1", A1, "q")},
    ),
    "pools alike": (ALIKE_POOLS, {direct("10.0.0.0/25", "n1", A1, "p"), direct("10.0.0.128/25", "n1", A1, "q")}),
    "node gone": (NODE_GONE, set()),
    "an older block inside": (
        OLDER_INSIDE,
        {
            direct(QUARTERS[0], "n1", A1, "p"),
            direct("10.0.0.64/28", "n2", A2, "p"),
            direct("10.0.0.128/25", "n1", A1, "p"),
        },
    ),
    "IPv6": (V6, {direct("fd00::/121", "n1", "fd09::1/64", "p6")}),
    "keys": (
        world(WHOLE, keys("n1", END)),
        {msgspec.structs.replace(direct(N1, "n1", A1, "p"), wireguard=END)},
    ),
}


@pytest.mark.parametrize("tell", EXPANDERS.values(), ids=EXPANDERS)
@pytest.mark.parametrize("state", STATES)
def test_a_world_is_told_in_few_routes(state: str, tell: Expander) -> None:
    facts, routes = STATES[state]
    assert set(Outcome(tell([facts])).told.values()) == routes


@pytest.mark.parametrize("tell", EXPANDERS.values(), ids=EXPANDERS)
@pytest.mark.parametrize("last", STATES)
def test_only_the_last_world_counts(last: str, tell: Expander) -> None:
    outcome = Outcome(tell([WHOLE, ONE_MOVED, TWO_POOLS, LENT, STATES[last][0]]))
    assert set(outcome.told.values()) == STATES[last][1]


def test_a_change_rewrites_nothing_beside_it() -> None:
    outcome = Outcome([world(WHOLE, of("n2", "10.0.1.0/26", "10.0.1.64/26"), of("n1", "10.0.2.0/26"))])
    assert outcome.told.keys() == {N1, "10.0.1.0/25", "10.0.2.0/26"}
    outcome.tell(*of("n2", "10.0.1.128/26"))
    assert outcome.writes == [("10.0.1.128/26", direct("10.0.1.128/26", "n2", A2, "p"))]
    outcome.tell(*of("n2", "10.0.1.192/26"))
    assert [cidr for cidr, _ in outcome.writes] == ["10.0.1.0/24", "10.0.1.0/25", "10.0.1.128/26"]
    outcome.tell(*of("n1", QUARTERS[0], lent={"n2": 1}))
    assert [cidr for cidr, _ in outcome.writes] == ["10.0.0.1/32"]


def test_a_block_of_one_address_is_lent_and_given_back() -> None:
    pair = ("10.0.0.4/32", "10.0.0.5/32")
    outcome = Outcome([world(NODES, POOL, of("n1", *pair))])
    assert outcome.told.keys() == {"10.0.0.4/31"}
    outcome.tell(*of("n1", pair[0], lent={"n2": 0}))
    assert outcome.told == {
        pair[0]: direct(pair[0], "n2", A2, "p", borrowed=True),
        pair[1]: direct(pair[1], "n1", A1, "p"),
    }
    outcome.tell(*of("n1", pair[0]))
    assert outcome.told.keys() == {"10.0.0.4/31"}


# --- any history, against every single address

SPACE = [str(ip_address(first + n)) for first in (0x0A000000, 0xFD << 120) for n in range(64)]
names = st.sampled_from(("n1", "n1", "n1", "n2", "n3"))
cidrs = st.sampled_from(
    (
        *(f"10.0.0.{n}/29" for n in range(0, 64, 8)),
        *(f"10.0.0.{n}/29" for n in range(0, 64, 8)),
        "10.0.0.0/28",
        "10.0.0.32/30",
        "10.0.0.8/32",
        "10.0.0.9/32",
        *(f"fd00::{n:x}/124" for n in range(0, 64, 16)),
    )
)


@st.composite
def _blocks(draw: st.DrawFn) -> Fact:
    cidr = draw(cidrs)
    lent = {draw(names): draw(st.integers(0, ip_network(cidr).num_addresses - 1))} if draw(st.booleans()) else {}
    return block(
        cidr,
        draw(names | st.none()),
        pool=draw(st.sampled_from(("p", "p", "q"))),
        lent=lent,
        claimed=draw(st.sampled_from((1.0, 1.0, 2.0))),
    )


facts = st.one_of(
    _blocks(),
    _blocks(),
    _blocks(),
    st.builds(node, names, st.sampled_from((A1, A2)), st.sampled_from(("", "fd09::1/64"))),
    st.builds(
        pool,
        st.sampled_from("pq"),
        st.sampled_from(("10.0.0.0/24", "10.0.0.0/27")),
        st.sampled_from(("Never", "Always")),
    ),
)
steps = st.lists(
    st.tuples(facts, st.booleans(), st.booleans()).map(lambda t: gone(t[0]) if t[1] and t[2] else t[0]), max_size=6
)
START = world(NODES, node("n3", A2), POOL, pool("q", "10.0.0.0/27"))


def reached(routes: Mapping[str, Route]) -> dict[str, Route | None]:
    """The way to every address, by its longest prefix."""
    found: dict[str, Route | None] = dict.fromkeys(SPACE)
    for cidr, route in sorted(routes.items(), key=lambda item: ip_network(item[0]).prefixlen):
        assert route.cidr == cidr
        for address in map(str, ip_network(cidr)):
            if address in found:
                found[address] = msgspec.structs.replace(route, cidr="")
    return found


def halves_of_one(routes: Mapping[str, Route]) -> list[str]:
    """Where two halves of a prefix are told alike."""
    networks = sorted((ip_network(c) for c, r in routes.items() if not r.borrowed), key=lambda n: (n.version, n))
    return [
        str(one)
        for one, other in pairwise(networks)
        if one.version == other.version
        and one.prefixlen == other.prefixlen
        and one.supernet() == other.supernet()
        and msgspec.structs.replace(routes[str(one)], cidr="") == msgspec.structs.replace(routes[str(other)], cidr="")
    ]


def after_each(routes: dict[str, Route], writes: Iterable[tuple[str, Route | None]]) -> Iterable[dict[str, Route]]:
    for cidr, route in writes:
        if route is None:
            del routes[cidr]
        else:
            routes[cidr] = route
        yield routes


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, max_size=8))
def test_every_address_is_reached_as_its_block_says_at_every_moment(history: list[list[Fact]]) -> None:
    outcome = Outcome([START])
    for step in history:
        told, before = dict(outcome.told), reached(outcome.routes)
        outcome.tell(*step)
        after = reached(outcome.routes)
        for moment in after_each(told, outcome.writes):
            for address, way in reached(moment).items():
                assert way in (before[address], after[address]), address
        assert reached(outcome.told) == after
        assert halves_of_one(outcome.told) == []
    last = [
        fact for fact in by_key([*START, *(f for step in history for f in step)]).values() if fact.value is not None
    ]
    assert outcome.told == Outcome([last]).told
