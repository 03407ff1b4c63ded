"""The rendered rules against who knows the answer: the naive verdict.

The rules that the kernel would hold are evaluated (`tests.support.nft_evaluator`), the naive verdict walks the very
messages of the bus (`tests.support.compiled_policy`); hypothesis makes both up. And whatever is told, in whatever order
and however it is cut into flushes, the table must end as if it had been told all at once.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.ids import GroupId
from bus_schemas.policy import Direction, Icmp, Match, PortRange, Rule, TierRules
from bus_schemas.subjects import Fact
from services.node_dataplane.nft.table import PolicyTable
from tests.support.compiled_policy import CompiledPolicy
from tests.support.compiled_policy import Packet as Naive
from tests.support.nft_evaluator import Nftables, Packet
from tests.support.nft_worlds import (
    NODE,
    attach,
    detach,
    group,
    link,
    no_group,
    no_rules,
    plug,
    pod,
    rules,
    settle,
)

# --- made-up policy

ADDRESSES4 = ("10.0.0.1", "10.0.0.2", "10.0.1.1", "172.16.0.1")
ADDRESSES6 = ("fd00::1", "fd00::2", "fd01::1")
NETS4 = ("10.0.0.0/24", "10.0.0.0/8", "10.0.0.2/32", "0.0.0.0/0", "172.16.0.0/12")
NETS6 = ("fd00::/64", "fd00::/8", "fd00::2/128", "::/0")
ADDRESS_GROUPS = tuple(GroupId(f"s:{name}") for name in "abc")
PORT_GROUPS = tuple(GroupId(f"p:{name}") for name in "xy")
PROTOCOLS = (6, 17, 132, 1, 58, 253)
WITH_PORTS = (6, 17, 132)
PORTS = (1, 80, 81, 443, 65535)


def some(choices: Any, most: int = 2) -> st.SearchStrategy[Any]:
    """Often none, otherwise a few."""
    return st.one_of(st.just(()), st.lists(st.sampled_from(choices), max_size=most, unique=True).map(tuple))


ranges = st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(
    lambda ends: PortRange(first=min(ends), last=max(ends))
)
some_ranges = st.one_of(st.just(()), st.lists(ranges, max_size=2).map(tuple))


@st.composite
def matches(draw: st.DrawFn, *, ported: bool) -> Match:
    return Match(
        groups=draw(some(ADDRESS_GROUPS)),
        not_groups=draw(some(ADDRESS_GROUPS, 1)),
        nets=draw(st.one_of(some(NETS4), some(NETS6))),
        not_nets=draw(st.one_of(some(NETS4, 1), some(NETS6, 1))),
        ports=draw(some_ranges) if ported else (),
        named_ports=draw(some(PORT_GROUPS, 1)) if ported else (),
        not_ports=draw(some_ranges) if ported else (),
        not_named_ports=draw(some(PORT_GROUPS, 1)) if ported else (),
    )


@st.composite
def made_up_rules(draw: st.DrawFn) -> Rule:
    protocol = draw(st.one_of(st.none(), st.sampled_from(PROTOCOLS)))
    icmp = st.one_of(st.none(), st.builds(Icmp, type=st.sampled_from((0, 8)), code=st.sampled_from((None, 0, 1))))
    version = {1: 4, 58: 6}.get(protocol or 0)
    talks_icmp = version is not None
    ported = protocol in WITH_PORTS
    return Rule(
        action=draw(st.sampled_from(("allow", "allow", "deny", "pass", "log"))),
        ip_version=draw(st.sampled_from((None, version) if version else (None, None, 4, 6))),
        protocol=protocol,
        not_protocol=draw(st.sampled_from((None, None, *PROTOCOLS))) if protocol is None else None,
        icmp=draw(icmp) if talks_icmp else None,
        not_icmp=draw(icmp) if talks_icmp else None,
        source=draw(matches(ported=ported)),
        destination=draw(matches(ported=ported)),
        never=draw(st.sampled_from(("", "", "", "", "cannot"))),
    )


def never_denies(rule: Rule) -> Rule:
    """As the compiler writes it: what could not be compiled is a deny."""
    return Rule(**{**_fields(rule), "action": "deny"}) if rule.never else rule


def _fields(rule: Rule) -> dict[str, Any]:
    return {name: getattr(rule, name) for name in rule.__struct_fields__}


policies = st.lists(made_up_rules().map(never_denies), max_size=3).map(tuple)
members4, members6 = st.sets(st.sampled_from(ADDRESSES4)), st.sets(st.sampled_from(ADDRESSES6))
at_ports = st.tuples(st.sampled_from(WITH_PORTS), st.sampled_from(PORTS)).map(lambda at: f" {at[0]} {at[1]}")
port_members = st.sets(st.tuples(st.sampled_from(ADDRESSES4 + ADDRESSES6), at_ports).map("".join), max_size=6)


@st.composite
def directions(draw: st.DrawFn, ids: tuple[str, ...] = ("p0", "p1", "p2")) -> Direction:
    tiers = draw(
        st.lists(
            st.builds(
                TierRules,
                tier=st.sampled_from(("a", "b")),
                rules=st.lists(st.sampled_from(ids), min_size=1, max_size=2, unique=True).map(tuple),
                default=st.sampled_from(("deny", "pass")),
            ),
            max_size=3,
        )
    )
    return Direction(tiers=tuple(tiers), default=draw(st.sampled_from(("allow", "deny"))))


@st.composite
def packets(draw: st.DrawFn) -> Naive:
    addresses = draw(st.sampled_from((ADDRESSES4, ADDRESSES6)))
    protocol = draw(st.sampled_from([p for p in PROTOCOLS if p != (58 if addresses is ADDRESSES4 else 1)]))
    talks_icmp = protocol in (1, 58)
    return Naive(
        draw(st.sampled_from(addresses)),
        draw(st.sampled_from(addresses)),
        protocol,
        draw(st.sampled_from((0, 8) if talks_icmp else PORTS)),
        draw(st.sampled_from(PORTS)),
        draw(st.sampled_from((0, 1))) if talks_icmp else 0,
    )


def as_seen(packet: Naive, out_link: str) -> Packet:
    return Packet(
        packet.source,
        packet.destination,
        packet.protocol,
        packet.port,
        packet.source_port,
        icmp_type=packet.port,
        icmp_code=packet.code,
        out_link=out_link,
    )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_rendered_rules_agree_with_the_naive_verdict(data: st.DataObject) -> None:
    naive, table, nft = CompiledPolicy(), PolicyTable(), Nftables()
    plug(table, "a", "10.9.9.9")
    facts: list[Fact] = [attach("a", ingress=data.draw(directions()))]
    facts += [rules(f"p{n}", ingress=data.draw(policies)) for n in range(3)]
    facts += [group(id_, *data.draw(members4), *data.draw(members6)) for id_ in ADDRESS_GROUPS]
    facts += [group(id_, *data.draw(port_members)) for id_ in PORT_GROUPS]
    for fact in facts:
        table.apply(fact)
        naive.learn(fact)
    assert settle(table, nft).programmed == {pod("a")}
    for packet in data.draw(st.lists(packets(), min_size=5, max_size=10)):
        allowed = naive.allows("ingress", (NODE, *pod("a")), packet)
        outcome = nft.send(as_seen(packet, link("a")))
        assert outcome.accepted is allowed, (packet, outcome)


# --- made-up histories

PODS = ("a", "b", "c")
something = st.one_of(
    st.builds(lambda n, i, e: attach(n, i, e), st.sampled_from(PODS), directions(), directions()),
    st.builds(detach, st.sampled_from(PODS)),
    st.builds(lambda n, i, e: rules(f"p{n}", i, e), st.integers(0, 2), policies, policies),
    st.builds(lambda n: no_rules(f"p{n}"), st.integers(0, 2)),
    st.builds(
        lambda id_, m, at, of: group(id_, *m, segment=at, segments=of),
        st.sampled_from(ADDRESS_GROUPS),
        members4,
        st.integers(0, 1),
        st.integers(1, 2),
    ),
    st.builds(lambda id_, m: group(id_, *m), st.sampled_from(PORT_GROUPS), port_members),
    st.builds(no_group, st.sampled_from(ADDRESS_GROUPS + PORT_GROUPS), st.integers(0, 1)),
    st.tuples(st.just("plug"), st.sampled_from(PODS), st.sampled_from(ADDRESSES4), st.sampled_from(("c1", "c2"))),
    st.tuples(st.just("unplug"), st.sampled_from(PODS)),
    st.sampled_from(("flush", "flush", "fail")),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(something, max_size=40))
def test_however_it_is_told_the_table_is_what_it_would_be_at_once(history: list[Any]) -> None:
    table, nft = PolicyTable(), Nftables()
    settle(table, nft)
    for event in [*history, "flush"]:
        match event:
            case Fact():
                table.apply(event)
            case "flush":
                settle(table, nft)
            case "fail":
                flush = table.flush()
                if flush.transaction is not None:
                    table.failed(flush.transaction)
            case "plug", name, address, container:
                plug(table, name, address, container=container)
            case "unplug", name:
                table.remove_endpoint(pod(name))
    fresh = Nftables()
    fresh.run(str(table.whole()))
    assert nft.snapshot() == fresh.snapshot()
