"""One rule as nft text, by semantic."""

from __future__ import annotations

import pytest

from bus_schemas.policy import Icmp, Match, Rule
from services.node_dataplane.nft.names import address_set, port_set
from services.node_dataplane.nft.render import Facts, Rendered, comment, quoted, render_policy
from tests.support.nft_worlds import ICMP, ICMPV6, TCP, UDP, allow, groups, ports

A, B, P = groups("s:a", "s:b", "p:http")
A4, A6 = (f"@{address_set(A, family)}" for family in (4, 6))
B4, B6 = (f"@{address_set(B, family)}" for family in (4, 6))
P4, P6 = (f"@{port_set(P, family)}" for family in (4, 6))
PORTED = "{ 6, 17, 33, 132, 136 }"


def verdict(rule: Rule, why: str) -> tuple[str, ...]:
    if why:
        return (f"drop {comment(why)}",)
    return ({"allow": "accept", "deny": "drop", "pass": "return", "log": "log"}[rule.action],)


def rendered(*rules: Rule, unknown: tuple[str, ...] = ()) -> Rendered:
    return render_policy(rules, lambda group: None if group in unknown else Facts(), verdict)


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        pytest.param(Rule(action="allow"), ["accept"], id="no condition covers both families at once"),
        pytest.param(Rule(action="deny"), ["drop"], id="deny"),
        pytest.param(Rule(action="pass"), ["return"], id="pass"),
        pytest.param(Rule(action="log"), ["log"], id="log goes on"),
        pytest.param(Rule(action="allow", protocol=253), ["meta l4proto 253 accept"], id="protocol by number"),
        pytest.param(Rule(action="allow", not_protocol=UDP), ["meta l4proto != 17 accept"], id="not protocol"),
        pytest.param(Rule(action="allow", ip_version=6), ["meta nfproto ipv6 accept"], id="ip version"),
        pytest.param(allow(source=Match(groups=(A,))), [f"ip saddr {A4} accept", f"ip6 saddr {A6} accept"], id="group"),
        pytest.param(
            allow(source=Match(groups=(A, B))),
            [f"ip saddr {A4} ip saddr {B4} accept", f"ip6 saddr {A6} ip6 saddr {B6} accept"],
            id="in every group",
        ),
        pytest.param(
            allow(destination=Match(not_groups=(A,))),
            [f"ip daddr != {A4} accept", f"ip6 daddr != {A6} accept"],
            id="not in group",
        ),
        pytest.param(
            allow(source=Match(nets=("10.0.0.0/8",))), ["ip saddr 10.0.0.0/8 accept"], id="nets of one family only"
        ),
        pytest.param(
            allow(source=Match(nets=("10.0.0.0/8", "10.1.0.0/16", "192.168.0.1/32"))),
            ["ip saddr { 10.0.0.0/8, 192.168.0.1/32 } accept"],
            id="overlaps merged",
        ),
        pytest.param(
            allow(source=Match(nets=("10.0.0.0/8",)), destination=Match(nets=("fd00::/8",))),
            [],
            id="families that part",
        ),
        pytest.param(
            Rule(action="allow", ip_version=6, source=Match(nets=("10.0.0.0/8",))), [], id="nets against ip version"
        ),
        pytest.param(
            allow(source=Match(nets=("10.0.0.0/8",), not_nets=("10.1.0.0/16",))),
            ["ip saddr 10.0.0.0/8 ip saddr != 10.1.0.0/16 accept"],
            id="net with exception",
        ),
        pytest.param(
            allow(source=Match(not_nets=("10.0.0.0/8",))),
            ["ip saddr != 10.0.0.0/8 accept", "meta nfproto ipv6 accept"],
            id="outside a net: so is the other family",
        ),
        pytest.param(
            allow(source=Match(not_nets=("0.0.0.0/0",))),
            ["meta nfproto ipv6 accept"],
            id="outside everything never matches",
        ),
        pytest.param(
            allow(source=Match(nets=("0.0.0.0/0",))), ["meta nfproto ipv4 accept"], id="everything of one family"
        ),
        pytest.param(
            allow(protocol=TCP, destination=Match(ports=ports(80, (90, 100), 443, 81))),
            ["meta l4proto 6 th dport { 80-81, 90-100, 443 } accept"],
            id="ports merged",
        ),
        pytest.param(
            allow(destination=Match(ports=ports(80))),
            [f"meta l4proto {PORTED} th dport 80 accept"],
            id="ports of whatever has ports",
        ),
        pytest.param(
            allow(protocol=TCP, destination=Match(ports=ports(80), named_ports=(P,))),
            [
                "meta l4proto 6 th dport 80 accept",
                f"meta l4proto 6 ip daddr . meta l4proto . th dport {P4} accept",
                f"meta l4proto 6 ip6 daddr . meta l4proto . th dport {P6} accept",
            ],
            id="numeric and named ports are one list",
        ),
        pytest.param(
            allow(protocol=TCP, source=Match(not_ports=ports((1, 1023)))),
            ["meta l4proto 6 th sport != 1-1023 accept"],
            id="not ports",
        ),
        pytest.param(
            allow(protocol=TCP, destination=Match(not_named_ports=(P,))),
            [
                f"meta l4proto 6 ip daddr . meta l4proto . th dport != {P4} accept",
                f"meta l4proto 6 ip6 daddr . meta l4proto . th dport != {P6} accept",
            ],
            id="not named ports",
        ),
        pytest.param(
            Rule(action="allow", protocol=ICMP, icmp=Icmp(type=8, code=0)),
            ["meta l4proto 1 icmp type 8 icmp code 0 accept"],
            id="icmp type and code",
        ),
        pytest.param(
            Rule(action="allow", protocol=ICMPV6, icmp=Icmp(type=128)),
            ["meta l4proto 58 icmpv6 type 128 accept"],
            id="icmpv6 type",
        ),
        pytest.param(
            Rule(action="allow", ip_version=4, protocol=ICMP, not_icmp=Icmp(type=8, code=0)),
            [
                "meta nfproto ipv4 meta l4proto 1 icmp type != 8 accept",
                "meta nfproto ipv4 meta l4proto 1 icmp type 8 icmp code != 0 accept",
            ],
            id="not this type and code",
        ),
        pytest.param(
            Rule(action="deny", protocol=TCP, never="HTTP rules need a proxy"),
            ['meta l4proto 6 drop comment "HTTP rules need a proxy"'],
            id="never",
        ),
        pytest.param(Rule(action="log", never="no"), [], id="a log closes nothing"),
        pytest.param(
            Rule(action="allow", protocol=TCP, source=Match(nets=("fe80::% accept; flush ruleset; #/64",))),
            ['meta l4proto 6 drop comment "fe80::% accept; flush ruleset; #/64 is not a network"'],
            id="a zone is text of somebody's",
        ),
        pytest.param(
            allow(protocol=TCP, source=Match(nets=("10.0.0.0/33", "10.0.0.0/8"))),
            ['meta l4proto 6 drop comment "10.0.0.0/33 is not a network"'],
            id="an allow of an unsayable net",
        ),
        pytest.param(
            Rule(action="deny", source=Match(not_nets=("10.0.0.0/33", "10.0.0.0/8"))),
            [
                'ip saddr != 10.0.0.0/8 drop comment "10.0.0.0/33 is not a network"',
                'meta nfproto ipv6 drop comment "10.0.0.0/33 is not a network"',
            ],
            id="unsayable exception",
        ),
        pytest.param(
            Rule(action="pass", protocol=TCP, destination=Match(ports=ports(70000))),
            ['meta l4proto 6 drop comment "70000-70000 is not a range of ports"'],
            id="unsayable port",
        ),
    ],
)
def test_rule(rule: Rule, lines: list[str]) -> None:
    assert list(rendered(rule).lines) == lines


@pytest.mark.parametrize("action", ["allow", "deny", "pass"])
def test_an_unknown_group_drops_what_the_rest_covers(action: str) -> None:
    rule = Rule(action=action, protocol=TCP, source=Match(groups=(A, B)), destination=Match(ports=ports(80)))  # type: ignore[arg-type]
    outcome = rendered(rule, unknown=(A,))
    assert outcome.lines == (
        f'meta l4proto 6 ip saddr {B4} th dport 80 drop comment "group not known: s:a"',
        f'meta l4proto 6 ip6 saddr {B6} th dport 80 drop comment "group not known: s:a"',
    )
    assert outcome.missing == {A}
    assert outcome.faults == ("rule 0: group not known: s:a",)
    assert not outcome.passes


def test_a_log_of_an_unknown_group_takes_nothing_from_later_rules() -> None:
    rule = Rule(action="log", protocol=TCP, source=Match(groups=(A, B)))
    outcome = rendered(rule, allow(protocol=TCP), unknown=(A,))
    assert outcome.lines == ("meta l4proto 6 accept",)
    assert outcome.missing == {A}
    assert outcome.faults == ("rule 0: group not known: s:a",)


def test_an_allow_that_could_not_be_compiled_is_the_deny_that_it_says() -> None:
    assert rendered(Rule(action="allow", never="no")).lines == ('drop comment "no"',)


def test_an_unknown_named_port_could_be_any_port() -> None:
    rule = Rule(action="deny", protocol=TCP, destination=Match(ports=ports(80), named_ports=(P,)))
    assert rendered(rule, unknown=(P,)).lines == ('meta l4proto 6 drop comment "group not known: p:http"',)


def test_comments_cannot_break_out_of_their_quotes() -> None:
    assert comment('a"; drop\n\\x') == 'comment "a\'; drop /x"'
    assert len(comment("é" * 200).encode()) < 140


def test_a_log_prefix_is_short_in_bytes() -> None:
    """A longer one ends the process in libnftables."""
    assert quoted("a" * 200) == f'"{"a" * 100}: "'
    assert quoted("é" * 200) == f'"{"é" * 50}: "'
    assert quoted("x" + "é" * 200) == f'"x{"é" * 49}: "'
    assert quoted('a"b\\$`\n') == '"ab: "'
