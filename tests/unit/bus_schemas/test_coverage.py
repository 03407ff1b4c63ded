"""What is dropped in place of a rule that cannot be enforced: what it would have covered, as far as that is known."""

from __future__ import annotations

import pytest

from bus_schemas.coverage import fault, understood
from bus_schemas.ids import GroupId
from bus_schemas.policy import Icmp, Match, PortRange, Rule

GONE, HERE = GroupId("s:gone"), GroupId("s:here")
HTTP, HIGH = PortRange(first=80, last=80), PortRange(first=80, last=70000)


def to(**fields: object) -> Rule:
    return Rule(action="allow", protocol=6, destination=Match(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "rest"),
    [
        pytest.param(Rule(action="deny", protocol=300, not_protocol=6), Rule(action="deny", not_protocol=6)),
        pytest.param(Rule(action="deny", not_protocol=300), Rule(action="deny")),
        pytest.param(Rule(action="deny", protocol=300, icmp=Icmp(type=8)), Rule(action="deny", icmp=Icmp(type=8))),
        pytest.param(
            Rule(action="deny", protocol=1, icmp=Icmp(type=8, code=256)),
            Rule(action="deny", protocol=1, icmp=Icmp(type=8)),
            id="a bad code may be any code",
        ),
        pytest.param(Rule(action="deny", protocol=1, icmp=Icmp(type=256)), Rule(action="deny", protocol=1)),
        pytest.param(
            Rule(action="deny", protocol=1, not_icmp=Icmp(type=8, code=256)),
            Rule(action="deny", protocol=1),
            id="an exception with a bad code may except nothing",
        ),
        pytest.param(to(nets=("10.0.0.0/8", "bad"), ports=(HTTP,)), to(ports=(HTTP,)), id="one bad net may be any"),
        pytest.param(to(not_nets=("10.0.0.0/8", "bad")), to(not_nets=("10.0.0.0/8",)), id="one exception less"),
        pytest.param(to(ports=(HTTP, HIGH), groups=(HERE,)), to(groups=(HERE,)), id="one bad port may be any"),
        pytest.param(to(ports=(HIGH,), named_ports=(HERE,)), to(), id="with the names beside it"),
        pytest.param(to(not_ports=(HTTP, HIGH)), to(not_ports=(HTTP,)), id="one excepted port less"),
    ],
)
def test_what_the_kernel_cannot_be_told(rule: Rule, rest: Rule) -> None:
    assert fault(rule)
    assert understood(rule) == rest
    assert not fault(rest)


@pytest.mark.parametrize(
    ("rule", "rest"),
    [
        pytest.param(to(groups=(GONE, HERE)), to(groups=(HERE,))),
        pytest.param(to(not_groups=(GONE, HERE)), to(not_groups=(HERE,))),
        pytest.param(to(named_ports=(GONE, HERE), ports=(HTTP,)), to()),
        pytest.param(to(not_named_ports=(GONE, HERE)), to(not_named_ports=(HERE,))),
    ],
)
def test_groups_that_nobody_knows(rule: Rule, rest: Rule) -> None:
    assert not fault(rule)
    assert understood(rule, lambda group: group == HERE) == rest


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(Rule(action="allow", protocol=6, icmp=Icmp(type=300)), id="never met"),
        pytest.param(Rule(action="allow", protocol=47, source=Match(ports=(HIGH,))), id="never met, either"),
        pytest.param(to(groups=(HERE,), nets=("10.0.0.0/8",), not_nets=("10.1.0.0/16",), ports=(HTTP,)), id="whole"),
    ],
)
def test_what_is_whole_stays_as_it_is(rule: Rule) -> None:
    assert not fault(rule)
    assert understood(rule) == rule
