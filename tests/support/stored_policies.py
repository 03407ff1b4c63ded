"""Policies of other projects' tables as they would be if nobody had checked them.

The authors feed their own engines with objects that no API server would take (a range that ends behind the last port, a
peer without a selector), and say what must follow. `applied` reads a manifest as it would be applied and, where that is
refused, as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from bus_schemas.manifests import Accepted, read_object
from bus_schemas.resources import (
    ClusterNetworkPolicy,
    GlobalNetworkPolicy,
    KubernetesNetworkPolicy,
    LabelSelector,
    Metadata,
    NetworkPolicy,
    Resource,
)
from bus_schemas.resources.cluster_policy import (
    ClusterNetworkPolicySpec,
    ClusterPolicyPeer,
    ClusterPolicyPort,
    ClusterPolicyRule,
    ClusterPolicySubject,
    NamespacedPods,
)

KUBERNETES = "networking.k8s.io/v1"
CLUSTER = "policy.networking.k8s.io/v1alpha2"
ACTIONS = frozenset({"Accept", "Deny", "Pass"})
"""Of cluster policies."""


def applied(manifest: Mapping[str, Any]) -> Resource:
    outcome = read_object(manifest)
    return outcome.resource if isinstance(outcome, Accepted) else stored(manifest)


def stored(manifest: Mapping[str, Any]) -> Resource:
    """Kinds of policy alone."""
    group = str(manifest["apiVersion"]).partition("/")[0]
    match group, manifest["kind"]:
        case "networking.k8s.io", "NetworkPolicy":
            return _as_it_is(KubernetesNetworkPolicy, manifest)
        case _, "NetworkPolicy":
            return _as_it_is(NetworkPolicy, manifest)
        case _, "GlobalNetworkPolicy":
            return _as_it_is(GlobalNetworkPolicy, manifest)
        case _, "ClusterNetworkPolicy":
            return _cluster(manifest)
    raise ValueError(f"{manifest['kind']} of {manifest['apiVersion']} is no policy")


def _as_it_is(kind: type[Resource], manifest: Mapping[str, Any]) -> Resource:
    metadata = {key: value for key, value in manifest["metadata"].items() if value is not None}
    spec = dict(manifest.get("spec") or {})
    if kind is not KubernetesNetworkPolicy and "types" not in spec:
        # Calico's defaulting
        types = [way for way, rules in (("Ingress", "ingress"), ("Egress", "egress")) if spec.get(rules)]
        spec["types"] = types or ["Ingress"]
    return msgspec.convert({"type": kind.__struct_config__.tag, "metadata": metadata, "spec": spec}, kind, strict=False)


def _cluster(manifest: Mapping[str, Any]) -> ClusterNetworkPolicy:
    spec = manifest["spec"]
    subject = _peer(spec["subject"])
    return ClusterNetworkPolicy(
        metadata=Metadata(name=manifest["metadata"]["name"]),
        spec=ClusterNetworkPolicySpec(
            tier=spec["tier"],
            priority=spec["priority"],
            subject=ClusterPolicySubject(namespaces=subject.namespaces, pods=subject.pods),
            ingress=tuple(_rules(spec.get("ingress"), "from")),
            egress=tuple(_rules(spec.get("egress"), "to")),
        ),
    )


def _rules(given: Iterable[Mapping[str, Any]] | None, peers: str) -> Iterator[ClusterPolicyRule]:
    """Without those whose action is none: no word could be stored for them."""
    return (_rule(rule, peers) for rule in given or () if rule["action"] in ACTIONS)


def _rule(raw: Mapping[str, Any], peers: str) -> ClusterPolicyRule:
    return ClusterPolicyRule(
        action=raw["action"],
        name=raw.get("name", ""),
        peers=tuple(map(_peer, raw[peers])),
        ports=tuple(map(_port, raw.get("protocols") or ())),
    )


def _peer(raw: Mapping[str, Any]) -> ClusterPolicyPeer:
    def labels(key: str) -> LabelSelector | None:
        return msgspec.convert(raw[key], LabelSelector) if raw.get(key) is not None else None

    pods = raw.get("pods")
    return ClusterPolicyPeer(
        namespaces=labels("namespaces"),
        pods=None if pods is None else msgspec.convert(pods, NamespacedPods),
        nodes=labels("nodes"),
        networks=tuple(raw.get("networks") or ()),
        domain_names=tuple(raw.get("domainNames") or ()),
    )


def _port(raw: Mapping[str, Any]) -> ClusterPolicyPort:
    if "destinationNamedPort" in raw:
        return ClusterPolicyPort(name=raw["destinationNamedPort"])
    ((protocol, within),) = raw.items()
    port = (within or {}).get("destinationPort") or {}
    between = port.get("range") or {"start": port.get("number"), "end": port.get("number")}
    return msgspec.convert(
        {"protocol": protocol.upper(), "first": between["start"], "last": between["end"]}, ClusterPolicyPort
    )
