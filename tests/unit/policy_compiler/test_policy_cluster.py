"""ClusterNetworkPolicy and its predecessors: what they are compiled to, where they stand, and what closes."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.policy import Match, PortRange, Rule
from bus_schemas.resources import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    KubernetesNetworkPolicy,
    Node,
)
from services.policy_compiler import translate_cluster
from services.policy_compiler.policies import Policy
from services.policy_compiler.selection import identity
from tests.support.policy_changes import Compiler, absent, plugged, resource, stored, tiers
from tests.support.policy_worlds import namespace, pod

K8S = 'projectcalico.org/orchestrator == "k8s"'
SOME_NAMESPACE = "has(projectcalico.org/namespace)"
EVERYBODY = {"namespaces": {}}
RED = {"namespaces": {"matchLabels": {"team": "red"}}}
RED_PODS = f'({K8S} && pcns.team == "red")'


def spec(**more: Any) -> dict[str, Any]:
    return {"subject": EVERYBODY, **more}


def translated(**more: Any) -> Policy:
    translation = translate_cluster.translate(resource(ClusterNetworkPolicy, "p", spec(**more)))
    assert translation.faults == ()
    assert translation.policy is not None
    return translation.policy


def egress(*ports: dict[str, Any], peer: dict[str, Any], action: str = "Accept") -> tuple[Rule, ...]:
    policy = translated(egress=[{"action": action, "peers": [peer], "ports": list(ports)}])
    assert policy.rules is not None
    return policy.rules.egress


@pytest.mark.parametrize(
    ("subject", "canonical"),
    [
        (EVERYBODY, f"({K8S} && {SOME_NAMESPACE})"),
        (RED, RED_PODS),
        (
            {"pods": {"namespaceSelector": RED["namespaces"], "podSelector": {"matchLabels": {"app": "web"}}}},
            f'(({K8S} && app == "web") && pcns.team == "red")',
        ),
        ({"pods": {}}, f"({K8S} && {SOME_NAMESPACE})"),
    ],
)
def test_subjects(subject: dict[str, Any], canonical: str) -> None:
    policy = translated(subject=subject, ingress=[{"action": "Deny", "peers": [RED]}])
    assert policy.subject is not None
    assert policy.subject.canonical == canonical


def test_actions_names_and_places() -> None:
    rules = [{"action": action, "name": action.lower(), "peers": [RED]} for action in ("Accept", "Deny", "Pass")]
    policy = translated(ingress=rules)
    assert policy.rules is not None
    source = Match(groups=(identity(RED_PODS),))
    assert policy.rules.ingress == (
        Rule(action="allow", source=source, index=0, name="accept"),
        Rule(action="deny", source=source, index=1, name="deny"),
        Rule(action="pass", source=source, index=2, name="pass"),
    )


def test_a_direction_without_rules_is_not_governed() -> None:
    policy = translated(egress=[{"action": "Pass", "peers": [RED]}])
    assert policy.attaching is not None
    assert policy.attaching.hooks == {"egress"}


def test_ports_by_protocol() -> None:
    given = (
        {"protocol": "TCP", "first": 80, "last": 80},
        {"protocol": "UDP"},
        {"protocol": "TCP", "first": 81, "last": 90},
        {"protocol": "SCTP", "first": 5},
    )
    assert [(rule.protocol, rule.destination.ports) for rule in egress(*given, peer=RED)] == [
        (6, (PortRange(first=80, last=90),)),
        (17, ()),
        (132, (PortRange(first=5, last=5),)),
    ]


def test_a_protocol_with_a_port_and_without_is_every_port() -> None:
    (rule,) = egress({"protocol": "TCP", "first": 80}, {"protocol": "TCP"}, {"protocol": "TCP", "first": 1}, peer=RED)
    assert rule.destination.ports == ()


def test_named_ports_belong_to_the_destination() -> None:
    named = [{"name": "http"}]
    policy = translated(
        ingress=[{"action": "Accept", "peers": [RED], "ports": named}],
        egress=[{"action": "Accept", "peers": [RED, {"networks": ["10.0.0.0/8"]}, {"nodes": {}}], "ports": named}],
    )
    assert policy.rules is not None
    (ingress,), (egress,) = policy.rules.ingress, policy.rules.egress
    assert ingress.destination.named_ports == (identity(f"({K8S} && {SOME_NAMESPACE}) :http"),)
    assert egress.destination == Match(groups=(identity(RED_PODS),), named_ports=(identity(f"{RED_PODS} :http"),))


def test_networks_of_both_families_make_two_rules() -> None:
    assert egress(peer={"networks": ["10.0.0.1/8", "::/0", "0.0.0.0/0"]}) == (
        Rule(action="allow", ip_version=4, destination=Match(nets=("10.0.0.0/8", "0.0.0.0/0"))),
        Rule(action="allow", ip_version=6, destination=Match(nets=("::/0",))),
    )


def test_the_older_kinds_stand_in_the_same_tiers() -> None:
    rule = [{"action": "Deny", "peers": [RED]}]
    compiler = Compiler(
        namespace("red"),
        *plugged("red/web", "10.0.0.1"),
        stored(ClusterNetworkPolicy, "b", spec(priority=7, ingress=rule)),
        stored(AdminNetworkPolicy, "a", spec(priority=7, ingress=rule)),
        stored(AdminNetworkPolicy, "b", spec(priority=7, ingress=rule)),
        stored(AdminNetworkPolicy, "z", spec(priority=6, ingress=rule)),
        stored(BaselineAdminNetworkPolicy, "default", spec(tier="Baseline", ingress=rule)),
        stored(ClusterNetworkPolicy, "base", spec(tier="Baseline", priority=1, ingress=rule)),
        stored(KubernetesNetworkPolicy, "red/n"),
    )
    assert tiers(compiler.pods["red/web"].ingress) == [
        (
            "kube-admin",
            ["adminnetworkpolicy/z", "adminnetworkpolicy/a", "adminnetworkpolicy/b", "clusternetworkpolicy/b"],
            "pass",
        ),
        ("default", ["k8snetworkpolicy/red/n"], "deny"),
        ("kube-baseline", ["baselineadminnetworkpolicy/default", "clusternetworkpolicy/base"], "pass"),
    ]


UNREADABLE: list[tuple[dict[str, Any], str]] = [
    ({}, "exactly one"),
    ({"namespaces": {}, "pods": {}}, "exactly one"),
    ({"namespaces": {}, "networks": ["10.0.0.0/8"]}, "exactly one"),
    ({"nodes": {}, "networks": ["10.0.0.0/8"]}, "exactly one"),
    ({"networks": ["10.0.0.0/99"]}, "is not a CIDR"),
    ({"domainNames": ["example.org."]}, "domainNames"),
]


@pytest.mark.parametrize(("peer", "reason"), UNREADABLE)
@pytest.mark.parametrize("action", ["Accept", "Deny", "Pass"])
def test_a_peer_that_cannot_be_read(peer: dict[str, Any], reason: str, action: str) -> None:
    """An Accept is left out; the others deny everything."""
    rule = {"action": action, "peers": [RED, peer], "ports": [{"protocol": "TCP", "first": 80}]}
    policy, (fault,) = translate_cluster.translate(resource(ClusterNetworkPolicy, "p", spec(egress=[rule])))
    assert fault.startswith("spec.egress[0]: ")
    assert reason in fault
    assert policy is not None
    assert policy.rules is not None
    assert policy.rules.egress == (() if action == "Accept" else (Rule(action="deny", never=fault),))


@pytest.mark.parametrize(
    "port",
    [
        {"protocol": "UDP", "first": 40, "last": 20},
        {"protocol": "UDP", "first": 70000},
        {"protocol": "UDP", "last": 20},
        {"first": 20},
        {"name": "http", "protocol": "TCP"},
        {"name": "80"},
        {"name": "no name at all"},
    ],
)
@pytest.mark.parametrize("action", ["Accept", "Deny", "Pass"])
def test_a_port_that_cannot_be_read(port: dict[str, Any], action: str) -> None:
    """The same."""
    rule = {"action": action, "peers": [RED], "ports": [{"protocol": "TCP", "first": 80}, port]}
    policy, (fault,) = translate_cluster.translate(resource(ClusterNetworkPolicy, "p", spec(ingress=[rule])))
    assert policy is not None
    assert policy.rules is not None
    assert policy.rules.ingress == (() if action == "Accept" else (Rule(action="deny", never=fault),))


def test_a_rule_without_peers_is_none_that_can_be_read() -> None:
    rules = [{"action": action, "peers": []} for action in ("Deny", "Accept")]
    policy, (fault, _) = translate_cluster.translate(resource(ClusterNetworkPolicy, "p", spec(ingress=rules)))
    assert policy is not None
    assert policy.rules is not None
    assert policy.rules.ingress == (Rule(action="deny", never=fault),)


@pytest.mark.parametrize("peer", [{"nodes": {}}, {"networks": ["10.0.0.0/8"]}])
def test_nodes_and_networks_are_no_peers_of_ingress(peer: dict[str, Any]) -> None:
    rule = {"action": "Deny", "peers": [peer]}
    policy, (fault,) = translate_cluster.translate(resource(ClusterNetworkPolicy, "p", spec(ingress=[rule])))
    assert policy is not None
    assert policy.rules is not None
    assert policy.rules.ingress == (Rule(action="deny", never=fault),)


@pytest.mark.parametrize("subject", [{}, {"namespaces": {}, "pods": {}}])
def test_a_subject_that_cannot_be_read_may_be_any_pod(subject: dict[str, Any]) -> None:
    """What the rules cover is closed to all of them."""
    rules = [{"action": action, "peers": [{"namespaces": {}}]} for action in ("Accept", "Deny", "Pass")]
    policy, (fault,) = translate_cluster.translate(
        resource(ClusterNetworkPolicy, "p", {"subject": subject, "ingress": rules})
    )
    assert fault.startswith("spec.subject: ")
    assert policy is not None
    assert policy.subject is not None
    assert policy.subject.canonical == 'projectcalico.org/orchestrator == "k8s"'
    assert policy.rules is not None
    assert [(rule.action, rule.never, len(rule.source.groups)) for rule in policy.rules.ingress] == [
        ("deny", fault, 1)
    ] * 3


# --- nodes


def node(name: str, *addresses: str, **labels: str) -> Any:
    given = [{"address": address, "type": "InternalIP"} for address in addresses]
    return stored(Node, name, {"addresses": [*given, {"address": name, "type": "Hostname"}]}, labels=labels)


def test_nodes_are_members_by_their_labels() -> None:
    to_nodes = {"action": "Deny", "peers": [{"nodes": {"matchLabels": {"os": "linux"}}}]}
    compiler = Compiler(
        namespace("red"),
        *plugged("red/web", "10.0.0.1", os="linux"),
        node("n1", "192.0.2.1", "2001:db8::1", os="linux"),
        node("n2", "192.0.2.2", os="other"),
        stored(ClusterNetworkPolicy, "p", spec(egress=[to_nodes])),
    )
    group = 'nodes: os == "linux"'
    assert compiler.members(group) == {"192.0.2.1", "2001:db8::1"}
    assert compiler.change(node("n2", "192.0.2.2", os="linux")) == {f"group {group}"}
    assert compiler.members(group) == {"192.0.2.1", "192.0.2.2", "2001:db8::1"}
    assert compiler.change(node("n3", "192.0.2.3", os="other")) == set()
    assert compiler.change(absent(Node, "n1")) == {f"group {group}"}
    assert compiler.change(node("n2", "192.0.2.9", os="linux")) == {f"group {group}"}
    assert compiler.members(group) == {"192.0.2.9"}
    assert compiler.change(absent(ClusterNetworkPolicy, "p")) == {
        f"-group {group}",
        "-rules clusternetworkpolicy/p",
        "pod red/web",
    }


def test_an_address_of_a_node_with_its_prefix() -> None:
    to_nodes = {"action": "Deny", "peers": [{"nodes": {}}]}
    compiler = Compiler(
        stored(Node, "n", {"bgp": {"ipv4Address": "192.0.2.1/24"}, "addresses": [{"address": "nonsense", "type": ""}]}),
        stored(ClusterNetworkPolicy, "p", spec(egress=[to_nodes])),
    )
    assert compiler.members("nodes: all()") == {"192.0.2.1"}
    assert compiler.statuses["node/n"].faults == ("spec.addresses[0]: 'nonsense' is no address",)


def test_pods_of_the_host_network_are_neither_subjects_nor_peers() -> None:
    rule = {"action": "Accept", "peers": [RED]}
    compiler = Compiler(
        namespace("red", team="red"),
        *plugged("red/web", "10.0.0.1"),
        *plugged("red/host", "192.0.2.1"),
        pod("red/host", host_network=True),
        stored(ClusterNetworkPolicy, "p", spec(ingress=[rule])),
    )
    assert compiler.members(RED_PODS) == {"10.0.0.1"}
    assert set(compiler.pods) == {"red/web"}
