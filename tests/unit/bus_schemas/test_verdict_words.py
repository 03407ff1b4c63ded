"""Rules, selectors and misses in words."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from bus_schemas import verdict_words as words
from bus_schemas.ids import GroupId
from bus_schemas.policy import Icmp, Match, PortRange, Rule
from bus_schemas.verdicts import Flow, Miss

WEB, HTTP, GONE, DB, DB_PORTS, EDGE = map(GroupId, ("s:web", "p:http", "s:gone", "s:db", "p:db", "s:edge"))
SELECTORS = {
    WEB: '(projectcalico.org/namespace == "shop" && (projectcalico.org/orchestrator == "k8s" && app == "web"))',
    HTTP: '(projectcalico.org/namespace == "shop" && app == "web") :http',
    DB: 'services: service == "shop/db"',
    DB_PORTS: 'services: service == "shop/db" :*',
    EDGE: 'nodes: role == "edge"',
}


def selector(group: GroupId) -> str:
    return SELECTORS.get(group, "")


@pytest.mark.parametrize(
    ("canonical", "says"),
    [
        ('projectcalico.org/namespace == "shop"', "pods in namespace shop"),
        ('projectcalico.org/orchestrator == "k8s"', "all pods"),
        ("all()", "all endpoints"),
        ("has(projectcalico.org/namespace)", "pods in any namespace"),
        ('(pcns.team == "a" && role == "x")', '`role == "x"` in namespaces with `team == "a"`'),
        ('(pcsa.a == "b" && pcns.x in {"1", "2"})', 'pods with a service account with `a == "b"` in namespaces with '
                                                     '`x in {"1", "2"}`'),
        ("!has(pcns.team)", "pods in namespaces with `!has(team)`"),
        ('(a == "1" && b == "2")', '`a == "1" && b == "2"`'),
        ("nodes: all()", "all nodes"),
        ('nodes: role == "edge"', 'nodes with `role == "edge"`'),
        ('services: service == "shop/db"', "endpoints of service shop/db"),
    ],
)  # fmt: skip
def test_selectors(canonical: str, says: str) -> None:
    assert words.members(canonical) == says


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (Rule(action="allow"), "allow everything"),
        (Rule(action="deny", protocol=17), "deny UDP"),
        (Rule(action="pass", ip_version=6, not_protocol=6), "pass IPv6 all but TCP"),
        (Rule(action="deny", protocol=1, icmp=Icmp(type=3, code=1)), "deny ICMP type 3 code 1"),
        (
            Rule(action="allow", protocol=6, source=Match(groups=(WEB,)),
                 destination=Match(ports=(PortRange(first=80, last=80), PortRange(first=90, last=99)),
                                   named_ports=(HTTP,))),
            'allow TCP from `app == "web"` in namespace shop to port 80, 90-99 or http',
        ),
        (
            Rule(action="deny", source=Match(nets=("10.0.0.0/8",), not_nets=("10.1.0.0/16",), not_groups=(GONE,))),
            "deny from 10.0.0.0/8 and not a group that is not known (s:gone) and not 10.1.0.0/16",
        ),
        (
            Rule(action="allow", source=Match(nets=tuple(f"10.{n}.0.0/16" for n in range(9)))),
            "allow from 10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16, 10.4.0.0/16 or 4 more",
        ),
        (Rule(action="allow", destination=Match(named_ports=(DB_PORTS,))), "allow to service shop/db"),
        (Rule(action="allow", source=Match(groups=(DB,))), "allow from endpoints of service shop/db"),
        (Rule(action="deny", source=Match(groups=(EDGE,))), 'deny from nodes with `role == "edge"`'),
    ],
)  # fmt: skip
def test_rules(rule: Rule, says: str) -> None:
    assert words.rule(rule, selector) == says


@pytest.mark.parametrize(
    ("miss", "rule", "says"),
    [
        (Miss("protocol"), Rule(action="allow", protocol=17), "it is for UDP, not TCP"),
        (Miss("groups", "source", WEB), Rule(action="allow"),
         'source 10.0.0.1 is not in `app == "web"` in namespace shop'),
        (Miss("unknown", "source", GONE), Rule(action="allow"),
         "it cannot be trusted: a group that is not known (s:gone)"),
        (Miss("nets", "destination"), Rule(action="allow", destination=Match(nets=("10.1.0.0/16",))),
         "destination 10.0.0.2 is not in 10.1.0.0/16"),
        (Miss("ports", "destination"), Rule(action="allow", destination=Match(named_ports=(HTTP,))),
         "destination port 443 is not http"),
        (Miss("ports", "destination"), Rule(action="allow", destination=Match(named_ports=(DB_PORTS,))),
         "destination 10.0.0.2 TCP port 443 is no endpoint of service shop/db"),
        (Miss("groups", "source", DB), Rule(action="allow"),
         "source 10.0.0.1 is none of the endpoints of service shop/db"),
        (Miss("groups", "source", EDGE), Rule(action="allow"),
         'source 10.0.0.1 is none of the nodes with `role == "edge"`'),
        (Miss("not_named_ports", "destination", HTTP), Rule(action="allow"),
         "destination port 443 is http, which it excepts"),
    ],
)  # fmt: skip
def test_misses(miss: Miss, rule: Rule, says: str) -> None:
    flow = Flow(ip_address("10.0.0.1").packed, ip_address("10.0.0.2").packed, 6, 40000, 443)
    assert words.miss(miss, rule, flow, selector) == says
