"""Whether one rule of a manifest matches one packet, and whom one policy governs: the naive oracle's reading.

Every kind of policy has its own way to name the two ends of a connection; what a name means is looked up in the world
at every call. `policy_oracle` walks policies and tiers.

https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
https://network-policy-api.sigs.k8s.io/reference/spec/
https://docs.tigera.io/calico/latest/reference/resources/networkpolicy
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any, Literal

from bus_schemas.resources import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    GlobalNetworkPolicy,
    KubernetesNetworkPolicy,
)
from bus_schemas.resources.calico_policy import CalicoRule, EntityRule, ServiceMatch
from bus_schemas.resources.cluster_policy import ClusterPolicyPeer, ClusterPolicyPort, ClusterPolicyRule
from bus_schemas.resources.network_policy import NetworkPolicyPeer, NetworkPolicyPort
from tests.support.compiled_policy import NUMBERS, Packet, Way
from tests.support.oracle_world import (
    Party,
    World,
    account_says,
    in_net,
    ip_address,
    label_selector,
    namespace_says,
    node_addresses,
    number,
    says,
)

Action = Literal["allow", "deny", "pass"]
CLUSTER_KINDS = ClusterNetworkPolicy | AdminNetworkPolicy | BaselineAdminNetworkPolicy
ACTIONS: dict[str, Action | None] = {"Allow": "allow", "Accept": "allow", "Deny": "deny", "Pass": "pass", "Log": None}
Closed = Set[tuple[type[Any], tuple[str, str], Way, int]]
"""Rules, by policy, way and place, that cannot be compiled as their author meant them: they deny what they match."""


def has_direction(policy: Any, way: Way) -> bool:
    if isinstance(policy, CLUSTER_KINDS):
        return bool(policy.spec.ingress if way == "ingress" else policy.spec.egress)
    types = policy.spec.policy_types if isinstance(policy, KubernetesNetworkPolicy) else policy.spec.types
    return ("Ingress" if way == "ingress" else "Egress") in types


def governs(policy: Any, party: Party) -> bool:
    """In any way: host endpoints are governed by global policies of Calico's alone, network sets by none."""
    spec = policy.spec
    if isinstance(policy, GlobalNetworkPolicy):
        if party.kind == "set" or (party.kind == "pod" and (spec.do_not_track or spec.pre_dnat)):
            return False
        return (
            says(spec.selector, party)
            and (not spec.namespace_selector or namespace_says(spec.namespace_selector, party))
            and (not spec.service_account_selector or account_says(spec.service_account_selector, party))
        )
    if party.kind != "pod":
        return False
    if isinstance(policy, CLUSTER_KINDS):
        subject = spec.subject
        return _is_cluster_peer(ClusterPolicyPeer(namespaces=subject.namespaces, pods=subject.pods), party)
    if policy.metadata.namespace != party.namespace:
        return False
    if isinstance(policy, KubernetesNetworkPolicy):
        return label_selector(spec.pod_selector, party.labels)
    return says(spec.selector, party) and (
        not spec.service_account_selector or account_says(spec.service_account_selector, party)
    )


def decides(policy: Any, world: World, way: Way, packet: Packet, closed: Closed = frozenset()) -> Action | None:
    """What the first rule says that matches. None: none does."""
    rules = policy.spec.ingress if way == "ingress" else policy.spec.egress
    for at, rule in enumerate(rules):
        action = ACTIONS[rule.action] if not isinstance(policy, KubernetesNetworkPolicy) else "allow"
        if action is not None and _matches(policy, rule, world, way, packet):
            return "deny" if closed and (type(policy), policy.key, way, at) in closed else action
    return None


def _matches(policy: Any, rule: Any, world: World, way: Way, packet: Packet) -> bool:
    if isinstance(policy, KubernetesNetworkPolicy):
        return _kubernetes_matches(policy, rule, world, way, packet)
    if isinstance(policy, CLUSTER_KINDS):
        return _cluster_matches(policy, rule, world, way, packet)
    return _calico_matches(policy, rule, world, way, packet)


# --- Kubernetes


def _kubernetes_matches(policy: KubernetesNetworkPolicy, rule: Any, world: World, way: Way, packet: Packet) -> bool:
    remote = packet.source if way == "ingress" else packet.destination
    peers: Sequence[NetworkPolicyPeer] = rule.from_ if way == "ingress" else rule.to
    for peer in peers or (None,):
        if not _is_peer_at(policy, peer, world, remote):
            continue
        for port in rule.ports or (None,):
            # A port's name is looked up at the destination: here the governed pods, there the peer's.
            owners = [
                party
                for party in world.at(packet.destination)
                if (governs(policy, party) if way == "ingress" else _is_peer(policy, peer, party))
            ]
            if _is_kubernetes_port(port, packet, owners):
                return True
    return False


def _is_peer_at(policy: KubernetesNetworkPolicy, peer: NetworkPolicyPeer | None, world: World, address: str) -> bool:
    if peer is None:
        return True
    if peer.ip_block is not None:
        return in_net(address, peer.ip_block.cidr) and not any(in_net(address, e) for e in peer.ip_block.except_)
    return any(_is_peer(policy, peer, party) for party in world.at(address))


def _is_peer(policy: KubernetesNetworkPolicy, peer: NetworkPolicyPeer | None, party: Party) -> bool:
    if party.kind != "pod":
        return False
    if peer is None or peer.ip_block is not None:
        return True
    if peer.namespace_selector is None:
        if party.namespace != policy.metadata.namespace:
            return False
    elif not label_selector(peer.namespace_selector, party.namespace_labels or {}):
        return False
    return peer.pod_selector is None or label_selector(peer.pod_selector, party.labels)


def _is_kubernetes_port(port: NetworkPolicyPort | None, packet: Packet, owners: Iterable[Party]) -> bool:
    if port is None:
        return True
    if NUMBERS[port.protocol] != packet.protocol:
        return False
    if port.port is None:
        return True
    if isinstance(port.port, str):
        return _has_port(owners, port.port, packet.protocol, packet.port)
    return port.port <= packet.port <= (port.end_port or port.port)


# --- ClusterNetworkPolicy and its predecessors


def _cluster_matches(policy: Any, rule: ClusterPolicyRule, world: World, way: Way, packet: Packet) -> bool:
    remote = packet.source if way == "ingress" else packet.destination
    for peer in rule.peers:
        if not _is_cluster_peer_at(peer, world, remote):
            continue
        for port in rule.ports or (None,):
            owners = [
                party
                for party in world.at(packet.destination)
                if (governs(policy, party) if way == "ingress" else _is_cluster_peer(peer, party))
            ]
            if _is_cluster_port(port, packet, owners):
                return True
    return False


def _is_cluster_peer_at(peer: ClusterPolicyPeer, world: World, address: str) -> bool:
    if peer.networks:
        return any(in_net(address, net) for net in peer.networks)
    if peer.nodes is not None:
        return any(
            ip_address(address) in map(ip_address, node_addresses(node))
            for node in world.nodes
            if label_selector(peer.nodes, node.metadata.labels)
        )
    return any(_is_cluster_peer(peer, party) for party in world.at(address))


def _is_cluster_peer(peer: ClusterPolicyPeer, party: Party) -> bool:
    """Pods alone: neither networks nor nodes have ports with names."""
    if party.kind != "pod" or peer.nodes is not None or peer.networks:
        return False
    spaces = party.namespace_labels or {}
    if peer.namespaces is not None:
        return label_selector(peer.namespaces, spaces)
    if peer.pods is not None:
        return label_selector(peer.pods.namespace_selector, spaces) and label_selector(
            peer.pods.pod_selector, party.labels
        )
    return True


def _is_cluster_port(port: ClusterPolicyPort | None, packet: Packet, owners: Iterable[Party]) -> bool:
    if port is None:
        return True
    if port.name:
        return _has_port(owners, port.name, packet.protocol, packet.port)
    assert port.protocol is not None
    if NUMBERS[port.protocol] != packet.protocol:
        return False
    return port.first is None or port.first <= packet.port <= (port.last or port.first)


# --- Calico

_End = tuple[str, int, int, Literal["source", "destination"], bool]
"""Address, protocol, port; which end it is, and whether it is the governed one."""


def _calico_matches(policy: Any, rule: CalicoRule, world: World, way: Way, packet: Packet) -> bool:
    version = ip_address(packet.source).version
    if rule.ip_version not in (None, version):
        return False
    if rule.protocol is not None and number(rule.protocol) != packet.protocol:
        return False
    if rule.not_protocol is not None and number(rule.not_protocol) == packet.protocol:
        return False
    for icmp, wanted in ((rule.icmp, True), (rule.not_icmp, False)):
        if icmp is not None and icmp.type is not None:
            same = (
                packet.protocol == (1 if version == 4 else 58)
                and icmp.type == packet.port
                and icmp.code in (None, packet.code)
            )
            if same != wanted:
                return False
    source: _End = (packet.source, packet.protocol, packet.source_port, "source", way == "egress")
    destination: _End = (packet.destination, packet.protocol, packet.port, "destination", way == "ingress")
    return _is_entity(policy, rule.source, world, *source) and _is_entity(policy, rule.destination, world, *destination)


def _is_entity(
    policy: Any,
    entity: EntityRule,
    world: World,
    address: str,
    protocol: int,
    port: int,
    end: Literal["source", "destination"],
    local: bool,
) -> bool:
    if entity.services is not None and not _is_service(policy, entity.services, world, address, protocol, port, end):
        return False
    parties = world.at(address)
    named = [party for party in parties if _is_meant(policy, entity, party)]
    if _names_parties(policy, entity) and not named:
        return False
    if entity.not_selector:
        space = policy.metadata.namespace if not entity.namespace_selector else ""
        if any(says(entity.not_selector, party) and space in ("", party.namespace) for party in parties):
            return False
    if entity.nets and not any(in_net(address, net) for net in entity.nets):
        return False
    if any(in_net(address, net) for net in entity.not_nets):
        return False
    owners = named if _names_parties(policy, entity) else [p for p in parties if not local or governs(policy, p)]
    if entity.ports and not any(_is_calico_port(p, protocol, port, owners) for p in entity.ports):
        return False
    return not any(_is_calico_port(p, protocol, port, owners) for p in entity.not_ports)


def _names_parties(policy: Any, entity: EntityRule) -> bool:
    return bool(
        entity.selector
        or entity.namespace_selector
        or entity.service_accounts
        or (entity.not_selector and policy.metadata.namespace)
    )


def _is_meant(policy: Any, entity: EntityRule, party: Party) -> bool:
    if entity.namespace_selector:
        if not namespace_says(entity.namespace_selector, party):
            return False
    elif policy.metadata.namespace and policy.metadata.namespace != party.namespace:
        return False
    accounts = entity.service_accounts
    if accounts is not None:
        if accounts.names and party.seen_labels.get("projectcalico.org/serviceaccount") not in accounts.names:
            return False
        if accounts.selector and not account_says(accounts.selector, party):
            return False
    return says(entity.selector, party)


def _is_service(
    policy: Any,
    service: ServiceMatch,
    world: World,
    address: str,
    protocol: int,
    port: int,
    end: Literal["source", "destination"],
) -> bool:
    """As a destination, one of the Service's endpoints at one of its ports; as a source, one of its endpoints."""
    space = service.namespace or policy.metadata.namespace
    for slice_ in world.slices:
        if (slice_.metadata.namespace, slice_.service) != (space, service.name):
            continue
        if slice_.spec.address_type == "FQDN":
            continue
        if not any(ip_address(address) == ip_address(a) for e in slice_.spec.endpoints for a in e.addresses):
            continue
        if end == "source" or any(
            NUMBERS.get(p.protocol) == protocol and p.port in (None, port) for p in slice_.spec.ports
        ):
            return True
    return False


def _is_calico_port(wanted: int | str, protocol: int, port: int, owners: Iterable[Party]) -> bool:
    if isinstance(wanted, int):
        return port == wanted
    first, colon, last = wanted.partition(":")
    if colon:
        return int(first) <= port <= int(last)
    return _has_port(owners, wanted, protocol, port)


def _has_port(owners: Iterable[Party], name: str, protocol: int, port: int) -> bool:
    return any((name, protocol, port) in party.ports for party in owners)
