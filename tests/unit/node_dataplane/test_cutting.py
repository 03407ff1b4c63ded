"""Which changes end connections, which connections, and when."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
import pytest

from bus_schemas.ids import PodKey, RulesId
from bus_schemas.policy import Direction, Match, Rule, SharedDirection
from bus_schemas.shared_directions import direction_id
from bus_schemas.subjects import DIRECTION, Fact
from services.node_dataplane import cutting
from services.node_dataplane.cutting import Changes, concerned, describe, not_allowed
from services.node_dataplane.netlink.conntrack import Tracked
from services.node_dataplane.nft.table import PolicyTable
from tests.support.nft_worlds import (
    TCP,
    allow,
    attach,
    detach,
    direction,
    group,
    groups,
    no_group,
    no_rules,
    plug,
    pod,
    ports,
    rules,
    tier,
)

A, B, FAR = "10.244.0.1", "10.244.0.2", "10.9.9.9"
WEB = RulesId("web")
NODE = frozenset({ip_address("192.168.0.1").packed})
FROM_S = rules("web", ingress=[allow(source=Match(groups=groups("s:s")))])


def cutting_(fact: Fact) -> Fact:
    return fact._replace(value=msgspec.structs.replace(fact.value, cut=True))


class Node:
    def __init__(self, *facts: Fact, everywhere: bool = False) -> None:
        self.table = PolicyTable()
        self.changes = Changes(self.table)
        self.changes.set_everywhere(everywhere)
        plug(self.table, "a", A)
        plug(self.table, "b", B)
        self.tell(*facts)
        self.settle()

    def tell(self, *facts: Fact) -> None:
        for fact in facts:
            for whole in self.table.unfold(fact):
                self.changes.note(whole)
                self.table.learn(whole)

    def flush(self) -> bool:
        self.table.wanted()
        self.changes.begin()
        return self.changes.committed()

    def settle(self) -> None:
        self.flush()
        self.changes.take()

    def cut_of(self, *facts: Fact) -> dict[PodKey, frozenset[RulesId]]:
        """The pods whose connections are looked at after these, and why."""
        self.tell(*facts)
        self.flush()
        pods = {pod("a"): (A,), pod("b"): (B,)}
        found = concerned(self.changes.take(), self.table.attachments, pods)
        return {entry.pod: entry.policies for entry in found.values()}


GOVERNED = (attach("a", ingress=direction(tier("web"))), group("s:s", B))
OTHER = rules("web", ingress=[allow(protocol=TCP)])


def test_without_the_word_nothing_is_looked_at() -> None:
    node = Node(FROM_S, *GOVERNED)
    assert not node.changes.active
    assert node.cut_of(OTHER, group("s:s"), attach("a"), no_rules("web")) == {}


@pytest.mark.parametrize("everywhere", [False, True], ids=["its own word", "the node's"])
@pytest.mark.parametrize(
    "change",
    [
        (OTHER,),
        (group("s:s"),),
        (no_group("s:s"),),
        (group("s:s", A),),
        (attach("a"),),
        (attach("a", ingress=direction(tier("web"), tier("web"))),),
        (no_rules("web"), attach("a")),
    ],
    ids=["rules", "members", "group gone", "another member", "ceases", "another place", "deleted"],
)
def test_a_change_that_takes_away(change: tuple[Fact, ...], everywhere: bool) -> None:
    first = FROM_S if everywhere else cutting_(FROM_S)
    node = Node(first, *GOVERNED, everywhere=everywhere)
    if change[0] is OTHER and not everywhere:
        change = (cutting_(OTHER),)
    assert node.cut_of(*change) == {pod("a"): frozenset({WEB})}
    assert node.cut_of() == {}


def test_a_policy_that_keeps_is_spared_by_the_nodes_word() -> None:
    def keeping(fact: Fact) -> Fact:
        return fact._replace(value=msgspec.structs.replace(fact.value, keep=True))

    node = Node(keeping(FROM_S), *GOVERNED, everywhere=True)
    assert node.cut_of(keeping(OTHER)) == {}
    assert node.cut_of(group("s:s")) == {}
    assert node.cut_of(attach("a")) == {}
    assert node.cut_of(attach("a", ingress=direction(tier("web"))), FROM_S) == {pod("a"): frozenset({WEB})}


def test_a_policy_begins_to_govern_before_its_rules_are_known() -> None:
    node = Node(attach("a"))
    node.tell(attach("a", ingress=direction(tier("web"))))
    assert node.cut_of(group("s:s"), cutting_(FROM_S)) == {pod("a"): frozenset({WEB})}


def test_the_last_change_of_a_policy_that_ceases_to_cut_still_does() -> None:
    node = Node(cutting_(FROM_S), *GOVERNED)
    assert node.cut_of(OTHER) == {pod("a"): frozenset({WEB})}
    assert not node.changes.active


def test_members_that_come_take_nothing_away_from_an_allow() -> None:
    node = Node(cutting_(FROM_S), *GOVERNED)
    assert node.cut_of(group("s:s", A, B)) == {}


@pytest.mark.parametrize(
    ("rule", "came", "went"),
    [
        (Rule(action="deny", source=Match(groups=groups("s:s"))), True, False),
        (Rule(action="deny", source=Match(not_groups=groups("s:s"))), False, True),
        (Rule(action="allow", source=Match(not_groups=groups("s:s"))), True, False),
        (Rule(action="pass", source=Match(groups=groups("s:s"))), True, True),
        (Rule(action="log", source=Match(groups=groups("s:s"))), False, False),
    ],
)
def test_what_members_mean_to_a_rule(rule: Rule, came: bool, went: bool) -> None:
    node = Node(cutting_(rules("web", ingress=[rule])), *GOVERNED)
    assert bool(node.cut_of(group("s:s", A, B))) is came
    assert bool(node.cut_of(group("s:s", B))) is went


def test_a_shared_direction_changes_a_pod_when_it_is_known() -> None:
    node = Node(*GOVERNED, cutting_(FROM_S))
    other = direction(tier("other"))
    id = direction_id(other)
    assert node.cut_of(attach("a", ingress=Direction(shared=id))) == {}
    assert node.cut_of(Fact(DIRECTION, (id,), SharedDirection(direction=other))) == {pod("a"): frozenset({WEB})}
    assert node.cut_of(attach("a", ingress=other)) == {}, "it is the same"


def test_a_change_waits_for_the_kernel_and_is_never_lost() -> None:
    node = Node(cutting_(FROM_S), *GOVERNED)
    node.tell(group("s:s"))
    assert not node.changes.take()
    node.changes.begin()  # ... and refused by the kernel
    node.tell(cutting_(OTHER))
    node.changes.begin()
    node.tell(attach("a"))  # while the commit goes on
    assert node.changes.committed()
    assert node.changes.take().pods == {}
    assert node.flush()
    due = node.changes.take()
    assert due.pods == {pod("a"): {WEB}}
    node.changes.give_back(due)
    assert node.changes.take().pods == {pod("a"): {WEB}}


def test_policies_that_are_gone_are_forgotten() -> None:
    node = Node(cutting_(FROM_S), *GOVERNED)
    node.cut_of(no_rules("web"), attach("a"))
    assert not node.changes.active


def test_a_pod_that_leaves_or_comes_anew_is_somebody_elses_business() -> None:
    node = Node(cutting_(FROM_S), *GOVERNED)
    assert node.cut_of(detach("a")) == {}
    assert node.cut_of(attach("a", container="c2")) == {}


# --- connections


def connection(source: str, destination: str, port: int = 80, source_port: int = 40000) -> Tracked:
    ends = ip_address(source).packed, ip_address(destination).packed
    return Tracked(*ends, TCP, source_port, port, None, None, f"{source}{destination}{port}{source_port}".encode())


def cut_now(node: Node, *connections: Tracked) -> list[tuple[bytes, str]]:
    pods = {pod("a"): (A,), pod("b"): (B,)}
    changed = cutting.Changed(policies={WEB})
    found = concerned(changed, node.table.attachments, pods)
    return [(cut.connection.entry, cut.way) for cut in not_allowed(connections, found, node.table, NODE)]


def test_what_is_not_allowed_any_more() -> None:
    web = rules("web", ingress=[allow(protocol=TCP, destination=Match(ports=ports(80)))])
    node = Node(cutting_(web), *GOVERNED)
    good, bad, own = connection(FAR, A), connection(FAR, A, 81), connection("192.168.0.1", A, 81)
    outward, others = connection(A, FAR, 99), connection(FAR, B, 81)
    assert cut_now(node, good, bad, own, outward, others) == [(bad.entry, "ingress")]


def test_both_ends_decide() -> None:
    node = Node(
        cutting_(rules("web", ingress=[allow()], egress=[])),
        attach("a", egress=direction(tier("web"))),
        attach("b", ingress=direction(tier("web"))),
    )
    from_a, to_b = connection(A, B), connection(FAR, B)
    assert cut_now(node, from_a, to_b) == [(from_a.entry, "egress")]


def test_members_decide_by_address_by_net_and_by_port() -> None:
    named = Match(named_ports=groups("p:http"))
    facts = (
        cutting_(rules("web", ingress=[allow(protocol=TCP, source=Match(groups=groups("s:s")), destination=named)])),
        attach("a", ingress=direction(tier("web"))),
        group("s:s", B),
        group("p:http", f"{A} 6 80"),
    )
    node = Node(*facts)
    net = Fact(facts[2].family, ("s:s", "0"), msgspec.structs.replace(facts[2].value, nets4=bytes((10, 9, 0, 0, 16))))
    bad = connection("10.8.0.1", A)
    assert len(cut_now(node, connection(B, A), connection(B, A, 81), connection(FAR, A), bad)) == 3
    node.tell(net)
    assert cut_now(node, connection(B, A), connection(FAR, A), bad) == [(bad.entry, "ingress")]


def test_the_sentence() -> None:
    node = Node(cutting_(rules("web", ingress=[])), *GOVERNED)
    found = concerned(cutting.Changed(policies={WEB}), node.table.attachments, {pod("a"): (A,)})
    many = [connection(FAR, A, source_port=number) for number in range(3)]
    told = describe(not_allowed(many, found, node.table, NODE), node.table)
    assert [(one.what, one.object, one.message) for one in told] == [
        (
            "cut",
            "default/a",
            "3 connections of 10.9.9.9 to default/a, TCP port 80, cut: not allowed since "
            "NetworkPolicy/default/web changed.",
        )
    ]
    assert told[0].detail["policy"] == "NetworkPolicy/default/web"


def test_many_are_told_as_a_number() -> None:
    node = Node(cutting_(rules("web", ingress=[])), *GOVERNED)
    found = concerned(cutting.Changed(policies={WEB}), node.table.attachments, {pod("a"): (A,)})
    many = [connection(f"10.9.0.{number}", A) for number in range(cutting.MOST_EVENTS + 5)]
    told = describe(not_allowed(many, found, node.table, NODE), node.table)
    assert len(told) == cutting.MOST_EVENTS + 1
    assert told[-1].detail == {"count": "5"}
