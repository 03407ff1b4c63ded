"""Who decided: counters, messages to the log group, previews."""

from __future__ import annotations

import pytest

from bus_schemas.ids import RulesId
from bus_schemas.policy import Direction, Match, Rule
from services.node_dataplane.nft.attribution import GUARDS, Counted, Denial
from services.node_dataplane.nft.names import log_prefix
from services.node_dataplane.nft.table import PolicyTable
from tests.support.nft_evaluator import Nftables, Outcome, Packet
from tests.support.nft_worlds import (
    TCP,
    UDP,
    allow,
    attach,
    direction,
    group,
    groups,
    link,
    plug,
    pod,
    ports,
    rules,
    settle,
    tell,
    tier,
)

SERVER = "10.244.0.2"
TO_80 = allow(protocol=TCP, destination=Match(ports=ports(80)))
DENY_UDP = Rule(action="deny", protocol=UDP, index=3, name="no udp")
PASS_81 = Rule(action="pass", protocol=TCP, destination=Match(ports=ports(81)))


class World:
    def __init__(self) -> None:
        self.table, self.kernel = PolicyTable(), Nftables()
        plug(self.table, "server", SERVER)

    def tell(self, ingress: Direction, **policies: list[Rule]) -> None:
        tell(self.table, *(rules(id_, ingress=each) for id_, each in policies.items()), attach("server", ingress))
        settle(self.table, self.kernel)
        fresh = Nftables()
        fresh.run(str(self.table.whole()))
        self.table._pending = None
        assert self.kernel.snapshot() == fresh.snapshot()

    def send(self, port: int = 80, protocol: int = TCP, **more: str) -> Outcome:
        return self.kernel.send(Packet("10.244.0.1", SERVER, protocol, port, out_link=link("server"), **more))  # type: ignore[arg-type]

    def counted(self, outcome: Outcome) -> list[Counted]:
        known = self.table.counted()
        return [known[name] for name in outcome.counted if name in known]

    def told(self, outcome: Outcome) -> list[Denial]:
        found = [self.table.denial(prefix) for prefix in outcome.reported]
        assert None not in found
        return [denial for denial in found if denial is not None]


@pytest.fixture
def world() -> World:
    world = World()
    first, last = tier("a", "b", name="first", default="pass"), tier("b", name="last")
    world.tell(
        direction(first, last),
        a=[TO_80, DENY_UDP, PASS_81],
        b=[allow(protocol=TCP, destination=Match(ports=ports(81)))],
    )
    return world


def test_every_verdict_counts_once(world: World) -> None:
    assert world.counted(world.send(80)) == [Counted("a", "ingress", "allow")]
    assert world.counted(world.send(protocol=UDP)) == [Counted("a", "ingress", "deny")]
    assert world.counted(world.send(81)) == [Counted("a", "ingress", "pass"), Counted("b", "ingress", "allow")]
    assert world.counted(world.send(82)) == [Counted("tier/last", "ingress", "deny")]
    assert world.counted(world.send(80, state="established")) == []
    assert set(world.table.counted().values()) == {
        Counted("a", "ingress", "allow"),
        Counted("a", "ingress", "deny"),
        Counted("a", "ingress", "pass"),
        Counted("b", "ingress", "allow"),
        Counted("tier/last", "ingress", "deny"),
        Counted("profile", "egress", "allow"),
    }


def test_a_denial_names_its_rule(world: World) -> None:
    assert world.told(world.send(80)) == []
    rule = Denial("denied", "ingress", RulesId("a"), 3, "no udp", tier="first")
    assert world.told(world.send(protocol=UDP)) == [rule]
    end = Denial("denied", "ingress", RulesId(""), tier="last", reason="end of tier last")
    assert world.told(world.send(82)) == [end]


def test_what_is_closed_says_why() -> None:
    world = World()
    world.tell(
        direction(tier("a", "later")), a=[Rule(action="deny", never="no such protocol", source=Match(), protocol=UDP)]
    )
    assert world.told(world.send(protocol=UDP)) == [
        Denial("denied", "ingress", RulesId("a"), 0, tier="default", reason="no such protocol")
    ]
    assert world.told(world.send()) == [
        Denial("denied", "ingress", RulesId("later"), None, tier="default", reason="policy not known yet")
    ]


def test_a_rule_that_logs_reports_and_goes_on() -> None:
    world = World()
    world.tell(direction(tier("a")), a=[Rule(action="log", protocol=TCP), TO_80])
    outcome = world.send()
    assert outcome.accepted
    assert outcome.logged == ["calico-packet: "]
    assert world.told(outcome) == [Denial("log", "ingress", RulesId("a"), 0, tier="default")]


def test_nothing_decided_is_the_profile() -> None:
    world = World()
    world.tell(direction(default="deny"))
    outcome = world.send()
    assert world.counted(outcome) == [Counted("profile", "ingress", "deny")]
    assert world.told(outcome) == [Denial("denied", "ingress", RulesId(""), reason="no profile allows it")]


def test_guards_report() -> None:
    world = World()
    world.tell(direction())
    spoofed = world.kernel.send(Packet("6.6.6.6", "10.0.0.1", TCP, 80, in_link=link("server")))
    assert world.told(spoofed) == [Denial("guard", "egress", RulesId(""), reason="spoofed")]
    assert spoofed.counted == ["spoofed"]
    assert GUARDS.keys().isdisjoint(world.table.counted())
    invalid = world.send(state="invalid")
    assert [denial.reason for denial in world.told(invalid)] == ["invalid"]


def test_a_counter_outlives_its_rules_and_goes_with_its_policy(world: World) -> None:
    tell(world.table, rules("a", ingress=[allow(protocol=TCP)]))
    transaction = settle(world.table, world.kernel).transaction
    assert transaction is not None
    touched = [line for line in transaction.lines() if " counter inet " in line]
    assert len(touched) == 2, "those of its deny and its pass"
    assert all(line.startswith("delete") for line in touched)
    world.table.remove_endpoint(pod("server"))
    settle(world.table, world.kernel)
    assert world.table.counted() == {}
    assert world.kernel.counters == GUARDS.keys()


def test_a_prefix_fits_whatever_it_is_about() -> None:
    prefix = log_prefix("would_deny", "ingress", "x" * 500)
    assert len(prefix) <= 127
    assert prefix != log_prefix("would_deny", "egress", "x" * 500)
    assert PolicyTable().denial(prefix) is None


def test_profiles_come_after_the_tiers() -> None:
    world = World()
    rule = direction(tier("a", default="pass"), default="deny")
    world.tell(Direction(tiers=rule.tiers, profiles=(RulesId("p"),), default="deny"), a=[DENY_UDP], p=[TO_80, PASS_81])
    assert world.counted(world.send()) == [Counted("p", "ingress", "allow")]
    assert not world.send(81).accepted
    assert not world.send(protocol=UDP).accepted
    ended = Direction(tiers=(tier("a"),), profiles=(RulesId("p"),), default="allow")
    world.tell(ended, a=[DENY_UDP])
    assert not world.send().accepted


# --- previews


def staged(enforced: Direction, *preview: object) -> Direction:
    return Direction(tiers=enforced.tiers, profiles=enforced.profiles, default=enforced.default, preview=preview)  # type: ignore[arg-type]


def test_a_preview_counts_and_reports_and_decides_nothing() -> None:
    world = World()
    world.tell(
        staged(direction(tier("a")), tier("s", "a")),
        a=[allow()],
        s=[Rule(action="deny", protocol=UDP, index=1), Rule(action="log"), allow(protocol=132)],
    )
    udp = world.send(protocol=UDP)
    assert udp.accepted
    assert world.counted(udp) == [Counted("s", "ingress", "would_deny"), Counted("a", "ingress", "allow")]
    assert world.told(udp) == [Denial("would_deny", "ingress", RulesId("s"), 1, tier="default")]
    assert world.counted(world.send(protocol=132))[0] == Counted("s", "ingress", "would_allow")
    assert world.counted(world.send())[0] == Counted("a", "ingress", "would_allow")
    assert world.send().logged == []


def test_a_preview_has_tiers_and_defaults() -> None:
    world = World()
    world.tell(
        staged(direction(), tier("a", name="first"), tier("b", name="second", default="pass")),
        a=[PASS_81, TO_80],
        b=[allow(protocol=TCP, destination=Match(ports=ports(80)))],
    )
    assert world.counted(world.send(80))[0] == Counted("a", "ingress", "would_allow")
    assert world.counted(world.send(81))[0] == Counted("profile", "ingress", "would_allow")
    assert world.counted(world.send(82))[0] == Counted("tier/first", "ingress", "would_deny")
    assert all(world.send(port).accepted for port in (80, 81, 82))


def test_a_staged_policy_that_is_not_known_holds_nobody_up() -> None:
    world = World()
    tell(world.table, attach("server", staged(direction(), tier("s"))))
    flush = settle(world.table, world.kernel)
    assert flush.programmed == {pod("server")}
    assert "s" in world.table.wanted().rules
    assert world.counted(world.send())[0] == Counted("s", "ingress", "would_deny")
    tell(world.table, rules("s", ingress=[allow(source=Match(groups=groups("s:a")))]))
    settle(world.table, world.kernel)
    assert world.counted(world.send())[0] == Counted("s", "ingress", "would_deny"), "of which group, nobody knows"
    tell(world.table, group("s:a", "10.244.0.1"))
    settle(world.table, world.kernel)
    assert world.counted(world.send())[0] == Counted("s", "ingress", "would_allow")
    assert Counted("s", "ingress", "allow") not in world.table.counted().values()
