"""Policies that no door would let in, as somebody else may write them, and what is certain of them.

    broken(policy)  one fault in a rule, or in whom the policy governs --> Broken
                      stored   the policy with the fault
                      meant    the same policy without what cannot be understood: it covers all that `stored` may cover
                      closed   the rules of `meant` that deny instead of what they say

Each fault is written beside what is left of the rule without it, so nothing here knows how the compiler finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st
from msgspec.structs import replace

from bus_schemas.resources import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    GlobalNetworkPolicy,
    KubernetesNetworkPolicy,
    LabelSelector,
    NetworkPolicy,
    Resource,
)
from bus_schemas.resources.calico_policy import CalicoRule, EntityRule, IcmpFields, ServiceAccountMatch, ServiceMatch
from bus_schemas.resources.cluster_policy import ClusterPolicySubject, NamespacedPods
from bus_schemas.resources.network_policy import IPBlock, NetworkPolicyPeer, NetworkPolicyPort
from tests.support.compiled_policy import Way
from tests.support.oracle_rules import Closed, has_direction

BREAKABLE = (
    *(KubernetesNetworkPolicy, NetworkPolicy, GlobalNetworkPolicy),
    *(ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy),
)
NO_SELECTOR, NO_NET, NO_PORT, NO_PROTOCOL = "app ==", "10.0.0.0/99", "9:1", "XTP"
ANYWHERE, NOBODY = "has(q) || !has(q)", "!all()"
WAYS: tuple[Way, ...] = ("ingress", "egress")


class Broken(NamedTuple):
    stored: Resource
    meant: Resource
    closed: Closed


class Fault(NamedTuple):
    """A rule, or a policy's spec, with a fault, and without what cannot be understood of it."""

    stored: Any
    meant: Any


@st.composite
def broken(draw: st.DrawFn, policy: Any) -> Broken:
    found = [*_in_subject(policy)]
    for way in (way for way in WAYS if has_direction(policy, way)):
        for at, rule in enumerate(getattr(policy.spec, way)):
            found += _in_rule(policy, way, at, rule)
    return draw(st.sampled_from(found)) if found else Broken(policy, policy, frozenset())


def _in_rule(policy: Any, way: Way, at: int, rule: Any) -> Iterator[Broken]:
    match policy:
        case KubernetesNetworkPolicy():
            faults = _kubernetes(rule, "from_" if way == "ingress" else "to")
        case NetworkPolicy() | GlobalNetworkPolicy():
            faults = _calico(rule)
        case _:
            return  # the API of these says itself what becomes of a rule that nobody understands
    for fault in faults:
        yield Broken(
            _with_rule(policy, way, at, fault.stored),
            _with_rule(policy, way, at, fault.meant),
            frozenset({(type(policy), policy.key, way, at)}),
        )


def _with_rule(policy: Any, way: Way, at: int, rule: Any) -> Any:
    rules = getattr(policy.spec, way)
    return replace(policy, spec=replace(policy.spec, **{way: (*rules[:at], rule, *rules[at + 1 :])}))


# --- whom it governs


def _in_subject(policy: Any) -> Iterator[Broken]:
    closed = frozenset(
        (type(policy), policy.key, way, at) for way in WAYS for at in range(len(getattr(policy.spec, way)))
    )
    for fault in _subjects(policy):
        yield Broken(replace(policy, spec=fault.stored), replace(policy, spec=fault.meant), closed)


def _subjects(policy: Any) -> Iterator[Fault]:
    spec = policy.spec
    match policy:
        case NetworkPolicy() | GlobalNetworkPolicy():
            fields = ["selector", "service_account_selector"]
            if isinstance(policy, GlobalNetworkPolicy):
                fields.append("namespace_selector")
            for field in fields:
                yield Fault(replace(spec, **{field: NO_SELECTOR}), replace(spec, **{field: ""}))
        case ClusterNetworkPolicy() | AdminNetworkPolicy() | BaselineAdminNetworkPolicy():
            pods = NamespacedPods(namespace_selector=LabelSelector(), pod_selector=LabelSelector())
            both = ClusterPolicySubject(namespaces=LabelSelector(), pods=pods)
            yield Fault(replace(spec, subject=both), replace(spec, subject=ClusterPolicySubject(pods=pods)))


# --- rules of Kubernetes


def _kubernetes(rule: Any, ends: str) -> Iterator[Fault]:
    peers = getattr(rule, ends)
    anybody = replace(rule, **{ends: ()})
    yield Fault(replace(rule, **{ends: (*peers, NetworkPolicyPeer())}), anybody)
    outside = NetworkPolicyPeer(ip_block=IPBlock(cidr=NO_NET))
    yield Fault(replace(rule, **{ends: (outside, *peers)}), anybody)
    either = NetworkPolicyPeer(ip_block=IPBlock(cidr="10.0.0.0/24"), pod_selector=LabelSelector())
    yield Fault(replace(rule, **{ends: (either,)}), anybody)
    block = IPBlock(cidr="10.0.0.0/24")
    excepting = replace(block, except_=(NO_NET, "10.0.0.2/32"))
    yield Fault(
        replace(rule, **{ends: (NetworkPolicyPeer(ip_block=excepting),)}),
        replace(rule, **{ends: (NetworkPolicyPeer(ip_block=replace(block, except_=("10.0.0.2/32",))),)}),
    )
    for port in (
        NetworkPolicyPort(protocol="TCP", port=NO_PORT),
        NetworkPolicyPort(protocol="UDP", port=70000),
        NetworkPolicyPort(protocol="TCP", port="http", end_port=81),
    ):
        every = NetworkPolicyPort(protocol=port.protocol)
        yield Fault(replace(rule, ports=(*rule.ports, port)), replace(rule, ports=(*rule.ports, every)))


# --- rules of Calico


def _calico(rule: CalicoRule) -> Iterator[Fault]:
    for end in ("source", "destination"):
        entity: EntityRule = getattr(rule, end)
        for fault in _served(entity) if entity.services is not None else _entity(entity, rule):
            yield Fault(replace(rule, **{end: fault.stored}), replace(rule, **{end: fault.meant}))
    yield Fault(replace(rule, protocol=NO_PROTOCOL), replace(rule, protocol=None))
    yield Fault(replace(rule, not_protocol=NO_PROTOCOL), replace(rule, not_protocol=None))
    if rule.protocol == "ICMP":
        bad = IcmpFields(type=8, code=999)
        yield Fault(replace(rule, icmp=bad), replace(rule, icmp=IcmpFields(type=8)))
        yield Fault(replace(rule, not_icmp=bad), replace(rule, not_icmp=None))
        yield Fault(replace(rule, icmp=IcmpFields(code=1)), replace(rule, icmp=None))
    elif rule.protocol is not None:
        yield Fault(replace(rule, icmp=IcmpFields(type=8)), replace(rule, icmp=None))
    elif rule.destination.services is None:
        of_any = replace(rule, destination=replace(rule.destination, ports=(80,)))
        yield Fault(of_any, of_any)


def _served(entity: EntityRule) -> Iterator[Fault]:
    yield Fault(replace(entity, services=ServiceMatch()), replace(entity, services=None))


def _entity(entity: EntityRule, rule: CalicoRule) -> Iterator[Fault]:
    numbers = tuple(port for port in entity.not_ports if not (isinstance(port, str) and port.isalpha()))
    anyone = replace(entity, not_ports=numbers)  # whose ports a name excludes is not known, either
    yield Fault(replace(entity, selector=NO_SELECTOR), replace(anyone, selector="all()"))
    yield Fault(replace(entity, namespace_selector=NO_SELECTOR), replace(anyone, namespace_selector=ANYWHERE))
    names = ("robot",)
    yield Fault(
        replace(entity, service_accounts=ServiceAccountMatch(names=names, selector=NO_SELECTOR)),
        replace(anyone, service_accounts=ServiceAccountMatch(names=names)),
    )
    yield Fault(replace(entity, not_selector=NO_SELECTOR), replace(entity, not_selector=NOBODY))
    yield Fault(replace(entity, nets=(*entity.nets, NO_NET)), replace(entity, nets=()))
    yield Fault(replace(entity, not_nets=(NO_NET, *entity.not_nets)), entity)
    if rule.protocol in ("TCP", "UDP", 132):
        yield Fault(replace(entity, ports=(*entity.ports, NO_PORT)), replace(entity, ports=()))
        yield Fault(replace(entity, not_ports=(NO_PORT, *entity.not_ports)), entity)
