"""Explanations where host endpoints stand on the way. The compiler itself says what is compiled."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bus_schemas.explanations import Explanation
from services.api.core import Core
from services.api.explain import CannotTell, find_end, wanted
from tests.support.explained import Bench

HOST = """
{{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {{name: {name}, labels: {{host: "yes"}}}},
 spec: {{node: {node}, interfaceName: "{device}"}}}}
"""
POLICY = """
{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {{name: {name}}},
 spec: {{selector: has(host), applyOnForward: true, types: [Ingress], {more}
        ingress: [{{action: {action}, protocol: TCP, destination: {{ports: [{port}]}}}}]}}}}
"""


def host(name: str = "up", node: str = "node1", device: str = "eth0") -> str:
    return HOST.format(name=name, node=node, device=device)


def policy(name: str, action: str, port: int, more: str = "") -> str:
    return POLICY.format(name=name, action=action, port=port, more=f"{more}," if more else "")


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.pod("shop/web", "10.244.0.1", app="web")
    made.pod("shop/near", "10.244.0.4")
    made.pod("shop/api", "10.244.0.2", node="node2", app="api")
    return made


def said(answer: Explanation) -> Sequence[tuple[str, str]]:
    return [(report.endpoint, report.action) for report in answer.hosts]


def test_what_a_host_endpoint_forwards_to_a_pod(bench: Bench) -> None:
    bench.put(host(), policy("closed", "Deny", 80), policy("open", "Allow", 81))
    answer = bench.explain("shop/api", "shop/web", "TCP/80")
    assert answer.action == "deny"
    assert said(answer) == [("host endpoint up, forwarded", "deny")]
    assert answer.because == "ingress of host endpoint up, forwarded: GlobalNetworkPolicy/closed ingress[0]"
    assert any("tunnel" in note for note in answer.notes)
    assert said(bench.explain("shop/api", "shop/web", "TCP/81")) == [("host endpoint up, forwarded", "allow")]
    assert bench.explain("shop/near", "shop/web", "TCP/80").action == "allow"


def test_the_host_endpoint_of_every_device_stands_for_those_of_pods(bench: Bench) -> None:
    bench.put(host(device="*"), policy("closed", "Deny", 80))
    assert said(bench.explain("shop/near", "shop/web", "TCP/80")) == [("host endpoint up, forwarded", "deny")]
    assert bench.explain("node:node1", "shop/web", "TCP/80").action == "allow"


def test_what_is_denied_before_nat(bench: Bench) -> None:
    bench.put(host(), policy("closed", "Deny", 80, "preDNAT: true"))
    assert said(bench.explain("shop/api", "shop/web", "TCP/80")) == [("host endpoint up, before NAT", "deny")]
    answer = bench.explain("shop/api", "shop/web", "TCP/81")
    assert answer.action == "allow"
    assert answer.hosts[0].steps[-1].says == "it goes on to other policies"


@pytest.mark.parametrize(("device", "action"), [("eth0", "allow"), ("*", "deny")])
def test_what_is_allowed_untracked_is_not_asked_about_again(bench: Bench, device: str, action: str) -> None:
    """`*` has no untracked policies."""
    bench.put(host(device=device), policy("raw", "Allow", 80, "doNotTrack: true"))
    answer = bench.explain("node:node2", "node:node1", "TCP/80")
    assert answer.action == action
    assert (answer.ingress is None) == (action == "allow")


def test_host_endpoints_of_the_nodes_of_pods_are_read(bench: Bench) -> None:
    bench.put(host(), host("other", "node2"))
    core: Core = bench.api
    assert wanted(core, find_end(core, "shop/web"))[1] == [("node1", "up")]
    with pytest.raises(CannotTell):
        find_end(core, "node:node9")
