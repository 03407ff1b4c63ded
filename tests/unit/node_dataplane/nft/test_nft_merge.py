"""Merged rules: the same verdicts as one by one, whoever comes and goes; and what they are merged to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.ids import GroupId
from bus_schemas.policy import Group, Match, PortRange, Rule
from bus_schemas.subjects import GROUP, Fact
from services.node_dataplane.nft import merge
from services.node_dataplane.nft.attribution import Counted
from services.node_dataplane.nft.names import address_set, deny_chain
from services.node_dataplane.nft.table import PolicyTable
from tests.support.compiled_policy import CompiledPolicy
from tests.support.compiled_policy import Packet as Naive
from tests.support.nft_evaluator import Nftables, Packet
from tests.support.nft_worlds import (
    NODE,
    TCP,
    UDP,
    allow,
    attach,
    direction,
    group,
    groups,
    link,
    no_group,
    plug,
    pod,
    ports,
    rules,
    settle,
    tell,
    tier,
)

ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.1.1", "172.16.0.1", "fd00::1", "fd00::2")
NETS = ("10.0.0.0/24", "10.0.0.0/8", "10.0.0.2/32", "0.0.0.0/0", "172.16.0.0/12")
GROUPS = tuple(GroupId(f"s:{name}") for name in "abcd")
PORTS = (80, 81, 443)


def networks(id_: str, members: tuple[str, ...], *nets: tuple[int, ...]) -> Fact:
    """A group with networks as well."""
    fact = group(id_, *members)
    value = fact.value
    assert isinstance(value, Group)
    nets4 = b"".join(sorted(bytes(net) for net in nets))
    return Fact(GROUP, fact.key, Group(v4=value.v4, v6=value.v6, nets4=nets4, selector=value.selector))


# --- made up

ranges = st.sampled_from(
    [PortRange(first=p, last=p) for p in PORTS] + [PortRange(first=80, last=100), PortRange(first=1, last=50000)]
)
peers = st.one_of(
    st.sampled_from(GROUPS).map(lambda id_: Match(groups=(id_,))),
    st.sampled_from(GROUPS).map(lambda id_: Match(groups=(id_,))),
    st.just(Match()),
    st.lists(st.sampled_from(NETS), min_size=1, max_size=2).map(lambda nets: Match(nets=tuple(nets))),
    st.tuples(st.sampled_from(NETS), st.sampled_from(NETS)).map(lambda n: Match(nets=(n[0],), not_nets=(n[1],))),
    st.sampled_from(GROUPS).map(lambda id_: Match(not_groups=(id_,))),
)


@st.composite
def made_up(draw: st.DrawFn) -> Rule:
    protocol = draw(st.sampled_from((TCP, TCP, UDP, None)))
    numbers = draw(st.lists(ranges, max_size=2).map(tuple)) if protocol is not None else ()
    return Rule(
        action=draw(st.sampled_from(("allow", "allow", "allow", "deny", "pass"))),
        protocol=protocol,
        source=draw(peers),
        destination=Match(ports=numbers),
        index=draw(st.integers(0, 3)),
    )


alike = st.lists(made_up(), min_size=1, max_size=12).map(tuple)
"""With one action for most: `uniform` makes runs of them."""


def uniform(written: tuple[Rule, ...], action: str) -> tuple[Rule, ...]:
    return tuple(Rule(**{**{f: getattr(r, f) for f in r.__struct_fields__}, "action": action}) for r in written)


policies = st.one_of(alike, st.builds(uniform, alike, st.sampled_from(("allow", "allow", "deny"))))
members = st.sets(st.sampled_from(ADDRESSES))
nets = st.sets(st.sampled_from([(10, 0, 0, 0, 24), (10, 0, 0, 0, 8), (0, 0, 0, 0, 0), (172, 16, 0, 0, 12)]), max_size=2)
told = st.one_of(
    st.builds(lambda id_, m: group(id_, *m), st.sampled_from(GROUPS), members),
    st.builds(lambda id_, m: group(id_, *m), st.sampled_from(GROUPS), members),
    st.builds(lambda id_, m, n: networks(id_, tuple(m), *n), st.sampled_from(GROUPS), members, nets),
    st.builds(no_group, st.sampled_from(GROUPS)),
    st.builds(lambda n, r: rules(f"p{n}", ingress=r), st.integers(0, 2), policies),
)
packets = st.builds(
    lambda ends, protocol, port: Naive(*ends, protocol, port),
    st.one_of(*(st.tuples(st.sampled_from(each), st.sampled_from(each)) for each in (ADDRESSES[:4], ADDRESSES[4:]))),
    st.sampled_from((TCP, UDP, 132)),
    st.sampled_from((*PORTS, 82, 7)),
)


@pytest.mark.parametrize("room", [merge.ROWS, 4])
def test_merged_rules_decide_as_one_by_one(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "ROWS", room)
    monkeypatch.setattr("services.node_dataplane.nft.lookups.ROWS", room)

    @settings(max_examples=120, deadline=None)
    @given(
        st.lists(policies, min_size=3, max_size=3),
        st.lists(told, max_size=8),
        st.lists(packets, min_size=8, max_size=16),
    )
    def agree(first: list[tuple[Rule, ...]], history: list[Fact], sent: list[Naive]) -> None:
        naive, table, nft = CompiledPolicy(), PolicyTable(), Nftables()
        plug(table, "a", "10.9.9.9")
        facts: list[Any] = [attach("a", ingress=direction(tier("p0", "p1", default="pass"), tier("p2")))]
        facts += [rules(f"p{n}", ingress=each) for n, each in enumerate(first)]
        facts += [group(id_, *ADDRESSES[n : n + 3]) for n, id_ in enumerate(GROUPS)]
        for step in [facts, *([fact] for fact in history)]:
            for fact in step:
                table.apply(fact)
                naive.learn(fact)
            settle(table, nft)
        for packet in sent:
            allowed = naive.allows("ingress", (NODE, *pod("a")), packet)
            seen = Packet(packet.source, packet.destination, packet.protocol, packet.port, out_link=link("a"))
            outcome = nft.send(seen)
            assert outcome.accepted is allowed, (packet, outcome)
        fresh = Nftables()
        fresh.run(str(table.whole()))
        assert nft.snapshot() == fresh.snapshot()

    agree()


# --- what it looks like


class World:
    def __init__(self, **written: list[Rule]) -> None:
        self.table, self.kernel = PolicyTable(), Nftables()
        plug(self.table, "a", "10.9.9.9")
        tell(self.table, attach("a", ingress=direction(tier(*written))))
        tell(self.table, *(rules(id_, ingress=each) for id_, each in written.items()))
        tell(self.table, *(group(id_, ADDRESSES[n]) for n, id_ in enumerate(GROUPS)))
        self.settle()

    def settle(self) -> list[str]:
        transaction = settle(self.table, self.kernel).transaction
        return list(transaction.lines()) if transaction is not None else []

    def chain(self) -> list[str]:
        (name,) = (name for name in self.kernel.chains if name.startswith("to_"))
        return [rule.text for rule in self.kernel.chains[name].rules]

    def maps(self) -> dict[str, dict[Any, str]]:
        return {name: dict(found.elements) for name, found in self.kernel.sets.items() if name.startswith("m_")}

    def decided(self, source: str, port: int) -> str:
        seen = Packet(source, "10.9.9.9", TCP, port, out_link=link("a"))
        known = self.table.counted()
        (only,) = (known[name] for name in self.kernel.send(seen).counted if name in known)
        return only.rules


def at(port: int, *ids: str) -> Rule:
    return allow(protocol=TCP, source=Match(groups=groups(*ids)), destination=Match(ports=ports(port)))


FIVE = {f"p{n}": [at(80 + n, f"s:{name}")] for n, name in enumerate("abcda")}


def test_few_rules_are_jumped_to_and_many_looked_up() -> None:
    few = World(**dict(list(FIVE.items())[:4]))
    assert few.maps() == {}
    assert sum("jump in_" in line for line in few.chain()) == 4
    many = World(**FIVE)
    assert [line.partition(" @")[0] for line in many.chain()[:2]] == [
        "counter name ip saddr . meta l4proto . th dport map",
        "counter name ip6 saddr . meta l4proto . th dport map",
    ]
    assert sum(map(len, many.maps().values())) == 5
    assert not any(name.startswith("in_") for name in many.kernel.chains)
    assert address_set(GROUPS[0], 4) not in many.kernel.sets
    assert many.decided(ADDRESSES[0], 84) == "p4"
    assert many.decided(ADDRESSES[0], 81) == "tier/default"


def test_a_member_is_elements_and_nothing_else() -> None:
    world = World(**FIVE)
    tell(world.table, group("s:a", "10.0.7.7"))
    flush = world.table.flush()
    assert flush.transaction is not None
    assert flush.transaction.elements is not None
    assert flush.transaction.weight == 4, "one member went and one came, for two rules"


def test_a_key_falls_to_the_next_that_claims_it() -> None:
    same = {f"p{n}": [at(80, f"s:{name}")] for n, name in enumerate("abcda")}
    world = World(**same)
    peer = "10.0.0.77"
    for id_ in "cdba":
        tell(world.table, group(f"s:{id_}", peer))
        world.settle()
    assert world.decided(peer, 80) == "p0"
    tell(world.table, group("s:a"))
    world.settle()
    assert world.decided(peer, 80) == "p1"
    tell(world.table, group("s:b"), group("s:d"))
    world.settle()
    assert world.decided(peer, 80) == "p2"
    tell(world.table, group("s:c"))
    world.settle()
    assert world.decided(peer, 80) == "tier/default"


def test_other_rules_of_a_policy_stay_in_the_chain_of_the_rule_group() -> None:
    named = allow(protocol=TCP, source=Match(groups=groups("s:a"), not_groups=groups("s:b")))
    world = World(**{**FIVE, "p2": [at(82, "s:c"), named]})
    assert sum(" != @" in line for line in world.chain()) == 2
    assert world.decided(ADDRESSES[0], 7777) == "p2"


def test_runs_end_where_the_action_changes() -> None:
    deny = replace_action(at(80, "s:a"), "deny")
    world = World(first=[deny], **FIVE)
    assert world.decided(ADDRESSES[0], 80) == "first"
    world = World(**FIVE, last=[deny])
    assert world.decided(ADDRESSES[0], 80) == "p0"


def replace_action(rule: Rule, action: str) -> Rule:
    return uniform((rule,), action)[0]


def test_networks_are_looked_up_by_a_few_lengths_of_prefixes() -> None:
    blocks = [
        allow(
            protocol=TCP,
            source=Match(nets=(f"10.{n}.0.0/16",), not_nets=(f"10.{n}.64.0/18",)),
            destination=Match(ports=ports((80, 81))),
        )
        for n in range(6)
    ]
    world = World(p=blocks)
    ((name, rows),) = world.maps().items()
    assert len(rows) == 6 * 3 * 2, "three quarters, two ports"
    assert sum("ip saddr & 255.255.192.0 . meta l4proto . th dport map" in line for line in world.chain()) == 1
    assert world.decided("10.3.63.255", 81) == "p"
    assert world.decided("10.3.64.0", 81) == "tier/default"
    tell(world.table, rules("p", ingress=[*blocks, allow(protocol=TCP, source=Match(nets=("0.0.0.0/0",)))]))
    world.settle()
    assert world.decided("10.3.64.0", 81) == "p"
    tell(world.table, rules("p", ingress=blocks[1:]))
    written = world.settle()
    assert not any(f"add map inet tortie {name}" in line for line in written), "what stays is changed by elements"
    assert len(world.maps()[name]) == 5 * 3 * 2


def test_networks_with_many_ports_are_one_interval_map_that_is_replaced_as_a_whole() -> None:
    blocks = [
        allow(
            protocol=TCP,
            source=Match(nets=(f"10.{n}.0.0/16",), not_nets=(f"10.{n}.7.0/24",)),
            destination=Match(ports=ports((80, 8080))),
        )
        for n in range(6)
    ]
    world = World(p=blocks)
    ((name, rows),) = world.maps().items()
    assert len(rows) == 7, "what is next to one another is one range"
    assert world.decided("10.3.6.255", 85) == "p"
    assert world.decided("10.3.7.0", 85) == "tier/default"
    tell(world.table, rules("p", ingress=blocks[1:]))
    world.settle()
    ((after, rows),) = world.maps().items()
    assert after != name
    assert len(rows) == 6


def test_a_group_too_large_is_looked_up_once_for_all_its_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "ROWS", 4)
    world = World(p=[at(80 + n, "s:a") for n in range(8)])
    assert (
        sum(f"@{address_set(GROUPS[0], 4)} counter name meta l4proto . th dport map" in line for line in world.chain())
        == 1
    )
    assert world.decided(ADDRESSES[0], 87) == "p"
    assert world.decided(ADDRESSES[0], 88) == "tier/default"


def test_denials_of_merged_rules_name_their_rule() -> None:
    written = [replace_action(at(80 + n, "s:a"), "deny") for n in range(6)]
    written = [Rule(**{**{f: getattr(r, f) for f in r.__struct_fields__}, "index": n}) for n, r in enumerate(written)]
    world = World(p=written)
    assert deny_chain("ingress", "p 3 ") in world.kernel.chains
    outcome = world.kernel.send(Packet(ADDRESSES[0], "10.9.9.9", TCP, 83, out_link=link("a")))
    assert not outcome.accepted
    denial = world.table.denial(outcome.reported[0])
    assert denial is not None
    assert denial == replace(denial, rules="p", index=3, tier="default", kind="denied")
    assert Counted("p", "ingress", "deny") in world.table.counted().values()
