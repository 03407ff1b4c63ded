"""Reading networking.k8s.io/v1 NetworkPolicy as the API server does: its defaults, its validation, no unknown field.

An unknown field in a policy is a misspelt one, and what it was meant to restrict would be open: it is always refused.
"""

from __future__ import annotations

from typing import Any, Literal

from bus_schemas.manifests.addresses import network, strictly_inside
from bus_schemas.manifests.calico_policy import check_cut, staged_action
from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown
from bus_schemas.manifests.ports import PORT_PROTOCOLS, kubernetes_port
from bus_schemas.manifests.selections import label_selector
from bus_schemas.resources.metadata import LabelSelector
from bus_schemas.resources.network_policy import (
    IPBlock,
    KubernetesNetworkPolicy,
    KubernetesNetworkPolicySpec,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    StagedKubernetesNetworkPolicy,
    StagedKubernetesNetworkPolicySpec,
)

_ENVELOPE = Envelope(namespaced=True)
_TYPES: tuple[Literal["Ingress", "Egress"], ...] = ("Ingress", "Egress")


def kubernetes_network_policy(document: Fields) -> KubernetesNetworkPolicy:
    meta = metadata(document, _ENVELOPE)
    check_cut(document, meta)
    fields = document.fields("spec")
    spec = KubernetesNetworkPolicySpec(**_common(fields))
    fields.close(Unknown.REFUSED)
    return KubernetesNetworkPolicy(metadata=meta, spec=spec)


def staged_kubernetes_network_policy(document: Fields, *, stored: bool) -> StagedKubernetesNetworkPolicy:
    meta = metadata(document, Envelope(namespaced=True, stored=stored))
    fields = document.fields("spec")
    action = staged_action(fields)
    spec = StagedKubernetesNetworkPolicySpec(**_common(fields), staged_action=action)
    fields.close(Unknown.REFUSED)
    return StagedKubernetesNetworkPolicy(metadata=meta, spec=spec)


def _common(fields: Fields) -> dict[str, Any]:
    ingress = tuple(_ingress_rule(at.fields()) for at in fields.items("ingress"))
    egress = tuple(_egress_rule(at.fields()) for at in fields.items("egress"))
    return {
        "pod_selector": fields.read("podSelector", label_selector, LabelSelector()),
        "policy_types": _policy_types(fields, has_egress=bool(egress)),
        "ingress": ingress,
        "egress": egress,
    }


def _policy_types(fields: Fields, *, has_egress: bool) -> tuple[Literal["Ingress", "Egress"], ...]:
    """Given, or: Ingress, and Egress if there are egress rules."""
    given = tuple(dict.fromkeys(at.choice(_TYPES) for at in fields.items("policyTypes", most=2)))
    return given or (_TYPES if has_egress else ("Ingress",))


def _ingress_rule(fields: Fields) -> NetworkPolicyIngressRule:
    rule = NetworkPolicyIngressRule(
        from_=tuple(_peer(at.fields()) for at in fields.items("from")),
        ports=tuple(_port(at.fields()) for at in fields.items("ports")),
    )
    fields.close(Unknown.REFUSED)
    return rule


def _egress_rule(fields: Fields) -> NetworkPolicyEgressRule:
    rule = NetworkPolicyEgressRule(
        to=tuple(_peer(at.fields()) for at in fields.items("to")),
        ports=tuple(_port(at.fields()) for at in fields.items("ports")),
    )
    fields.close(Unknown.REFUSED)
    return rule


def _peer(fields: Fields) -> NetworkPolicyPeer:
    peer = NetworkPolicyPeer(
        pod_selector=fields.maybe("podSelector", label_selector),
        namespace_selector=fields.maybe("namespaceSelector", label_selector),
        ip_block=fields.maybe("ipBlock", lambda at: _ip_block(at.fields())),
    )
    fields.close(Unknown.REFUSED)
    if peer.ip_block is not None and (peer.pod_selector is not None or peer.namespace_selector is not None):
        fields.place("ipBlock").fault("cannot be used together with podSelector or namespaceSelector")
    if peer == NetworkPolicyPeer():
        fields.at.fault("must have a podSelector, a namespaceSelector or an ipBlock")
    return peer


def _ip_block(fields: Fields) -> IPBlock:
    cidr = fields.required("cidr", network, None)
    excepted = []
    for at in fields.items("except"):
        hole = network(at)
        if hole is None:
            continue
        excepted.append(str(hole))
        if cidr is not None and not strictly_inside(hole, cidr):
            at.fault(f"must be a smaller part of the cidr {cidr}")
    fields.close(Unknown.REFUSED)
    return IPBlock(cidr="" if cidr is None else str(cidr), except_=tuple(excepted))


def _port(fields: Fields) -> NetworkPolicyPort:
    protocol = fields.choice("protocol", PORT_PROTOCOLS, "TCP")
    port = fields.maybe("port", kubernetes_port)
    end_port = fields.maybe("endPort", lambda at: _end_port(at, port))
    fields.close(Unknown.REFUSED)
    return NetworkPolicyPort(protocol=protocol, port=port, end_port=end_port)


def _end_port(at: At, port: int | str | None) -> int:
    if isinstance(port, int):
        return at.integer(port, 65535)
    at.fault("needs a port that is a number")
    return 1
