"""networking.k8s.io/v1 NetworkPolicy -> Policy: tier `default`, order 1000, rules that only allow.

Every peer and every protocol of a rule make one rule. A rule that cannot be compiled is named, and becomes denies
(`Rule.never`) of what it would have allowed, as far as that is understood: what only another policy would allow is none
of its business, what both would is closed.

https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/; the selectors are those that
Calico's conversion makes (libcalico-go, backend/k8s/conversion).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from bus_schemas.policy import Match, PortRange, Rule
from bus_schemas.resources import KubernetesNetworkPolicy, StagedKubernetesNetworkPolicy
from bus_schemas.resources.network_policy import (
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
)
from services.policy_compiler.errors import Uncompilable
from services.policy_compiler.members import PROTOCOLS
from services.policy_compiler.nets import by_family, net, readable
from services.policy_compiler.pod_selectors import PODS, pods, pods_in
from services.policy_compiler.policies import Draft, Translation, attaching, hooks
from services.policy_compiler.ports import MAX_PORT, merged, ports, span
from services.policy_compiler.selection import Selection
from services.policy_compiler.tiers import DEFAULT

ORDER = 1000.0
ORDER_KIND = "KubernetesNetworkPolicy"
"""The kind that Calico puts into the name that decides between equal orders."""

ANY_POD = Selection("", PODS)


class _Peer(NamedTuple):
    selection: Selection | None
    """The pods; None: an ipBlock, or anybody."""
    nets: tuple[str, ...] = ()
    not_nets: tuple[str, ...] = ()


class _Service(NamedTuple):
    """One protocol and its ports; no protocol: all of them, every port."""

    protocol: int | None
    ranges: tuple[PortRange, ...] = ()
    names: tuple[str, ...] = ()


ANYBODY = (_Peer(None),)
ANYTHING = (_Service(None),)


def translate(resource: KubernetesNetworkPolicy | StagedKubernetesNetworkPolicy) -> Translation:
    namespace, _ = resource.key
    spec = resource.spec
    draft = Draft(resource, Selection(namespace, pods(spec.pod_selector)))
    governs = hooks(*(way.lower() for way in spec.policy_types))
    return draft.finish(
        attaching(resource, ORDER_KIND, DEFAULT, ORDER, governs),
        _ingress(draft, namespace, spec.ingress) if "ingress" in governs else (),
        _egress(draft, namespace, spec.egress) if "egress" in governs else (),
    )


def _ingress(draft: Draft, namespace: str, rules: Sequence[NetworkPolicyIngressRule]) -> Iterator[Rule]:
    for at, rule in enumerate(rules):
        peers, services, never = _read(draft, f"spec.ingress[{at}]", namespace, rule.from_, rule.ports)
        for peer in peers:
            source = _match(draft, peer)
            for service in services:
                # The destination is the governed pod itself, so its named ports are those of the policy's subject.
                destination = _with_ports(draft, Match(), service, draft.subject or ANY_POD)
                yield from _written(at, service, source, destination, never)


def _egress(draft: Draft, namespace: str, rules: Sequence[NetworkPolicyEgressRule]) -> Iterator[Rule]:
    for at, rule in enumerate(rules):
        peers, services, never = _read(draft, f"spec.egress[{at}]", namespace, rule.to, rule.ports)
        for peer in peers:
            match = _match(draft, peer)
            for service in services:
                destination = _with_ports(draft, match, service, peer.selection or ANY_POD)
                yield from _written(at, service, Match(), destination, never)


def _written(index: int, service: _Service, source: Match, destination: Match, never: str) -> Iterator[Rule]:
    return by_family(
        Rule(
            action="deny" if never else "allow",
            protocol=service.protocol,
            source=source,
            destination=destination,
            never=never,
            index=index,
        )
    )


def _read(
    draft: Draft,
    path: str,
    namespace: str,
    peers: Sequence[NetworkPolicyPeer],
    given: tuple[NetworkPolicyPort, ...],
) -> tuple[Sequence[_Peer], Sequence[_Service], str]:
    """What a rule is about; non-empty at last: why it cannot be compiled, and then what is certainly not beyond it."""
    try:
        return [_peer(namespace, peer) for peer in peers] or ANYBODY, _services(given), ""
    except Uncompilable as error:
        fault = f"{path}: {error}"
        draft.faults.append(fault)
    covered = [_covered_peer(namespace, peer) for peer in peers] or ANYBODY
    return covered, [service for port in given for service in _covered_services(port)] or ANYTHING, fault


def _covered_peer(namespace: str, peer: NetworkPolicyPeer) -> _Peer:
    """The peer; where it is not understood, whoever it may be."""
    try:
        return _peer(namespace, peer)
    except Uncompilable:
        block = peer.ip_block
        if block is None or peer.pod_selector is not None or peer.namespace_selector is not None:
            return _Peer(None)
        return _Peer(None, readable([block.cidr]), readable(block.except_))


def _covered_services(port: NetworkPolicyPort) -> Sequence[_Service]:
    """The port; where it is not understood, whichever it may be."""
    try:
        return _services((port,))
    except Uncompilable:
        return [_Service(PROTOCOLS.get(port.protocol))]


def _peer(namespace: str, peer: NetworkPolicyPeer) -> _Peer:
    block, in_namespaces = peer.ip_block, peer.namespace_selector
    if block is not None:
        if peer.pod_selector is not None or in_namespaces is not None:
            raise Uncompilable("a peer is either an ipBlock or selectors")
        return _Peer(None, (net(block.cidr),), tuple(map(net, block.except_)))
    if in_namespaces is None:
        if peer.pod_selector is None:
            raise Uncompilable("a peer without a selector and without an ipBlock")
        return _Peer(Selection(namespace, pods(peer.pod_selector)))
    return _Peer(Selection("", pods_in(in_namespaces, peer.pod_selector)))


@lru_cache(maxsize=1 << 12)
def _services(given: tuple[NetworkPolicyPort, ...]) -> Sequence[_Service]:
    """The ports by protocol. A protocol's port without a number stands for all of them."""
    if not given:
        return ANYTHING
    by_protocol: dict[int, tuple[list[PortRange], set[str]] | None] = {}
    for port in given:
        protocol = PROTOCOLS.get(port.protocol)
        if protocol is None:
            raise Uncompilable(f"unknown protocol {port.protocol!r}")
        if port.port is None:
            if port.end_port is not None:
                raise Uncompilable("endPort without a port")
            by_protocol[protocol] = None
            continue
        listed = by_protocol.setdefault(protocol, ([], set()))
        read = ports([port.port])
        if port.end_port is not None:
            if read.names:
                raise Uncompilable("endPort with a named port")
            last = min(port.end_port, MAX_PORT)  # behind the last port there is none, whatever the end says
            read = read._replace(ranges=(span(read.ranges[0].first, last),))
        if listed is not None:
            listed[0].extend(read.ranges)
            listed[1].update(read.names)
    return [
        _Service(protocol) if listed is None else _Service(protocol, merged(listed[0]), tuple(sorted(listed[1])))
        for protocol, listed in sorted(by_protocol.items())
    ]


def _match(draft: Draft, peer: _Peer) -> Match:
    groups = () if peer.selection is None else (draft.addresses(peer.selection),)
    return Match(groups=groups, nets=peer.nets, not_nets=peer.not_nets)


def _with_ports(draft: Draft, match: Match, service: _Service, owners: Selection) -> Match:
    """The match, with the ports of the service; named ones are looked up among the owners."""
    return Match(
        groups=match.groups,
        nets=match.nets,
        not_nets=match.not_nets,
        ports=service.ranges,
        named_ports=tuple(draft.ports(owners, name) for name in service.names),
    )
