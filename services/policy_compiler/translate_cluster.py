"""ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy -> Policy: tiers kube-admin and kube-baseline.

The priority is the order. Accept decides, Deny decides, Pass goes on to the next tier; so does what no rule matches.
Every peer and every protocol of a rule make one rule; a named port is one of the destination: of the subject's pods on
the way in, of the peer's on the way out (networks and nodes have none).

Of the rules that cannot be compiled an Accept is left out (the next tiers decide), while Deny and Pass become a deny of
everything, as in Calico: what such a rule would have kept from whom is anybody's guess. Of a subject that is not
understood any pod may be meant, so all of the policy's rules become denies (`Rule.never`) of what they cover, for all.

https://network-policy-api.sigs.k8s.io/ (v1alpha2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from bus_schemas import selectors
from bus_schemas.policy import Match, PortRange, Rule
from bus_schemas.resources import AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy
from bus_schemas.resources.cluster_policy import (
    ClusterPolicyPeer,
    ClusterPolicyPort,
    ClusterPolicyRule,
    ClusterPolicySubject,
)
from services.policy_compiler.errors import Uncompilable
from services.policy_compiler.members import PROTOCOLS
from services.policy_compiler.nets import by_family, net
from services.policy_compiler.pod_selectors import PODS, pods_in
from services.policy_compiler.policies import Draft, Translation, attaching, hooks
from services.policy_compiler.ports import merged, ports, span
from services.policy_compiler.selection import Selection, nodes
from services.policy_compiler.tiers import ADMIN, BASELINE

ACTIONS: dict[str, Literal["allow", "deny", "pass"]] = {"Accept": "allow", "Deny": "deny", "Pass": "pass"}
TIERS = {"Admin": ADMIN, "Baseline": BASELINE}


class _Peer(NamedTuple):
    selection: Selection | None = None
    """Pods or nodes; None: networks, or anybody."""
    nets: tuple[str, ...] = ()
    owners: Selection | None = None
    """Whose named ports are meant when the peer is the destination; None: it has none."""


class _Service(NamedTuple):
    """One protocol and its ports, or a named port; neither: everything."""

    protocol: int | None = None
    ranges: tuple[PortRange, ...] = ()
    name: str = ""


ANYTHING = (_Service(),)
ANY_POD = Selection("", PODS)

ClusterPolicy = ClusterNetworkPolicy | AdminNetworkPolicy | BaselineAdminNetworkPolicy


def translate(resource: ClusterPolicy) -> Translation:
    spec = resource.spec
    never = ""
    try:
        subject = Selection("", _pods(spec.subject))
    except Uncompilable as error:
        subject, never = ANY_POD, f"spec.subject: {error}"
    draft = Draft(resource, subject, never)
    governs = hooks(*(way for way, rules in (("ingress", spec.ingress), ("egress", spec.egress)) if rules))
    return draft.finish(
        attaching(resource, resource.KIND, TIERS[spec.tier], float(spec.priority), governs),
        _rules(draft, subject, "ingress", spec.ingress),
        _rules(draft, subject, "egress", spec.egress),
    )


def _rules(
    draft: Draft, subject: Selection, way: Literal["ingress", "egress"], rules: Sequence[ClusterPolicyRule]
) -> Iterator[Rule]:
    for at, rule in enumerate(rules):
        try:
            if not rule.peers:
                raise Uncompilable("names no peer")
            peers = [_peer(peer, way) for peer in rule.peers]
            services = _services(rule.ports)
        except Uncompilable as error:
            fault = f"spec.{way}[{at}]: {error}"
            draft.faults.append(fault)
            if rule.action != "Accept":
                yield Rule(action="deny", never=fault, index=at, name=rule.name)
            continue
        for peer in peers:
            match = _match(draft, peer)
            owners = subject if way == "ingress" else peer.owners
            for service in services:
                if service.name and owners is None:
                    continue
                source, destination = (match, Match()) if way == "ingress" else (Match(), match)
                yield from by_family(
                    Rule(
                        action=ACTIONS[rule.action],
                        protocol=service.protocol,
                        source=source,
                        destination=_with_ports(draft, destination, service, owners),
                        index=at,
                        name=rule.name,
                    )
                )


def _pods(either: ClusterPolicySubject | ClusterPolicyPeer) -> selectors.Selector:
    if (either.namespaces is None) == (either.pods is None):
        raise Uncompilable("exactly one of namespaces and pods is to be set")
    if either.namespaces is not None:
        return pods_in(either.namespaces)
    assert either.pods is not None
    return pods_in(either.pods.namespace_selector, either.pods.pod_selector)


def _peer(peer: ClusterPolicyPeer, way: Literal["ingress", "egress"]) -> _Peer:
    if peer.domain_names:
        raise Uncompilable("domainNames: nothing here resolves names")
    if peer.nodes is None and not peer.networks:
        selection = Selection("", _pods(peer))
        return _Peer(selection, owners=selection)
    if way == "ingress":
        raise Uncompilable("nodes and networks can be peers of egress only")
    if peer.namespaces is not None or peer.pods is not None or (peer.nodes is not None and peer.networks):
        raise Uncompilable("exactly one of namespaces, pods, nodes and networks is to be set")
    if peer.nodes is not None:
        return _Peer(nodes(selectors.from_label_selector(peer.nodes)))
    return _Peer(nets=tuple(map(net, peer.networks)))


def _services(given: Sequence[ClusterPolicyPort]) -> Sequence[_Service]:
    """The ports by protocol; a protocol without a number stands for all of its ports."""
    if not given:
        return ANYTHING
    by_protocol: dict[int, list[PortRange] | None] = {}
    names: set[str] = set()
    for port in given:
        if port.name:
            if port.protocol is not None or port.first is not None or port.last is not None:
                raise Uncompilable("a named port has neither a protocol nor a number")
            names.update(_name(port.name))
            continue
        protocol = PROTOCOLS.get(port.protocol or "")
        if protocol is None:
            raise Uncompilable("a port needs a protocol (TCP, UDP, SCTP) or a name")
        if port.first is None:
            if port.last is not None:
                raise Uncompilable("a range of ports needs its first one")
            by_protocol[protocol] = None
            continue
        ranges = by_protocol.setdefault(protocol, [])
        read = span(port.first, port.first if port.last is None else port.last)
        if ranges is not None:
            ranges.append(read)
    return [
        *(_Service(protocol, () if ranges is None else merged(ranges)) for protocol, ranges in by_protocol.items()),
        *(_Service(name=name) for name in sorted(names)),
    ]


def _name(text: str) -> tuple[str, ...]:
    read = ports([text])
    if read.ranges:
        raise Uncompilable(f"{text!r} is not a port's name")
    return read.names


def _match(draft: Draft, peer: _Peer) -> Match:
    groups = () if peer.selection is None else (draft.addresses(peer.selection),)
    return Match(groups=groups, nets=peer.nets)


def _with_ports(draft: Draft, match: Match, service: _Service, owners: Selection | None) -> Match:
    """The match, with the ports of the service; a named one is looked up among the owners."""
    named = () if owners is None or not service.name else (draft.ports(owners, service.name),)
    return Match(groups=match.groups, nets=match.nets, ports=service.ranges, named_ports=named)
