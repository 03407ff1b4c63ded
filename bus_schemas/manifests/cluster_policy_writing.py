"""policy.networking.k8s.io resources in the shape of their manifests; the inverse of `cluster_policy`."""

from __future__ import annotations

from typing import Any

import msgspec

from bus_schemas.resources.cluster_policy import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    ClusterPolicyPeer,
    ClusterPolicyPort,
    ClusterPolicyRule,
    NamespacedPods,
)
from bus_schemas.resources.metadata import LabelSelector

ClusterPolicy = ClusterNetworkPolicy | AdminNetworkPolicy | BaselineAdminNetworkPolicy


def spec_of(policy: ClusterPolicy) -> dict[str, Any]:
    spec, newest = policy.spec, isinstance(policy, ClusterNetworkPolicy)
    written: dict[str, Any] = {}
    for name, peers, rules in (("egress", "to", spec.egress), ("ingress", "from", spec.ingress)):
        if rules:
            written[name] = [_rule(rule, peers, newest=newest) for rule in rules]
    if not isinstance(policy, BaselineAdminNetworkPolicy):
        written["priority"] = spec.priority
    written["subject"] = _peer(ClusterPolicyPeer(namespaces=spec.subject.namespaces, pods=spec.subject.pods))
    if newest:
        written["tier"] = spec.tier
    return written


def _rule(rule: ClusterPolicyRule, peers: str, *, newest: bool) -> dict[str, Any]:
    action = "Allow" if rule.action == "Accept" and not newest else rule.action
    written: dict[str, Any] = {"action": action}
    if rule.name:
        written["name"] = rule.name
    written[peers] = [_peer(peer) for peer in rule.peers]
    if rule.ports:
        written["protocols" if newest else "ports"] = [_protocol(p) if newest else _port(p) for p in rule.ports]
    return written


def _peer(peer: ClusterPolicyPeer) -> dict[str, Any]:
    if peer.namespaces is not None:
        return {"namespaces": _selector(peer.namespaces)}
    if peer.pods is not None:
        return {"pods": _pods(peer.pods)}
    if peer.nodes is not None:
        return {"nodes": _selector(peer.nodes)}
    if peer.networks:
        return {"networks": list(peer.networks)}
    return {}


def _pods(pods: NamespacedPods) -> dict[str, Any]:
    return {"namespaceSelector": _selector(pods.namespace_selector), "podSelector": _selector(pods.pod_selector)}


def _selector(selector: LabelSelector) -> Any:
    return msgspec.json.decode(msgspec.json.encode(selector))


def _protocol(port: ClusterPolicyPort) -> dict[str, Any]:
    if port.protocol is None:
        return {"destinationNamedPort": port.name}
    if port.first is None:
        return {port.protocol.lower(): {}}
    number = {"number": port.first} if port.first == port.last else {"range": {"start": port.first, "end": port.last}}
    return {port.protocol.lower(): {"destinationPort": number}}


def _port(port: ClusterPolicyPort) -> dict[str, Any]:
    if port.protocol is None:
        return {"namedPort": port.name}
    if port.first == port.last:
        return {"portNumber": {"port": port.first, "protocol": port.protocol}}
    return {"portRange": {"end": port.last, "protocol": port.protocol, "start": port.first}}
