"""Whom policy may speak of, read from the facts anew every time: the world of the naive oracle.

    Party       whoever has labels and addresses: a pod, a host endpoint, a network set
    Node        for the peers of cluster-wide policies of Kubernetes that name nodes
    Slice       where a Service leads

Nothing of the compiler is used; `policy_oracle` asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from ipaddress import ip_address as parse_address
from typing import Any, Literal

from bus_schemas import selectors
from bus_schemas.endpoints import Endpoint
from bus_schemas.resources import (
    EndpointSlice,
    GlobalNetworkSet,
    HostEndpoint,
    LabelSelector,
    Namespace,
    NetworkSet,
    Node,
    Pod,
    Profile,
    ServiceAccount,
)
from bus_schemas.subjects import Fact
from tests.support.compiled_policy import NUMBERS


@cache
def ip_address(text: str) -> IPv4Address | IPv6Address:
    return parse_address(text)


@cache
def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text, strict=False)


Labels = Mapping[str, str]
Kind = Literal["pod", "host", "set"]


@dataclass(frozen=True)
class Party:
    kind: Kind
    key: tuple[str, ...]
    """Of a pod its endpoint's (node, namespace, name), of a host endpoint (node, name)."""
    labels: dict[str, str]
    """Its own ones (and those of a host endpoint's profiles)."""
    namespace: str | None = None
    """None: it is in no namespace."""
    namespace_labels: Labels | None = None
    """None: the Namespace is not known."""
    account: str = ""
    account_labels: Labels | None = None
    """None: the ServiceAccount is not known."""
    addresses: tuple[str, ...] = ()
    nets: tuple[str, ...] = ()
    ports: tuple[tuple[str, int, int], ...] = ()
    """(name, protocol number, port)"""
    profiles: tuple[str, ...] = ()

    @property
    def namespace_known(self) -> bool:
        return self.namespace_labels is not None

    def is_at(self, address: str) -> bool:
        return ip_address(address) in map(ip_address, self.addresses) or any(in_net(address, net) for net in self.nets)

    @property
    def seen_labels(self) -> dict[str, str]:
        """What selectors see: its own labels, and what it is given, which it cannot claim itself."""
        seen = {k: v for k, v in self.labels.items() if not k.startswith(("pcns.", "pcsa."))}
        seen |= {f"pcns.{k}": v for k, v in (self.namespace_labels or {}).items()}
        seen |= {f"pcsa.{k}": v for k, v in (self.account_labels or {}).items()}
        if self.namespace is not None:
            seen["projectcalico.org/namespace"] = self.namespace
        if self.kind == "pod":
            seen["projectcalico.org/orchestrator"] = "k8s"
            seen.pop("projectcalico.org/serviceaccount", None)
            if 0 < len(self.account) <= 63:
                seen["projectcalico.org/serviceaccount"] = self.account
        return seen


class World:
    def __init__(self, facts: Iterable[Fact]) -> None:
        values = [(fact.key, fact.value) for fact in facts if fact.value is not None]
        self.resources = [value for _, value in values]
        self.nodes = [value for _, value in values if isinstance(value, Node)]
        self.slices = [value for _, value in values if isinstance(value, EndpointSlice)]
        self.profiles = {value.metadata.name: value.spec for _, value in values if isinstance(value, Profile)}
        self.pods = list(_pods(values))
        self.hosts = list(_hosts(values))
        self.parties = [*self.pods, *self.hosts, *_sets(values)]

    def at(self, address: str) -> list[Party]:
        return [party for party in self.parties if party.is_at(address)]


def _pods(values: list[tuple[Any, Any]]) -> Iterator[Party]:
    pods = {value.key: value for _, value in values if isinstance(value, Pod)}
    namespaces = _namespaces(values)
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
            ports = tuple(
                (port.name, NUMBERS[port.protocol], port.container_port)
                for port in pod.ports
                if port.name and port.protocol in NUMBERS
            )
        of = accounts.get((value.namespace, account))
        yield Party(
            "pod",
            key,
            labels,
            namespace=value.namespace,
            namespace_labels=namespaces.get(value.namespace),
            account=account,
            account_labels=None if of is None else {**of.metadata.labels, "projectcalico.org/name": account},
            addresses=value.addresses,
            ports=ports,
        )


def _hosts(values: list[tuple[Any, Any]]) -> Iterator[Party]:
    profiles = {value.metadata.name: value.spec for _, value in values if isinstance(value, Profile)}
    for _, value in values:
        if isinstance(value, HostEndpoint):
            labels: dict[str, str] = {}
            for name in value.spec.profiles:
                if name in profiles:
                    labels = {**profiles[name].labels_to_apply, **labels}
            yield Party(
                "host",
                (value.spec.node, value.metadata.name),
                {**labels, **value.metadata.labels},
                addresses=tuple(value.spec.expected_ips),
                ports=tuple((port.name, number(port.protocol), port.port) for port in value.spec.ports),
                profiles=value.spec.profiles,
            )


def _sets(values: list[tuple[Any, Any]]) -> Iterator[Party]:
    namespaces = _namespaces(values)
    for _, value in values:
        if isinstance(value, GlobalNetworkSet):
            yield Party("set", value.key, value.metadata.labels, nets=value.spec.nets)
        elif isinstance(value, NetworkSet):
            space = value.metadata.namespace
            yield Party(
                "set",
                value.key,
                value.metadata.labels,
                namespace=space,
                namespace_labels=namespaces.get(space),
                nets=value.spec.nets,
            )


def _namespaces(values: list[tuple[Any, Any]]) -> dict[str, dict[str, str]]:
    return {
        value.metadata.name: {**value.metadata.labels, "projectcalico.org/name": value.metadata.name}
        for _, value in values
        if isinstance(value, Namespace)
    }


def node_addresses(node: Node) -> list[str]:
    """Without prefix lengths."""
    bgp = node.spec.bgp
    subnets = () if bgp is None else (bgp.ipv4_address, bgp.ipv6_address)
    plain = [address.address for address in node.spec.addresses if _is_address(address.address)]
    return [*plain, *(subnet.partition("/")[0] for subnet in subnets if subnet)]


def _is_address(text: str) -> bool:
    """A node's addresses may be host names."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


# --- values


def in_net(address: str, net: str) -> bool:
    return ip_address(address) in _network(net)


def number(protocol: int | str) -> int:
    if isinstance(protocol, int):
        return protocol
    return int(protocol) if protocol.isdecimal() else {**NUMBERS, "UDPLite": 136}[protocol]


# --- selectors


def says(text: str, party: Party) -> bool:
    """A selector of Calico's over all labels that the party shows."""
    return evaluate(text, party.seen_labels)


def namespace_says(text: str, party: Party) -> bool:
    node = selectors.parse(text).node
    if isinstance(node, selectors.Global):
        return party.namespace is None
    return _holds(node, party.namespace_labels or {}, all_is=party.namespace is not None)


def account_says(text: str, party: Party) -> bool:
    return evaluate(text, party.account_labels or {})


def evaluate(text: str, labels: Labels) -> bool:
    return _holds(selectors.parse(text).node, labels)


def _holds(node: selectors.Node, labels: Labels, *, all_is: bool = True) -> bool:
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
            return not _holds(operand, labels, all_is=all_is)
        case selectors.And(operands):
            return all(_holds(operand, labels, all_is=all_is) for operand in operands)
        case selectors.Or(operands):
            return any(_holds(operand, labels, all_is=all_is) for operand in operands)
        case _:
            return all_is


def label_selector(selector: LabelSelector, labels: Labels) -> bool:
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
