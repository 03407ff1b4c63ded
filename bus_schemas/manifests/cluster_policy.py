"""Reading policy.networking.k8s.io: ClusterNetworkPolicy (v1alpha2), AdminNetworkPolicy and BaselineAdminNetworkPolicy
(v1alpha1), as their CRDs validate them.

An administrator's policy decides before everybody else's, so every unknown field is refused, and a rule of which a part
cannot be carried out is refused whole. https://network-policy-api.sigs.k8s.io/reference/spec/
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bus_schemas.manifests.addresses import network
from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown, said
from bus_schemas.manifests.ports import PORT_PROTOCOLS, kubernetes_port, port_number
from bus_schemas.manifests.selections import label_selector
from bus_schemas.resources.cluster_policy import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    ClusterNetworkPolicySpec,
    ClusterPolicyPeer,
    ClusterPolicyPort,
    ClusterPolicyRule,
    ClusterPolicySubject,
    NamespacedPods,
)
from bus_schemas.resources.metadata import LabelSelector

MAX_NETWORKS = 25
MAX_PRIORITY = 1000
MAX_RULE_NAME = 100

Action = Literal["Accept", "Deny", "Pass"]
Tier = Literal["Admin", "Baseline"]

_TIERS: tuple[Tier, Tier] = ("Admin", "Baseline")
_ACTIONS: dict[str, Action] = {"Accept": "Accept", "Deny": "Deny", "Pass": "Pass"}
_ADMIN_ACTIONS: dict[str, Action] = {"Allow": "Accept", "Deny": "Deny", "Pass": "Pass"}
_BASELINE_ACTIONS: dict[str, Action] = {"Allow": "Accept", "Deny": "Deny"}
_ENVELOPE = Envelope(namespaced=False)


@dataclass(frozen=True, slots=True)
class _Version:
    """In what the versions of the API differ."""

    actions: dict[str, Action]
    ports: Callable[[Fields, int], tuple[ClusterPolicyPort, ...]]
    most: int
    """Rules of a direction, peers of a rule, ports of a rule."""
    namespaces_may_be_left_out: bool = False
    """`pods` without a namespaceSelector: pods of every namespace."""


def cluster_network_policy(document: Fields) -> ClusterNetworkPolicy:
    meta = metadata(document, _ENVELOPE)
    fields = document.fields("spec")
    spec = ClusterNetworkPolicySpec(
        tier=fields.required("tier", lambda at: at.choice(_TIERS), "Admin"),
        priority=fields.required("priority", _priority, 0),
        subject=_subject(fields, _NEWEST),
        ingress=_rules(fields, "ingress", _NEWEST),
        egress=_rules(fields, "egress", _NEWEST),
    )
    fields.close(Unknown.REFUSED)
    return ClusterNetworkPolicy(metadata=meta, spec=spec)


def admin_network_policy(document: Fields) -> AdminNetworkPolicy:
    meta = metadata(document, _ENVELOPE)
    fields = document.fields("spec")
    spec = ClusterNetworkPolicySpec(
        tier="Admin",
        priority=fields.required("priority", _priority, 0),
        subject=_subject(fields, _ADMIN),
        ingress=_rules(fields, "ingress", _ADMIN),
        egress=_rules(fields, "egress", _ADMIN),
    )
    fields.close(Unknown.REFUSED)
    return AdminNetworkPolicy(metadata=meta, spec=spec)


def baseline_admin_network_policy(document: Fields) -> BaselineAdminNetworkPolicy:
    meta = metadata(document, _ENVELOPE)
    if meta.name and meta.name != "default":
        place = document.fields("metadata").place("name")
        place.fault(f"must be 'default', the only one that there is, not {said(meta.name)}")
    fields = document.fields("spec")
    spec = ClusterNetworkPolicySpec(
        tier="Baseline",
        subject=_subject(fields, _BASELINE),
        ingress=_rules(fields, "ingress", _BASELINE),
        egress=_rules(fields, "egress", _BASELINE),
    )
    fields.close(Unknown.REFUSED)
    return BaselineAdminNetworkPolicy(metadata=meta, spec=spec)


def _priority(at: At) -> int:
    return at.integer(0, MAX_PRIORITY)


def _subject(fields: Fields, version: _Version) -> ClusterPolicySubject:
    return fields.required("subject", lambda at: _one_subject(at.fields(), version), ClusterPolicySubject())


def _one_subject(fields: Fields, version: _Version) -> ClusterPolicySubject:
    subject = ClusterPolicySubject(
        namespaces=fields.maybe("namespaces", label_selector),
        pods=fields.maybe("pods", lambda at: _pods(at.fields(), version)),
    )
    _exactly_one(fields, ("namespaces", "pods"))
    fields.close(Unknown.REFUSED)
    return subject


def _pods(fields: Fields, version: _Version) -> NamespacedPods:
    if version.namespaces_may_be_left_out:
        namespaces = fields.read("namespaceSelector", label_selector, LabelSelector())
    else:
        namespaces = fields.required("namespaceSelector", label_selector, LabelSelector())
    read = NamespacedPods(
        namespace_selector=namespaces,
        pod_selector=fields.required("podSelector", label_selector, LabelSelector()),
    )
    fields.close(Unknown.REFUSED)
    return read


def _rules(fields: Fields, name: str, version: _Version) -> tuple[ClusterPolicyRule, ...]:
    peers = "from" if name == "ingress" else "to"
    return tuple(_rule(at.fields(), peers, version) for at in fields.items(name, most=version.most))


def _rule(fields: Fields, peers: str, version: _Version) -> ClusterPolicyRule:
    items = fields.items(peers, most=version.most)
    found = tuple(_peer(at.fields(), version, egress=peers == "to") for at in items)
    if not found:
        fields.place(peers).fault("must name at least one peer")
    rule = ClusterPolicyRule(
        action=version.actions[fields.required("action", lambda at: at.choice(tuple(version.actions)), "Deny")],
        name=fields.read("name", _rule_name, ""),
        peers=found,
        ports=version.ports(fields, version.most),
    )
    if any(port.name for port in rule.ports):
        for at, peer in zip(items, found, strict=True):
            if peer.nodes is not None or peer.networks:
                at.fault("cannot be used together with a named port: only pods name theirs")
    fields.close(Unknown.REFUSED)
    return rule


def _rule_name(at: At) -> str:
    name = at.string()
    if len(name) > MAX_RULE_NAME:
        at.fault(f"must be at most {MAX_RULE_NAME} characters")
    return name


def _peer(fields: Fields, version: _Version, *, egress: bool) -> ClusterPolicyPeer:
    known = ("namespaces", "pods", "nodes", "networks", "domainNames") if egress else ("namespaces", "pods")
    peer = ClusterPolicyPeer(
        namespaces=fields.maybe("namespaces", label_selector),
        pods=fields.maybe("pods", lambda at: _pods(at.fields(), version)),
        nodes=fields.maybe("nodes", label_selector) if egress else None,
        networks=_networks(fields) if egress else (),
    )
    if egress and (at := fields.take("domainNames")) is not None:
        at.fault("is not supported: addresses are all that a packet tells, and names lead to others every minute")
    _exactly_one(fields, known)
    fields.close(Unknown.REFUSED)
    return peer


def _networks(fields: Fields) -> tuple[str, ...]:
    items = fields.items("networks", most=MAX_NETWORKS)
    if fields.has("networks") and not items:
        fields.place("networks").fault("must name at least one network")
    return tuple(str(found) for at in items if (found := network(at)) is not None)


def _exactly_one(fields: Fields, names: tuple[str, ...]) -> None:
    given = [name for name in names if fields.has(name)]
    if len(given) != 1:
        fields.at.fault(f"must have exactly one of {', '.join(names)}, not {' and '.join(given) or 'none'}")


# --- ports: v1alpha2


_SECTIONS: dict[str, Literal["TCP", "UDP", "SCTP"]] = {"tcp": "TCP", "udp": "UDP", "sctp": "SCTP"}


def _protocols(fields: Fields, most: int) -> tuple[ClusterPolicyPort, ...]:
    items = fields.items("protocols", most=most)
    if fields.has("protocols") and not items:
        fields.place("protocols").fault("must name at least one protocol; leave the field out for all of them")
    return tuple(_protocol(at.fields()) for at in items)


def _protocol(fields: Fields) -> ClusterPolicyPort:
    _exactly_one(fields, (*_SECTIONS, "destinationNamedPort"))
    read = ClusterPolicyPort(name=fields.read("destinationNamedPort", _port_name, ""))
    for section, protocol in _SECTIONS.items():
        at = fields.take(section)
        if at is not None:
            inner = at.fields()
            ends = inner.maybe("destinationPort", lambda port: _destination(port.fields()))
            inner.close(Unknown.REFUSED)
            first, last = ends or (None, None)
            read = ClusterPolicyPort(protocol=protocol, first=first, last=last)
    fields.close(Unknown.REFUSED)
    return read


def _destination(fields: Fields) -> tuple[int | None, int | None]:
    _exactly_one(fields, ("number", "range"))
    first = last = fields.maybe("number", port_number)
    at = fields.take("range")
    if at is not None:
        inner = at.fields()
        first, last = _range(inner)
        inner.close(Unknown.REFUSED)
    fields.close(Unknown.REFUSED)
    return first, last


def _range(fields: Fields) -> tuple[int, int]:
    first = fields.required("start", port_number, 1)
    last = fields.required("end", port_number, 65535)
    if last <= first:
        fields.place("end").fault(f"must be greater than the start, {first}")
    return first, last


def _port_name(at: At) -> str:
    if not isinstance(at.value, str):
        at.fault(f"must be the name of a port, not {said(at.value)}")
        return ""
    return str(kubernetes_port(at))


# --- ports: v1alpha1


def _ports(fields: Fields, most: int) -> tuple[ClusterPolicyPort, ...]:
    return tuple(_port(at.fields()) for at in fields.items("ports", most=most))


def _port(fields: Fields) -> ClusterPolicyPort:
    _exactly_one(fields, ("portNumber", "namedPort", "portRange"))
    read = ClusterPolicyPort(name=fields.read("namedPort", _port_name, ""))
    if (at := fields.take("portNumber")) is not None:
        inner = at.fields()
        number = inner.required("port", port_number, 1)
        protocol = inner.choice("protocol", PORT_PROTOCOLS, "TCP")
        read = ClusterPolicyPort(protocol=protocol, first=number, last=number)
        inner.close(Unknown.REFUSED)
    if (at := fields.take("portRange")) is not None:
        inner = at.fields()
        protocol = inner.choice("protocol", PORT_PROTOCOLS, "TCP")
        first, last = _range(inner)
        read = ClusterPolicyPort(protocol=protocol, first=first, last=last)
        inner.close(Unknown.REFUSED)
    fields.close(Unknown.REFUSED)
    return read


_NEWEST = _Version(_ACTIONS, _protocols, most=25, namespaces_may_be_left_out=True)
_ADMIN = _Version(_ADMIN_ACTIONS, _ports, most=100)
_BASELINE = _Version(_BASELINE_ACTIONS, _ports, most=100)
