"""Rules that name a Service: whom its slices make members, each way, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.policy import Match, Rule
from bus_schemas.resources import EndpointSlice, GlobalNetworkPolicy, NetworkPolicy
from bus_schemas.subjects import Fact
from services.policy_compiler.selection import identity
from tests.support.policy_changes import Compiler, absent, stored

SERVICE = 'services: service == "red/web"'
PORTS = f"{SERVICE} :*"
HTTP = {"name": "http", "protocol": "TCP", "port": 8080}


def to_service(within: str = "red", /, **match: str) -> Fact:
    rule = {"action": "Allow", "destination": {"services": {"name": "web", **match}}}
    spec = {"types": ["Egress"], "egress": [rule]}
    return stored(NetworkPolicy, f"{within}/to", spec) if within else stored(GlobalNetworkPolicy, "to", spec)


def from_service(**more: Any) -> Fact:
    rule = {"action": "Allow", "source": {"services": {"name": "web"}, **more}}
    return stored(NetworkPolicy, "red/from", {"ingress": [rule]})


def endpoints(name: str, *addresses: str, ports: tuple[dict[str, Any], ...] = (HTTP,), **more: Any) -> Fact:
    """A slice of the Service `web`, of endpoints that are not ready."""
    spec = {"endpoints": [{"addresses": [a], "ready": False} for a in addresses], "ports": list(ports)}
    return stored(EndpointSlice, f"red/{name}", spec | more, labels={"kubernetes.io/service-name": "web"})


def test_a_destination_is_address_protocol_and_port() -> None:
    compiler = Compiler(
        to_service(),
        endpoints("a", "10.0.0.1", "10.0.0.2", ports=(HTTP, {"protocol": "UDP", "port": 53})),
        endpoints("b", "2001:db8::1", address_type="IPv6"),
    )
    assert compiler.rules["networkpolicy/red/to"].egress == (
        Rule(action="allow", destination=Match(named_ports=(identity(PORTS),))),
    )
    assert compiler.members(PORTS) == {
        "10.0.0.1 6:8080",
        "10.0.0.1 17:53",
        "10.0.0.2 6:8080",
        "10.0.0.2 17:53",
        "2001:db8::1 6:8080",
    }


def test_a_source_is_the_addresses_alone() -> None:
    compiler = Compiler(from_service(), endpoints("a", "10.0.0.1"))
    assert compiler.ingress("networkpolicy/red/from") == (
        Rule(action="allow", source=Match(groups=(identity(SERVICE),))),
    )
    assert compiler.members(SERVICE) == {"10.0.0.1"}


def test_a_slice_that_changes_costs_the_groups_of_its_service() -> None:
    compiler = Compiler(to_service(), from_service(), endpoints("a", "10.0.0.1"), endpoints("b", "10.0.0.1"))
    assert compiler.change(endpoints("a", "10.0.0.1", "10.0.0.2")) == {f"group {SERVICE}", f"group {PORTS}"}
    assert compiler.change(endpoints("a", "10.0.0.1", "10.0.0.2", ports=())) == {f"group {PORTS}"}
    assert compiler.members(PORTS) == {"10.0.0.1 6:8080"}
    assert compiler.change(absent(EndpointSlice, "red/b")) == {f"group {PORTS}"}
    other = stored(EndpointSlice, "blue/a", {}, labels={"kubernetes.io/service-name": "web"})
    assert compiler.change(other, stored(EndpointSlice, "red/c", {})) == set()


def test_a_slice_that_moves_to_another_service() -> None:
    compiler = Compiler(from_service(), endpoints("a", "10.0.0.1"))
    spec = {"endpoints": [{"addresses": ["10.0.0.1"]}]}
    moved = stored(EndpointSlice, "red/a", spec, labels={"kubernetes.io/service-name": "db"})
    assert compiler.change(moved) == {f"group {SERVICE}"}
    assert compiler.members(SERVICE) == set()
    assert compiler.change(endpoints("a", "10.0.0.1")) == {f"group {SERVICE}"}


def test_a_service_that_nobody_knows_is_nobody() -> None:
    compiler = Compiler(to_service("", namespace="red"))
    assert compiler.members(PORTS) == set()
    assert compiler.change(endpoints("a", "10.0.0.1")) == {f"group {PORTS}"}
    assert compiler.members(PORTS) == {"10.0.0.1 6:8080"}


def test_what_a_slice_can_hold_that_means_nothing() -> None:
    odd = ({"protocol": "TCP"}, {"protocol": "TCP", "port": 0}, {"protocol": "X", "port": 1}, {"port": 1 << 40})
    compiler = Compiler(
        to_service(),
        from_service(),
        endpoints("a", "10.0.0.1", "nonsense", ports=odd),
        endpoints("names", "example.org", addressType="FQDN"),
    )
    assert compiler.members(SERVICE) == {"10.0.0.1"}
    assert compiler.members(PORTS) == set()
    assert compiler.statuses["endpointslice/red/a"].faults == ("endpoints: 'nonsense' is no address",)


def test_selectors_do_not_find_slices() -> None:
    everybody = stored(GlobalNetworkPolicy, "p", {"ingress": [{"action": "Allow", "source": {"selector": "all()"}}]})
    compiler = Compiler(everybody, endpoints("a", "10.0.0.1"))
    assert compiler.members("all()") == set()


@pytest.mark.parametrize(
    ("direction", "end", "entity"),
    [
        ("ingress", "destination", {"services": {"name": "web"}}),
        ("egress", "source", {"services": {"name": "web"}}),
        ("ingress", "source", {"services": {"name": ""}}),
        ("ingress", "source", {"services": {"name": "web"}, "selector": "has(a)"}),
        ("ingress", "source", {"services": {"name": "web"}, "notSelector": "has(a)"}),
        ("ingress", "source", {"services": {"name": "web"}, "namespaceSelector": "has(a)"}),
        ("ingress", "source", {"services": {"name": "web"}, "nets": ["10.0.0.0/8"]}),
        ("ingress", "source", {"services": {"name": "web"}, "notNets": ["10.0.0.0/8"]}),
        ("ingress", "source", {"services": {"name": "web"}, "serviceAccounts": {"names": ["a"]}}),
        ("egress", "destination", {"services": {"name": "web"}, "ports": ["http"]}),
        ("egress", "destination", {"services": {"name": "web"}, "notPorts": ["http"]}),
    ],
)
def test_a_service_where_it_has_no_meaning_closes_the_rule(direction: str, end: str, entity: dict[str, Any]) -> None:
    rule = {"action": "Allow", "protocol": "TCP", end: entity}
    compiler = Compiler(stored(NetworkPolicy, "red/p", {"types": ["Ingress", "Egress"], direction: [rule]}))
    rules = compiler.rules["networkpolicy/red/p"]
    assert {found.action for found in (*rules.ingress, *rules.egress)} == {"deny"}
    assert compiler.statuses["networkpolicy/red/p"].faults[0].startswith(f"spec.{direction}[0].{end}.services: ")


def test_a_global_policy_names_the_namespace_of_the_service() -> None:
    compiler = Compiler(to_service(""))
    assert "needs a name and a namespace" in compiler.statuses["globalnetworkpolicy/to"].faults[0]
