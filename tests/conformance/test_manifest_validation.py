"""Calico's own tables of what its validator accepts and refuses, for the kinds and fields that exist here.

Where Calico accepts fields that nothing here carries out, they must be refused for that reason (`UNSUPPORTED`).

Cases of kinds that cannot be read yet are skipped (`TYPES` names those that can); every other case is judged.
"""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.manifests import Accepted, Rejected, calico_rules, read_object
from tests.support.manifests import outcome_of
from tests.support.manifests_conformance import Case, cases


def _whole(kind: str) -> Any:
    return lambda value: (kind, value)


def _spec(kind: str) -> Any:
    return lambda value: (kind, {"metadata": {"name": "default"}, "spec": value})


def _rule(value: Any) -> tuple[str, dict[str, Any]]:
    return "GlobalNetworkPolicy", {"metadata": {"name": "default"}, "spec": {"ingress": [value]}}


def _filter(spec: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "BGPFilter", {"metadata": {"name": "default"}, "spec": spec}


TYPES = {
    "v3.IPPool": _whole("IPPool"),
    "v3.IPPoolSpec": _spec("IPPool"),
    "v3.IPReservation": _whole("IPReservation"),
    "v3.NetworkPolicy": _whole("NetworkPolicy"),
    "v3.GlobalNetworkPolicy": _whole("GlobalNetworkPolicy"),
    "v3.FelixConfiguration": _whole("FelixConfiguration"),
    "v3.FelixConfigurationSpec": _spec("FelixConfiguration"),
    "v3.BGPConfiguration": _whole("BGPConfiguration"),
    "v3.BGPConfigurationSpec": _spec("BGPConfiguration"),
    "v3.BGPPeer": _whole("BGPPeer"),
    "v3.BGPPeerSpec": _spec("BGPPeer"),
    "v3.BGPFilter": _whole("BGPFilter"),
    "v3.BGPFilterRuleV4": lambda value: _filter({"importV4": [value]}),
    "v3.BGPFilterRuleV6": lambda value: _filter({"importV6": [value]}),
    "v3.BGPFilterOperation": lambda value: _filter({"importV4": [{"action": "Accept", "operations": [value]}]}),
    "internalapi.NodeSpec": _spec("Node"),
    "internalapi.NodeStatus": lambda value: ("Node", {"metadata": {"name": "default"}, "status": value}),
    "v3.Rule": _rule,
    "v3.EntityRule": lambda value: _rule({"action": "Allow", "protocol": "TCP", "source": value}),
    "v3.ICMPFields": lambda value: _rule({"action": "Allow", "protocol": "ICMP", "icmp": value}),
    "v3.StagedNetworkPolicy": _whole("StagedNetworkPolicy"),
    "v3.StagedGlobalNetworkPolicy": _whole("StagedGlobalNetworkPolicy"),
    "v3.Tier": _whole("Tier"),
    "v3.NetworkSet": _whole("NetworkSet"),
    "v3.NetworkSetSpec": _spec("NetworkSet"),
    "v3.GlobalNetworkSet": _whole("GlobalNetworkSet"),
    "v3.GlobalNetworkSetSpec": _spec("GlobalNetworkSet"),
    "v3.HostEndpoint": _whole("HostEndpoint"),
    "v3.HostEndpointSpec": _spec("HostEndpoint"),
    "v3.ProfileSpec": _spec("Profile"),
    "v3.HTTPMatch": lambda value: _rule({"action": "Allow", "protocol": "TCP", "http": value}),
    "v3.ProtoPort": lambda value: (
        "FelixConfiguration",
        {"metadata": {"name": "default"}, "spec": {"failsafeInboundHostPorts": [value]}},
    ),
    "numorstring.Protocol": lambda value: _rule({"action": "Allow", "protocol": value}),
}
"""By the type of a case: the kind and the object that its value is put into."""

UNSUPPORTED = calico_rules.UNSUPPORTED.keys()


@pytest.mark.parametrize("case", cases("calico_validation.json"))
def test_validation(case: Case) -> None:
    if case["type"] not in TYPES:
        pytest.skip(f"{case['type']} belongs to a kind that is not supported yet")
    kind, value = TYPES[case["type"]](case["object"])
    outcome = outcome_of(kind, value)
    if case["valid"] and isinstance(outcome, Rejected):
        # what nothing here could carry out is refused, with that reason and no other
        assert {fault.path.rpartition(".")[2] for fault in outcome.faults} <= UNSUPPORTED, outcome.faults
    if not case["valid"] and isinstance(outcome, Accepted):
        pytest.fail(f"accepted: {outcome}, but should not be: {case.get('message', case['description'])}")


def _kubernetes_policies(case: Case) -> bool:
    return case.get("kind") == "np"


REFUSED_BY_THE_API_SERVER = {
    "calico-conversion/np/005": "named ports that are no names",
    "calico-conversion/np/007": "an upper-case name",
    "calico-conversion/np/024": "exceptions outside of the block",
}
"""Objects of Calico's tests that Kubernetes would not have let through."""


@pytest.mark.parametrize("case", cases("calico_np.json", _kubernetes_policies))
def test_kubernetes_policies_are_read(case: Case) -> None:
    outcome = read_object({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", **case["input"]})
    assert isinstance(outcome, Accepted) is (case["id"] not in REFUSED_BY_THE_API_SERVER), outcome
