"""What policies mean, slowly: the manifests themselves, read again for every single packet.

Nothing is indexed, rewritten or remembered, and nothing of the compiler is used. The world is a collection of facts as
the compiler is fed with; `allows` walks all policies of all tiers in order, asks each whether it governs the pod, and
each of its rules whether the packet matches, looking pods up by their addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Literal

from bus_schemas import selectors
from bus_schemas.endpoints import Endpoint
from bus_schemas.resources import (
    GlobalNetworkPolicy,
    KubernetesNetworkPolicy,
    LabelSelector,
    Namespace,
    NetworkPolicy,
    Pod,
    ServiceAccount,
)
from bus_schemas.resources.calico_policy import CalicoRule, EntityRule
from bus_schemas.resources.network_policy import NetworkPolicyPeer, NetworkPolicyPort
from bus_schemas.subjects import Fact
from tests.support.compiled_policy import NUMBERS, Packet, Way

TIER_ORDERS = {"kube-admin": 1e3, "default": 1e6, "kube-baseline": 1e7}
PASS_BY_DEFAULT = {"kube-admin", "kube-baseline"}

Verdict = Literal["allow", "deny", "pass"]
Labels = Mapping[str, str]


@dataclass(frozen=True)
class PluggedPod:
    """A pod as policy sees it."""

    key: tuple[str, str, str]
    labels: dict[str, str]
    account: str
    account_labels: dict[str, str]
    """Empty when the ServiceAccount is not known."""
    namespace_labels: dict[str, str]
    """Empty when the Namespace is not known."""
    namespace_known: bool
    addresses: tuple[str, ...]
    ports: tuple[tuple[str, int, int], ...]
    """(name, protocol number, port)"""

    @property
    def namespace(self) -> str:
        return self.key[1]


class Oracle:
    def __init__(self, facts: Iterable[Fact]) -> None:
        values = [(fact.key, fact.value) for fact in facts if fact.value is not None]
        self._policies = [
            value
            for _, value in values
            if isinstance(value, KubernetesNetworkPolicy | NetworkPolicy | GlobalNetworkPolicy)
        ]
        self.pods = list(_plugged(values))

    def allows(self, way: Way, key: tuple[str, str, str], packet: Packet) -> bool:
        """What one direction of one endpoint says to the packet."""
        for pod in self.pods:
            if pod.key == key:
                return self._allows(way, pod, packet)
        return False

    def _allows(self, way: Way, pod: PluggedPod, packet: Packet) -> bool:
        governing = [p for p in self._policies if _has_direction(p, way) and _governs(p, pod)]
        tiers = {_tier(policy) for policy in governing}
        for tier in sorted(tiers, key=lambda name: (name not in TIER_ORDERS, TIER_ORDERS.get(name, 0.0), name)):
            verdict = self._tier_verdict(sorted((p for p in governing if _tier(p) == tier), key=_order), way, packet)
            verdict = verdict or ("pass" if tier in PASS_BY_DEFAULT else "deny")
            if verdict != "pass":
                return verdict == "allow"
        return pod.namespace_known

    def _tier_verdict(self, policies: list[Any], way: Way, packet: Packet) -> Verdict | None:
        for policy in policies:
            if isinstance(policy, KubernetesNetworkPolicy):
                if self._kubernetes_allows(policy, way, packet):
                    return "allow"
                continue
            for rule in policy.spec.ingress if way == "ingress" else policy.spec.egress:
                if rule.action != "Log" and self._calico_matches(policy, rule, way, packet):
                    return {"Allow": "allow", "Deny": "deny", "Pass": "pass"}[rule.action]  # type: ignore[return-value]
        return None

    def _at(self, address: str) -> list[PluggedPod]:
        return [pod for pod in self.pods if ip_address(address) in map(ip_address, pod.addresses)]

    # --- Kubernetes

    def _kubernetes_allows(self, policy: KubernetesNetworkPolicy, way: Way, packet: Packet) -> bool:
        rules = policy.spec.ingress if way == "ingress" else policy.spec.egress
        remote = packet.source if way == "ingress" else packet.destination
        for rule in rules:
            peers = rule.from_ if way == "ingress" else rule.to  # type: ignore[union-attr]
            for peer in peers or (None,):
                if not self._peer_matches(policy, peer, remote):
                    continue
                for port in rule.ports or (None,):
                    # A port's name is looked up at the destination: here the governed pods, there the peer's.
                    owners = [
                        pod
                        for pod in self._at(packet.destination)
                        if (_governs(policy, pod) if way == "ingress" else _is_peer(policy, peer, pod))
                    ]
                    if _port_matches(port, packet, owners):
                        return True
        return False

    def _peer_matches(self, policy: KubernetesNetworkPolicy, peer: NetworkPolicyPeer | None, address: str) -> bool:
        if peer is None:
            return True
        if peer.ip_block is not None:
            return _in_net(address, peer.ip_block.cidr) and not any(_in_net(address, e) for e in peer.ip_block.except_)
        return any(_is_peer(policy, peer, pod) for pod in self._at(address))

    # --- Calico

    def _calico_matches(self, policy: Any, rule: CalicoRule, way: Way, packet: Packet) -> bool:
        version = ip_address(packet.source).version
        if rule.ip_version not in (None, version):
            return False
        if rule.protocol is not None and _number(rule.protocol) != packet.protocol:
            return False
        if rule.not_protocol is not None and _number(rule.not_protocol) == packet.protocol:
            return False
        for icmp, wanted in ((rule.icmp, True), (rule.not_icmp, False)):
            if icmp is not None and icmp.type is not None:
                same = icmp.type == packet.port and icmp.code in (None, packet.code)
                if same != wanted:
                    return False
        return self._entity_matches(
            policy, rule.source, packet.source, packet.protocol, packet.source_port, local=way == "egress"
        ) and self._entity_matches(
            policy, rule.destination, packet.destination, packet.protocol, packet.port, local=way == "ingress"
        )

    def _entity_matches(
        self, policy: Any, entity: EntityRule, address: str, protocol: int, port: int, *, local: bool
    ) -> bool:
        pods = self._at(address)
        named = [pod for pod in pods if _is_entity(policy, entity, pod)]
        if _names_pods(policy, entity) and not named:
            return False
        if entity.not_selector:
            same = policy.metadata.namespace if not entity.namespace_selector else ""
            if any(_says(entity.not_selector, pod) and same in ("", pod.namespace) for pod in pods):
                return False
        if entity.nets and not any(_in_net(address, net) for net in entity.nets):
            return False
        if any(_in_net(address, net) for net in entity.not_nets):
            return False
        owners = named if _names_pods(policy, entity) else [p for p in pods if not local or _governs(policy, p)]
        if entity.ports and not any(_is_port(p, protocol, port, owners) for p in entity.ports):
            return False
        return not any(_is_port(p, protocol, port, owners) for p in entity.not_ports)


# --- the world


def _plugged(values: list[tuple[Any, Any]]) -> Iterator[PluggedPod]:
    pods = {value.key: value for _, value in values if isinstance(value, Pod)}
    namespaces = {value.metadata.name: value for _, value in values if isinstance(value, Namespace)}
    accounts = {value.key: value for _, value in values if isinstance(value, ServiceAccount)}
    for key, value in values:
        if not isinstance(value, Endpoint):
            continue
        labels, account = value.labels, value.service_account
        ports = tuple((port.name, NUMBERS[port.protocol], port.port) for port in value.ports)
        if labels is None:
            pod = pods.get((value.namespace, value.name))
            if pod is None or pod.spec.host_network or pod.status.phase in ("Succeeded", "Failed"):
                continue
            if pod.metadata.uid and value.uid and pod.metadata.uid != value.uid:
                continue
            labels, account = pod.metadata.labels, pod.spec.service_account_name
            ports = tuple((port.name, NUMBERS[port.protocol], port.container_port) for port in pod.ports)
        space, of = namespaces.get(value.namespace), accounts.get((value.namespace, account))
        yield PluggedPod(
            key=key,
            labels=labels,
            account=account,
            account_labels={} if of is None else {**of.metadata.labels, "projectcalico.org/name": account},
            namespace_labels=(
                {} if space is None else {**space.metadata.labels, "projectcalico.org/name": value.namespace}
            ),
            namespace_known=space is not None,
            addresses=value.addresses,
            ports=ports,
        )


# --- policies


def _has_direction(policy: Any, way: Way) -> bool:
    types = policy.spec.policy_types if isinstance(policy, KubernetesNetworkPolicy) else policy.spec.types
    return ("Ingress" if way == "ingress" else "Egress") in types


def _tier(policy: Any) -> str:
    return "default" if isinstance(policy, KubernetesNetworkPolicy) else policy.spec.tier


def _order(policy: Any) -> tuple[float, str]:
    namespace, name = policy.key
    if isinstance(policy, KubernetesNetworkPolicy):
        return (1000.0, f"{name}/{namespace}/KubernetesNetworkPolicy")
    return (float("inf") if policy.spec.order is None else policy.spec.order, f"{name}/{namespace}/{policy.KIND}")


def _governs(policy: Any, pod: PluggedPod) -> bool:
    if policy.metadata.namespace and policy.metadata.namespace != pod.namespace:
        return False
    if isinstance(policy, KubernetesNetworkPolicy):
        return _label_selector(policy.spec.pod_selector, pod.labels)
    spec = policy.spec
    if isinstance(policy, GlobalNetworkPolicy) and not _namespace_says(policy.spec.namespace_selector, pod):
        return False
    return _says(spec.selector, pod) and _evaluate(spec.service_account_selector, pod.account_labels)


def _is_peer(policy: KubernetesNetworkPolicy, peer: NetworkPolicyPeer | None, pod: PluggedPod) -> bool:
    if peer is None or peer.ip_block is not None:
        return True
    if peer.namespace_selector is None:
        if pod.namespace != policy.metadata.namespace:
            return False
    elif not _label_selector(peer.namespace_selector, pod.namespace_labels):
        return False
    return peer.pod_selector is None or _label_selector(peer.pod_selector, pod.labels)


def _names_pods(policy: Any, entity: EntityRule) -> bool:
    return bool(
        entity.selector
        or entity.namespace_selector
        or entity.service_accounts
        or (entity.not_selector and policy.metadata.namespace)
    )


def _is_entity(policy: Any, entity: EntityRule, pod: PluggedPod) -> bool:
    if entity.namespace_selector:
        if not _namespace_says(entity.namespace_selector, pod):
            return False
    elif policy.metadata.namespace and policy.metadata.namespace != pod.namespace:
        return False
    accounts = entity.service_accounts
    if accounts is not None:
        if accounts.names and pod.account not in accounts.names:
            return False
        if not _evaluate(accounts.selector, pod.account_labels):
            return False
    return _says(entity.selector, pod)


# --- ports, nets, selectors


def _port_matches(port: NetworkPolicyPort | None, packet: Packet, owners: list[PluggedPod]) -> bool:
    if port is None:
        return True
    if NUMBERS[port.protocol] != packet.protocol:
        return False
    if port.port is None:
        return True
    if isinstance(port.port, str):
        return _is_port(port.port, packet.protocol, packet.port, owners)
    return port.port <= packet.port <= (port.end_port or port.port)


def _is_port(wanted: int | str, protocol: int, port: int, owners: list[PluggedPod]) -> bool:
    if isinstance(wanted, int):
        return port == wanted
    first, colon, last = wanted.partition(":")
    if colon:
        return int(first) <= port <= int(last)
    return any((wanted, protocol, port) in pod.ports for pod in owners)


def _in_net(address: str, net: str) -> bool:
    return ip_address(address) in ip_network(net, strict=False)


def _number(protocol: int | str) -> int:
    return protocol if isinstance(protocol, int) else NUMBERS[protocol]


def _says(text: str, pod: PluggedPod) -> bool:
    """A selector over the pod's own labels and those that every pod is given."""
    given = {"projectcalico.org/namespace": pod.namespace, "projectcalico.org/orchestrator": "k8s"}
    if pod.account:
        given["projectcalico.org/serviceaccount"] = pod.account
    return _evaluate(text, {**pod.labels, **given})


def _namespace_says(text: str, pod: PluggedPod) -> bool:
    return text != "global()" and _evaluate(text, pod.namespace_labels)


def _evaluate(text: str, labels: Labels) -> bool:
    return _holds(selectors.parse(text).node, labels)


def _holds(node: selectors.Node, labels: Labels) -> bool:
    match node:
        case selectors.Has(label):
            return label in labels
        case selectors.Compare(label, operator, value):
            mine = labels.get(label)
            if operator.value == "!=":
                return mine != value
            if mine is None:
                return False
            return {
                "==": mine == value,
                "contains": value in mine,
                "starts with": mine.startswith(value),
                "ends with": mine.endswith(value),
            }[operator.value]
        case selectors.Within(label, values, negated):
            return (labels.get(label) in values) != negated
        case selectors.Not(operand):
            return not _holds(operand, labels)
        case selectors.And(operands):
            return all(_holds(operand, labels) for operand in operands)
        case selectors.Or(operands):
            return any(_holds(operand, labels) for operand in operands)
        case _:
            return True


def _label_selector(selector: LabelSelector, labels: Labels) -> bool:
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for wanted in selector.match_expressions:
        mine = labels.get(wanted.key)
        holds = {
            "In": mine is not None and mine in wanted.values,
            "NotIn": mine not in wanted.values,
            "Exists": mine is not None,
            "DoesNotExist": mine is None,
        }
        if not holds[wanted.operator]:
            return False
    return True
