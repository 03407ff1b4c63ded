"""The verdict of compiled policy on one flow: every field, and closed where something is missing."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.ids import GroupId, RulesId
from bus_schemas.policy import Direction, Group, Icmp, Match, PortRange, Rule, Rules, TierRules
from bus_schemas.policy_snapshot import Snapshot
from bus_schemas.verdicts import Flow, Verdict, allows, decide

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
A, B, NETS, HTTP, GONE = map(GroupId, ("s:a", "s:b", "s:nets", "p:http", "s:gone"))


def packed(address: str) -> bytes:
    return ip_address(address).packed


def flow(
    source: str = "10.0.0.1", destination: str = "10.0.0.2", protocol: int = TCP, port: int = 80, **more: Any
) -> Flow:
    return Flow(packed(source), packed(destination), protocol, 40000, port, **more)


def world(**policies: tuple[Rule, ...]) -> Snapshot:
    """Policies by name, their ingress rules; group A holds 10.0.0.1 and fd00::1, B 10.0.0.2, NETS 10.1.0.0/16."""
    made = Snapshot()
    made.set_group(A, 0, Group(v4=packed("10.0.0.1"), v6=packed("fd00::1"), selector="app == 'a'"))
    made.set_group(B, 0, Group(v4=packed("10.0.0.2")))
    made.set_group(NETS, 0, Group(nets4=packed("10.1.0.0") + b"\x10"))
    made.set_group(HTTP, 0, Group(of="ports", v4=packed("10.0.0.2") + bytes((TCP, 0)) + (80).to_bytes(2, "big")))
    for name, rules in policies.items():
        made.set_rules(RulesId(name), Rules(policy=f"NetworkPolicy/shop/{name}", ingress=rules))
    return made


def tier(*names: str, default: Any = "deny", tier: str = "default") -> TierRules:
    return TierRules(tier=tier, rules=tuple(map(RulesId, names)), default=default)


def judged(rule: Rule, packet: Flow) -> Verdict:
    """By one rule; what it leaves open is allowed, and so is what it passes on."""
    made = world(p=(rule,))
    direction = Direction(tiers=(tier("p", default="pass"),), default="allow")
    verdict = decide(direction, "ingress", packet, made)
    assert allows(direction, "ingress", packet, made) == (verdict.action == "allow")
    return verdict


def hits(rule: Rule, packet: Flow) -> bool:
    return judged(rule, packet).steps[0].outcome != "no match"


def src(**fields: Any) -> Rule:
    return Rule(action="deny", source=Match(**fields))


def dst(protocol: int | None = None, **fields: Any) -> Rule:
    return Rule(action="deny", protocol=protocol, destination=Match(**fields))


PING = flow(protocol=ICMP, port=0, icmp_type=8, icmp_code=0)
V6 = flow("fd00::1", "fd00::2")


@pytest.mark.parametrize(
    ("rule", "meets", "fails"),
    [
        pytest.param(Rule(action="deny", ip_version=4), flow(), V6, id="ip version"),
        pytest.param(Rule(action="deny", protocol=TCP), flow(), PING, id="protocol"),
        pytest.param(Rule(action="deny", not_protocol=TCP), PING, flow(), id="not protocol"),
        pytest.param(Rule(action="deny", icmp=Icmp(type=8)), PING, flow(), id="icmp type"),
        pytest.param(Rule(action="deny", icmp=Icmp(type=8)), PING, PING._replace(icmp_type=0), id="other type"),
        pytest.param(Rule(action="deny", icmp=Icmp(type=3, code=1)), PING._replace(icmp_type=3, icmp_code=1),
                     PING._replace(icmp_type=3), id="icmp code"),
        pytest.param(Rule(action="deny", not_icmp=Icmp(type=8)), flow(), PING, id="not icmp holds for what is none"),
        pytest.param(Rule(action="deny", icmp=Icmp(type=8)), V6._replace(protocol=ICMPV6, icmp_type=8),
                     V6._replace(protocol=ICMP, icmp_type=8), id="icmp is the family's"),
        pytest.param(src(groups=(A,)), flow(), flow("10.0.0.9"), id="group"),
        pytest.param(src(groups=(A,)), V6, flow("fd00::9", "fd00::2"), id="group of the other family"),
        pytest.param(src(groups=(A, B)), flow("10.0.0.9"), None, id="in every group"),
        pytest.param(src(not_groups=(A,)), flow("10.0.0.9"), flow(), id="not in a group"),
        pytest.param(src(groups=(NETS,)), flow("10.1.255.1"), flow("10.2.0.1"), id="network in a group"),
        pytest.param(src(nets=("10.0.0.0/8", "192.0.2.0/24")), flow(), flow("11.0.0.1"), id="nets"),
        pytest.param(src(nets=("0.0.0.0/0",)), flow(), V6, id="everything of one family"),
        pytest.param(src(not_nets=("10.0.0.0/30",)), flow("10.0.0.4"), flow(), id="not nets"),
        pytest.param(src(not_nets=("10.0.0.0/8",)), V6, flow(), id="outside a net: so is the other family"),
        pytest.param(dst(ports=(PortRange(first=80, last=90),)), flow(port=90), flow(port=91), id="ports"),
        pytest.param(dst(ports=(PortRange(first=0, last=65535),)), flow(), PING, id="a port is of those that have one"),
        pytest.param(dst(not_ports=(PortRange(first=80, last=80),)), PING, flow(), id="not a port"),
        pytest.param(dst(named_ports=(HTTP,)), flow(), flow(port=81), id="named port"),
        pytest.param(dst(named_ports=(HTTP,)), flow(), flow(protocol=UDP), id="named port of the protocol"),
        pytest.param(dst(ports=(PortRange(first=9, last=9),), named_ports=(HTTP,)), flow(port=9), flow(port=8),
                     id="ports and named ports are one list"),
        pytest.param(dst(not_named_ports=(HTTP,)), flow(port=81), flow(), id="not a named port"),
        pytest.param(src(ports=(PortRange(first=40000, last=40000),)), flow(), flow()._replace(source_port=1),
                     id="source port"),
    ],
)  # fmt: skip
def test_conditions(rule: Rule, meets: Flow, fails: Flow | None) -> None:
    if fails is None:
        assert not hits(rule, meets)
    else:
        assert hits(rule, meets)
        assert not hits(rule, fails)


UNKNOWN = Match(groups=(GONE,))
BAD = Match(nets=("nowhere",))


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        pytest.param(Rule(action="deny", source=UNKNOWN), "group not known", id="deny"),
        pytest.param(Rule(action="pass", source=UNKNOWN), "group not known", id="pass"),
        pytest.param(Rule(action="deny", destination=Match(not_groups=(GONE,))), "group not known", id="negated"),
        pytest.param(Rule(action="deny", destination=Match(named_ports=(GONE,))), "group not known", id="named port"),
        pytest.param(Rule(action="allow", never="too new"), "not compiled", id="never"),
        pytest.param(Rule(action="pass", never="too new", source=UNKNOWN), "not compiled", id="never, unknown"),
        pytest.param(Rule(action="allow", source=UNKNOWN), "group not known", id="allow"),
        pytest.param(Rule(action="allow", destination=Match(named_ports=(GONE,), ports=(PortRange(first=9, last=9),))),
                     "group not known", id="one of the ports may be any"),
        pytest.param(Rule(action="deny", source=BAD), "unwritable", id="unwritable"),
        pytest.param(Rule(action="allow", protocol=TCP, source=BAD), "unwritable", id="unwritable allow"),
        pytest.param(dst(ports=(PortRange(first=0, last=70000),)), "unwritable", id="port too high"),
        pytest.param(Rule(action="pass", protocol=256), "unwritable", id="protocol too high"),
    ],
)  # fmt: skip
def test_what_cannot_be_trusted_denies(rule: Rule, why: str) -> None:
    verdict = judged(rule, flow())
    assert verdict.action == "deny"
    assert verdict.decision.why == why


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(Rule(action="log", source=UNKNOWN), id="log"),
        pytest.param(Rule(action="log", never="too new"), id="a log that could not be compiled"),
        pytest.param(Rule(action="log", source=BAD), id="an unwritable log"),
        pytest.param(Rule(action="deny", protocol=UDP, source=BAD), id="unwritable, of something else"),
        pytest.param(Rule(action="deny", protocol=UDP, source=UNKNOWN), id="deny of something else"),
        pytest.param(Rule(action="allow", never="too new", protocol=UDP), id="never of something else"),
    ],
)
def test_what_cannot_be_trusted_lets_nothing_in(rule: Rule) -> None:
    made = world(p=(rule,))
    closed = Direction(tiers=(tier("p"),))
    assert not allows(closed, "ingress", flow(), made)
    assert [step.outcome for step in decide(closed, "ingress", flow(), made).steps] == ["no match", "deny"]


def test_the_path_names_every_policy_and_the_rule_that_decided() -> None:
    made = world(
        first=(Rule(action="log"), Rule(action="pass", source=Match(groups=(A,)))),
        second=(Rule(action="deny"),),
        third=(Rule(action="allow", protocol=UDP), Rule(action="allow", destination=Match(groups=(B,)))),
    )
    direction = Direction(tiers=(tier("first", "second", tier="security"), tier("third")))
    verdict = decide(direction, "ingress", flow(), made)
    assert verdict.action == "allow"
    first, third = verdict.steps
    assert (first.outcome, first.number, first.tier, first.policy) == (
        "pass",
        1,
        "security",
        "NetworkPolicy/shop/first",
    )
    assert [(skip.number, skip.miss) for skip in first.skipped] == [(0, None)]
    assert third.outcome == "allow"
    assert third.number == 1
    assert third.skipped[0].miss is not None
    assert third.skipped[0].miss.condition == "protocol"


def test_tier_defaults_profiles_and_the_end() -> None:
    made = world(none=(), profile=(Rule(action="allow", source=Match(groups=(A,))),))
    closing = Direction(tiers=(tier("none"),), default="allow")
    assert [s.kind for s in decide(closing, "ingress", flow(), made).steps] == ["policy", "tier default"]
    assert not allows(closing, "ingress", flow(), made)
    profiled = Direction(tiers=(tier("none", default="pass"),), profiles=(RulesId("profile"),))
    assert decide(profiled, "ingress", flow(), made).decision.kind == "profile"
    assert allows(profiled, "ingress", flow(), made)
    assert decide(profiled, "ingress", flow("10.0.0.9"), made).decision.kind == "default"
    assert not allows(profiled, "ingress", flow("10.0.0.9"), made)
    assert not allows(Direction(tiers=(tier("unheard"),), default="allow"), "ingress", flow(), made)
    assert not allows(Direction(profiles=(RulesId("unheard"),), default="allow"), "ingress", flow(), made)


def test_the_preview_stands_in_for_the_tiers() -> None:
    made = world(now=(Rule(action="allow"),), staged=(Rule(action="deny"),))
    direction = Direction(tiers=(tier("now"),), preview=(tier("staged", "now"),))
    assert allows(direction, "ingress", flow(), made)
    assert not allows(direction, "ingress", flow(), made, preview=True)
    assert decide(direction, "ingress", flow(), made, preview=True).decision.policy == "NetworkPolicy/shop/staged"
    assert allows(Direction(tiers=(tier("now"),)), "ingress", flow(), made, preview=True), "nothing staged"


def test_a_group_is_known_when_it_is_whole() -> None:
    made = Snapshot()
    made.set_group(A, 0, Group(v4=packed("10.0.0.1"), segments=2))
    assert made.in_group(A, packed("10.0.0.1")) is None
    made.set_group(A, 1, Group(v4=packed("10.0.0.2"), segments=2))
    assert [made.in_group(A, packed(f"10.0.0.{n}")) for n in (1, 2, 3)] == [True, True, False]
    made.set_group(A, 0, None)
    assert made.in_group(A, packed("10.0.0.2")) is None


_matches = st.builds(
    Match,
    groups=st.sampled_from([(), (A,), (A, B), (GONE,)]),
    not_groups=st.sampled_from([(), (B,), (GONE,)]),
    nets=st.sampled_from([(), ("10.0.0.0/30",), ("bad",)]),
    not_nets=st.sampled_from([(), ("10.0.0.2/32",)]),
    ports=st.sampled_from([(), (PortRange(first=80, last=81),)]),
    named_ports=st.sampled_from([(), (HTTP,), (GONE,)]),
    not_ports=st.sampled_from([(), (PortRange(first=81, last=82),)]),
    not_named_ports=st.sampled_from([(), (HTTP,)]),
)
_rules = st.builds(
    Rule,
    action=st.sampled_from(["allow", "deny", "pass", "log"]),
    protocol=st.sampled_from([None, TCP, UDP, ICMP]),
    source=_matches | st.just(Match()),
    destination=_matches | st.just(Match()),
    never=st.sampled_from(["", "", "", "why"]),
)


@given(
    policies=st.lists(st.lists(_rules, max_size=3), min_size=1, max_size=3),
    defaults=st.lists(st.sampled_from(["deny", "pass"]), min_size=3, max_size=3),
    packet=st.builds(flow, destination=st.sampled_from(["10.0.0.2", "10.0.0.3"]), port=st.sampled_from([80, 81, 9]),
                     protocol=st.sampled_from([TCP, UDP, ICMP])),
)  # fmt: skip
def test_with_and_without_the_path_it_is_one_verdict(
    policies: list[list[Rule]], defaults: list[Any], packet: Flow
) -> None:
    made = world(**{f"p{number}": tuple(rules) for number, rules in enumerate(policies)})
    tiers = tuple(tier(f"p{n}", default=default) for n, default in zip(range(len(policies)), defaults, strict=False))
    direction = Direction(tiers=tiers, default="allow")
    verdict = decide(direction, "ingress", packet, made)
    assert (verdict.action == "allow") == allows(direction, "ingress", packet, made)
    assert verdict.decision.outcome == verdict.action
