"""The table as a whole: what exists when, what a flush does, what is closed until it is known."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.ids import GroupId, RulesId
from bus_schemas.policy import Match, Rule
from services.node_dataplane.nft.names import address_set, counter, policy_chain
from services.node_dataplane.nft.table import NodeRules, PolicyTable
from tests.support.nft_evaluator import Nftables, Outcome, Packet
from tests.support.nft_worlds import (
    TCP,
    UDP,
    allow,
    attach,
    detach,
    direction,
    group,
    groups,
    link,
    no_group,
    no_rules,
    plug,
    pod,
    ports,
    rules,
    settle,
    tell,
    tier,
)

CLIENT, SERVER = "10.244.0.1", "10.244.0.2"
WEB = rules(
    "web", ingress=[allow(protocol=TCP, source=Match(groups=groups("s:a")), destination=Match(ports=ports(80)))]
)


class World:
    def __init__(self) -> None:
        self.table = PolicyTable()
        self.kernel = Nftables()

    def settle(self) -> list[str]:
        """The script's lines."""
        flush = settle(self.table, self.kernel)
        return list(flush.transaction.lines()) if flush.transaction else []

    def to_server(self, source: str = CLIENT, port: int = 80, protocol: int = TCP, state: str = "new") -> Outcome:
        return self.kernel.send(Packet(source, SERVER, protocol, port, out_link=link("server"), state=state))


@pytest.fixture
def world() -> World:
    """A server that only members of group `s:a` may reach, on port 80; the client is one."""
    world = World()
    plug(world.table, "server", SERVER)
    tell(world.table, attach("server", ingress=direction(tier("web"))), WEB)
    world.table.wanted()
    tell(world.table, group("s:a", CLIENT))
    world.settle()
    return world


def test_the_policy_decides(world: World) -> None:
    assert world.to_server().accepted
    assert not world.to_server(port=81).accepted
    assert not world.to_server(protocol=UDP).accepted
    assert not world.to_server(source="10.244.0.9").accepted
    assert world.to_server(source="10.244.0.9", state="established").accepted
    assert not world.to_server(state="invalid").accepted


def test_nothing_to_do_is_no_transaction(world: World) -> None:
    tell(world.table, WEB, group("s:a", CLIENT), attach("server", ingress=direction(tier("web"))))
    assert world.settle() == []


def test_a_member_is_an_element_and_nothing_else(world: World) -> None:
    tell(world.table, group("s:a", CLIENT, "10.244.0.9", "fd00::9"))
    four, six = address_set(GroupId("s:a"), 4), address_set(GroupId("s:a"), 6)
    assert world.settle() == [
        f"add element inet tortie {four} {{ 10.244.0.9 }}",
        f"add element inet tortie {six} {{ fd00::9 }}",
    ]
    tell(world.table, group("s:a", "10.244.0.9"))
    flush = world.table.flush()
    assert flush.transaction is not None
    assert flush.transaction.elements is not None
    assert list(flush.transaction.lines()) == [
        f"delete element inet tortie {four} {{ 10.244.0.1 }}",
        f"delete element inet tortie {six} {{ fd00::9 }}",
    ]


def test_a_member_that_comes_and_goes_between_flushes_is_nothing(world: World) -> None:
    tell(world.table, group("s:a", CLIENT, "10.244.0.9"), group("s:a", CLIENT))
    assert world.settle() == []


def test_a_split_never_loses_a_member(world: World) -> None:
    first, second = "10.244.0.8", "10.244.0.9"
    tell(world.table, group("s:a", CLIENT, first, second))
    world.settle()
    tell(world.table, group("s:a", second, segment=1, segments=2))
    assert world.settle() == [], "it is in two segments now"
    tell(world.table, group("s:a", CLIENT, first, segments=2))
    assert world.settle() == [], "and in one again"
    tell(world.table, group("s:a", CLIENT, first, second, segments=1))
    assert world.settle() == []
    tell(world.table, no_group("s:a", 1))
    assert world.settle() == []
    assert world.to_server(source=second).accepted


def test_a_group_is_known_when_it_is_whole() -> None:
    world = World()
    plug(world.table, "server", SERVER)
    tell(world.table, WEB, attach("server", ingress=direction(tier("web"))))
    tell(world.table, group("s:a", CLIENT, segments=2))
    flush = settle(world.table, world.kernel)
    assert not flush.programmed
    assert not world.to_server().accepted
    tell(world.table, group("s:a", segment=1, segments=2))
    assert settle(world.table, world.kernel).programmed == {pod("server")}
    assert world.to_server().accepted


def test_rules_replace_the_contents_of_their_chain_alone(world: World) -> None:
    tell(world.table, rules("web", ingress=[allow(protocol=TCP)]))
    chain = policy_chain("ingress", RulesId("web"))
    assert world.settle() == [
        f"flush chain inet tortie {chain}",
        f"add rule inet tortie {chain} meta l4proto 6 counter name {counter('ingress', 'web', 'allow')} accept",
        f"delete set inet tortie {address_set(GroupId('s:a'), 4)}",
        f"delete set inet tortie {address_set(GroupId('s:a'), 6)}",
    ]
    assert world.table.wanted().groups == frozenset()


def test_pods_with_the_same_rules_share_chains(world: World) -> None:
    plug(world.table, "twin", "10.244.0.3")
    tell(world.table, attach("twin", ingress=direction(tier("web"))))
    flush = world.table.flush()
    assert flush.transaction is not None
    assert flush.transaction.elements is not None, "elements alone: the chains are there"
    assert flush.programmed == {pod("server"), pod("twin")}


def test_what_goes_goes_after_what_used_it(world: World) -> None:
    world.table.remove_endpoint(pod("server"))
    lines = world.settle()
    verbs = [" ".join(line.split()[:2]) for line in lines]
    order = ["delete element", "flush chain", "delete set", "delete chain", "delete counter"]
    assert sorted(verbs, key=order.index) == verbs
    fresh = Nftables()
    settle(PolicyTable(), fresh)
    assert world.kernel.snapshot() == fresh.snapshot()


# --- closed until known


def test_a_pod_without_attachment_is_closed_both_ways(world: World) -> None:
    plug(world.table, "new", "10.244.0.7")
    flush = settle(world.table, world.kernel)
    assert flush.blocked == {pod("new"): "no attachment yet"}
    assert not world.kernel.send(Packet(CLIENT, "10.244.0.7", TCP, 80, out_link=link("new"))).accepted
    assert not world.kernel.send(Packet("10.244.0.7", CLIENT, TCP, 80, in_link=link("new"))).accepted
    assert not world.kernel.send(Packet("10.244.0.7", "10.0.0.1", TCP, 80, in_link=link("new"), path="input")).accepted
    assert world.kernel.send(Packet("10.0.0.1", "10.244.0.7", TCP, 80, out_link=link("new"), path="output")).accepted


def test_an_attachment_is_for_one_incarnation(world: World) -> None:
    plug(world.table, "server", SERVER, container="c2")
    flush = settle(world.table, world.kernel)
    assert flush.blocked == {pod("server"): "its attachment is for another container"}
    assert not world.to_server().accepted
    tell(world.table, attach("server", ingress=direction(tier("web")), container="c2"))
    assert settle(world.table, world.kernel).programmed == {pod("server")}
    assert world.to_server().accepted


def test_unknown_rules_close_what_they_would_have_decided(world: World) -> None:
    tell(world.table, attach("server", ingress=direction(tier("web", "later"))))
    flush = settle(world.table, world.kernel)
    assert flush.blocked == {pod("server"): "policy not known yet: later"}
    assert world.to_server().accepted, "the policy before it allows"
    assert not world.to_server(port=81).accepted
    tell(world.table, rules("later", ingress=[allow(protocol=TCP)]))
    assert settle(world.table, world.kernel).programmed == {pod("server")}
    assert world.to_server(port=81).accepted


def test_a_vanished_group_closes_its_rule(world: World) -> None:
    tell(world.table, no_group("s:a"))
    flush = settle(world.table, world.kernel)
    assert flush.blocked == {pod("server"): "members not known yet: s:a of web"}
    assert not world.to_server().accepted
    assert "group not known: s:a" in world.to_server().by


def test_vanished_rules_and_attachments_close(world: World) -> None:
    tell(world.table, no_rules("web"))
    world.settle()
    assert not world.to_server().accepted
    tell(world.table, WEB)
    world.settle()
    assert world.to_server().accepted
    tell(world.table, detach("server"))
    world.settle()
    assert not world.to_server().accepted


def test_what_could_not_be_compiled_is_named(world: World) -> None:
    tell(world.table, rules("web", ingress=[Rule(action="deny", never="no such service"), allow()]))
    flush = settle(world.table, world.kernel)
    assert flush.programmed == {pod("server")}
    assert world.table.faults() == ("NetworkPolicy/default/web ingress, rule 0: no such service",)
    assert not world.to_server().accepted


def test_a_malformed_group_keeps_its_last_good_members(world: World) -> None:
    good = group("s:a", CLIENT)
    bad = type(good.value)(v4=b"\x0a\x0b")
    tell(world.table, good._replace(value=bad))
    assert world.settle() == []
    assert world.to_server().accepted
    assert world.table.faults() == (
        "group s:a, segment 0: 2 and 0 bytes are not a whole number of members of addresses",
    )


# --- tiers


@pytest.mark.parametrize(
    ("first", "second", "profile", "expected"),
    [
        pytest.param("allow", "deny", "deny", True, id="an allow is final"),
        pytest.param("deny", "allow", "allow", False, id="so is a deny"),
        pytest.param("pass", "allow", "deny", True, id="a pass goes to the next tier"),
        pytest.param("pass", "pass", "allow", True, id="after the last one, to the profile"),
        pytest.param("pass", "pass", "deny", False, id="which may deny"),
        pytest.param("log", "allow", "allow", False, id="a log goes on, here to the end of its tier"),
    ],
)
def test_tiers(first: str, second: str, profile: str, *, expected: bool) -> None:
    world = World()
    plug(world.table, "server", SERVER)
    tiers = direction(tier("one", "never-reached", name="a"), tier("two", name="b"), default=profile)
    tell(
        world.table,
        attach("server", ingress=tiers),
        rules("one", ingress=[Rule(action=first)]),  # type: ignore[arg-type]
        rules("never-reached", ingress=[Rule(action="log"), Rule(action="deny", protocol=UDP)]),
        rules("two", ingress=[Rule(action=second)]),  # type: ignore[arg-type]
    )
    world.settle()
    assert world.to_server().accepted is expected
    tell(
        world.table,
        attach("server", egress=tiers),
        rules("one", egress=[Rule(action=first)]),  # type: ignore[arg-type]
        rules("never-reached", egress=[Rule(action="log"), Rule(action="deny", protocol=UDP)]),
        rules("two", egress=[Rule(action=second)]),  # type: ignore[arg-type]
    )
    world.settle()
    assert sent(world).accepted is expected
    assert sent(world, path="input").accepted is expected
    plug(world.table, "closed", CLOSED)
    tell(world.table, attach("closed", ingress=direction(tier("nothing"))), rules("nothing"))
    world.settle()
    dropped = sent(world, CLOSED, out_link=link("closed"))
    assert not dropped.accepted, "what may be sent must still be received"
    ways = {
        found.way for name in dropped.counted if (found := world.table.counted().get(name)) and found.rules != "one"
    }
    assert ("ingress" in ways) is expected


CLOSED = "10.244.0.99"


def sent(world: World, destination: str = "1.1.1.1", **more: Any) -> Outcome:
    return world.kernel.send(Packet(SERVER, destination, TCP, 80, in_link=link("server"), **more))


def test_a_tier_may_end_in_pass() -> None:
    world = World()
    plug(world.table, "server", SERVER)
    tiers = direction(tier("one", name="a", default="pass"), tier("two", name="b"), default="deny")
    tell(
        world.table,
        attach("server", ingress=tiers),
        rules("one", ingress=[Rule(action="deny", protocol=UDP)]),
        rules("two", ingress=[allow()]),
    )
    world.settle()
    assert world.to_server().accepted
    assert not world.to_server(protocol=UDP).accepted
    tell(
        world.table,
        attach("server", egress=tiers),
        rules("one", egress=[Rule(action="pass", protocol=TCP), Rule(action="deny", protocol=UDP)]),
        rules("two", egress=[allow()]),
    )
    world.settle()
    assert sent(world).accepted
    assert not world.kernel.send(Packet(SERVER, "1.1.1.1", UDP, 80, in_link=link("server"))).accepted


def test_a_policy_that_begins_to_pass_moves_into_its_tier_and_back(world: World) -> None:
    tell(world.table, rules("web", ingress=[Rule(action="pass", protocol=UDP), allow(protocol=TCP)]))
    world.settle()
    assert world.to_server(protocol=UDP).accepted, "to the profile, which allows"
    assert not world.to_server(protocol=132).accepted
    assert policy_chain("ingress", RulesId("web")) not in world.kernel.chains
    tell(world.table, WEB)
    world.settle()
    assert not world.to_server(protocol=UDP).accepted
    assert policy_chain("ingress", RulesId("web")) in world.kernel.chains


# --- wanted, failures, repair


def test_wanted_follows_the_attachments() -> None:
    table = PolicyTable()
    tell(table, attach("server", ingress=direction(tier("web")), egress=direction(tier("out"))))
    assert table.wanted() == (frozenset(), frozenset(), frozenset()), "the pod is not here"
    plug(table, "server", SERVER)
    assert table.wanted().rules == {"web", "out"}
    tell(table, WEB, rules("out", ingress=[allow(source=Match(groups=groups("s:unused")))]))
    assert table.wanted().groups == {"s:a"}, "`out` is attached for egress only"
    tell(table, detach("server"))
    assert table.wanted() == (frozenset(), frozenset(), frozenset())


def test_what_is_not_wanted_is_forgotten(world: World) -> None:
    tell(world.table, detach("server"))
    world.table.wanted()
    tell(world.table, attach("server", ingress=direction(tier("web"))))
    assert settle(world.table, world.kernel).blocked == {pod("server"): "policy not known yet: web"}


def test_the_first_flush_and_the_one_after_a_failure_are_whole(world: World) -> None:
    tell(world.table, group("s:a", CLIENT, "10.244.0.9"))
    flush = world.table.flush()
    assert flush.transaction is not None
    assert not flush.transaction.whole
    world.table.failed(flush.transaction)
    tell(world.table, group("s:a", "10.244.0.9"))
    again = settle(world.table, world.kernel)
    assert again.transaction is not None
    assert again.transaction.whole
    assert world.to_server(source="10.244.0.9").accepted
    assert not world.to_server().accepted
    assert world.settle() == []


def test_a_whole_table_replaces_whatever_is_there(world: World) -> None:
    before = world.kernel.snapshot()
    foreign = Nftables()
    foreign.run("add table inet tortie\nadd chain inet tortie foreign")
    transaction = world.table.whole()
    foreign.run(str(transaction))
    world.table.committed(transaction)
    assert foreign.snapshot() == before


def test_nothing_is_expected_while_a_change_is_due(world: World) -> None:
    expected = world.table.expected()
    assert expected is not None
    tell(world.table, group("s:a"))
    assert world.table.expected() is None
    world.settle()
    assert world.table.expected() is not None


def test_an_address_may_move_between_pods_in_one_flush(world: World) -> None:
    plug(world.table, "heir", SERVER)
    world.table.remove_endpoint(pod("server"))
    tell(world.table, attach("heir"))
    world.settle()
    assert world.kernel.send(Packet(SERVER, CLIENT, TCP, in_link=link("heir"))).accepted
    assert not world.kernel.send(Packet(SERVER, CLIENT, TCP, in_link=link("server"))).accepted


def test_a_segment_that_is_no_number_is_named_and_changes_nothing(world: World) -> None:
    before = world.kernel.snapshot()
    world.table.apply(group("s:a")._replace(key=("s:a", "first")))
    assert world.settle() == []
    assert world.kernel.snapshot() == before
    assert "there is no segment 'first'" in world.table.faults()[0]


def test_the_log_of_a_rule_has_the_configured_limit(world: World) -> None:
    tell(world.table, rules("web", ingress=[Rule(action="log")]))
    world.settle()
    before = world.to_server()
    world.table.set_node(NodeRules(log_limit="10/minute burst 5 packets"))
    assert any("limit rate 10/minute burst 5 packets log prefix" in line for line in world.settle())
    after = world.to_server()
    assert (after.logged, after.reported) == (before.logged, before.reported), "the message to the group has its own"
