"""What a server makes of objects by the definitions: single rules with their messages, changes, status."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from bus_schemas.manifests import Accepted, read_object
from bus_schemas.policy import PolicyStatus
from services.kube_bridge import conditions
from services.kube_bridge.core import Trouble
from services.kube_bridge.mirror import Seen
from services.kube_bridge.sources import SOURCES
from services.kube_bridge.views import Condition
from tests.support.crd_server import admitted, definitions
from tortie.crds.values import decimal, form

Object = dict[str, Any]
V3 = "projectcalico.org/v3"


def of(kind: str, name: str = "x", **spec: Any) -> Object:
    return {"apiVersion": V3, "kind": kind, "metadata": {"name": name}, "spec": spec}


def faults(value: Object, before: Object | None = None) -> list[str]:
    return admitted(value, before)[1]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (of("IPPool", cidr="10.0.0.0/16", ipipMode="Always", vxlanMode="Always"), "spec.vxlanMode: cannot be used tog"),
        (of("IPPool", cidr="fd00::/64", ipipMode="Always"), "spec.ipipMode: IP in IP is not possible with IPv6"),
        (of("IPPool", cidr="fd00::/16", blockSize=26), "spec.blockSize: must be from 20 to 32"),
        (of("IPPool", cidr="10.0.0.0/28"), "spec.cidr: is smaller than one block"),
        (of("IPPool", cidr="10.0.0.0/16", allowedUses=["Tunnel"], namespaceSelector="all()"), "spec.namespaceSelector"),
        (of("BGPPeer", node="a", nodeSelector="all()"), "spec.nodeSelector: cannot be given together with node"),
        (of("BGPPeer", peerSelector="all()", asNumber=1), "spec.asNumber: cannot be given together with peerSelector"),
        (of("BGPPeer", peerIP="10.0.0.1:179", reachableBy="fd00::1"), "spec.reachableBy: must be of the family"),
        (of("BGPConfiguration", "node.a", asNumber=1), "spec: nodeToNodeMeshEnabled, asNumber"),
        (of("Tier", "kube-admin", defaultAction="Deny"), "spec: the tier kube-admin has the order 1000"),
        (of("IPAMConfiguration", "other"), ": must be called default"),
        (of("Profile", "kns.shop"), ": profiles of namespaces"),
        (of("GlobalNetworkPolicy", preDNAT=True), "spec.applyOnForward: must be true"),
        (of("StagedGlobalNetworkPolicy", stagedAction="Delete", order=0), "spec.stagedAction: nothing but tier"),
        (of("HostEndpoint", node="a"), "spec.interfaceName: is required where there are no expectedIPs"),
    ],
)
def test_rules_of_two_fields(value: Object, fault: str) -> None:
    assert [found[: len(fault)] for found in faults(value)] == [fault]
    assert not isinstance(read_object(value), Accepted)


def rule(way: str = "ingress", **fields: Any) -> Object:
    return of("GlobalNetworkPolicy", **{way: [{"action": "Allow", **fields}]})


@pytest.mark.parametrize(
    "value",
    [
        rule(destination={"ports": [80]}),
        rule(destination={"ports": ["80:90"]}),
        rule(destination={"notPorts": ["80"]}),
        rule(protocol="ICMP", source={"ports": ["http"]}),
        rule(source={"nets": ["10.0.0.0/8"]}, destination={"notNets": ["fd00::/8"]}),
        rule(ipVersion=6, source={"nets": ["10.0.0.0/8"]}),
        rule(ipVersion=4, protocol="ICMPv6"),
        rule(protocol="TCP", icmp={"type": 8}),
        rule(destination={"services": {"name": "a", "namespace": "b"}}),
        rule(source={"services": {"name": "a"}}),
        rule(source={"services": {"name": "a", "namespace": "b"}, "nets": ["10.0.0.0/8"]}),
        rule("egress", protocol="TCP", destination={"services": {"name": "a", "namespace": "b"}, "ports": [80]}),
        rule(http={"methods": ["GET"]}),
    ],
)
def test_rules_of_policies(value: Object) -> None:
    assert faults(value) != []
    assert not isinstance(read_object(value), Accepted)


@pytest.mark.parametrize(
    "value",
    [
        rule(destination={"ports": ["http"]}),
        rule(protocol=6, destination={"ports": [80, "90:100", "http"]}),
        rule(protocol="17", destination={"ports": ["53"]}),
        rule(ipVersion=6, source={"nets": ["fd00::/8"]}, destination={"notNets": ["fd00::1"]}),
        rule(protocol="58", icmp={"type": 128, "code": 0}),
        rule("egress", destination={"services": {"name": "a", "namespace": "b"}}),
        rule(source={"namespaceSelector": "global()"}),
    ],
)
def test_policies_as_people_write_them(value: Object) -> None:
    assert faults(value) == []
    assert isinstance(read_object(value), Accepted)


POOL = {"cidr": "10.1.0.0/16", "blockSize": 26}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"natOutgoing": True}, ""),
        ({"cidr": "10.0.0.0/8"}, ""),
        ({"cidr": "10.1.0.0/17"}, "spec.cidr: a pool can only grow"),
        ({"cidr": "fd00::/16", "blockSize": 122}, "spec.cidr: a pool can only grow"),
        ({"blockSize": 0}, ""),
        ({"blockSize": 27}, "spec.blockSize: cannot be changed"),
        ({"allowedUses": ["LoadBalancer"]}, "spec.allowedUses: LoadBalancer cannot be added"),
    ],
)
def test_a_pool_that_changes(change: Object, fault: str) -> None:
    before, _ = admitted(of("IPPool", **POOL))
    found = faults(of("IPPool", **{**POOL, **change}), before)
    assert [one[: len(fault)] for one in found][:1] == ([fault] if fault else [])


def test_a_null_is_no_field_and_an_unknown_field_of_a_policy_is_lost() -> None:
    kept, found = admitted(of("NetworkPolicy", tier=None, ingress=None, selektor="all()"))
    assert (kept["spec"], found) == ({"tier": "default"}, [])


def test_parameters_that_nobody_knows_are_kept_for_the_bridge_to_name() -> None:
    kept, found = admitted(of("FelixConfiguration", "default", someDayThere=True, floatingIPs="Enabled"))
    assert (kept["spec"], found) == ({"someDayThere": True, "floatingIPs": "Enabled"}, [])


@pytest.mark.parametrize(
    "source", [s for s in SOURCES if (s.api_version, s.kind) in definitions()], ids=lambda s: s.name
)
def test_the_conditions_that_the_bridge_writes_are_kept(source: Any) -> None:
    """All of them at once, beside one of another program that says less than ours do."""
    foreign = Condition("Theirs", "Unknown")
    resource = read_object(POOL_OBJECT)
    assert isinstance(resource, Accepted)
    seen = Seen(source, ("", "x"), ("", "x"), "u", "7", 3, resource.resource, conditions=(foreign,))
    trouble = Trouble(source, ("", "x"), "u", "invalid", ("spec: wrong",), "what it was before is in force")
    status = PolicyStatus(policy="p", faults=("x" * 3000,))
    for said in (
        conditions.conditions(seen, None, None, is_policy=True),
        conditions.conditions(seen, trouble, None, is_policy=True),
        conditions.conditions(seen, None, status, is_policy=True),
    ):
        patch = conditions.conditions_patch(seen, said, "2026-01-02T03:04:05Z")
        assert patch is not None
        value = {"apiVersion": source.api_version, "kind": source.kind, "metadata": {"name": "default"}}
        written = {**value, **_least(source.kind), "status": msgspec.to_builtins(patch["status"])}
        kept, found = admitted(written)
        assert found == []
        assert kept["status"] == written["status"]


POOL_OBJECT = of("IPPool", cidr="10.0.0.0/16")


def _least(kind: str) -> Object:
    """What an object must have."""
    spec: Object = {"IPPool": {"cidr": "10.0.0.0/16"}, "HostEndpoint": {"node": "a", "interfaceName": "*"}}
    return {"spec": spec.get(kind, {})}


def test_numbers_in_text() -> None:
    for high in (9, 10, 255, 1024, 65535):
        regex = re.compile(form(decimal(high))["pattern"])
        said = [number for number in range(high * 2 + 20) if regex.search(str(number))]
        assert said == list(range(1, high + 1))
    largest = re.compile(form(decimal(2**32 - 1))["pattern"])
    assert largest.search("4294967295")
    assert not largest.search("4294967296")
