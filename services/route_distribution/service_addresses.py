"""Which single addresses of Services a node announces: those that depend on where the endpoints are.

    BGPConfiguration `default` --- ranges ---------+
    Service --- its addresses, externalTrafficPolicy +--> node: /32, /128       every node: /32, /128
    EndpointSlice --- nodes with ready endpoints --+
    ServiceAddresses (type LoadBalancer) ----------+

A range is announced whole by every node (`bgp_settings`), which is all that a Service of `Cluster` needs. Here is the
rest, as in Calico's confd (`pkg/backends/calico/routes.go`): `Local` Services from the nodes that have a ready
endpoint, and from all nodes, while there is a ready endpoint, where the range is a single address or
`serviceLoadBalancerAggregation` is Disabled.

Two Services may share an address, so announcements are counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from bus_schemas.ids import NodeName
from bus_schemas.ipam import ServiceAddresses
from bus_schemas.resources import EndpointSlice, Service
from bus_schemas.resources.bgp import BGPConfigurationSpec, ServiceBlock
from bus_schemas.resources.services import EndpointSliceSpec, ServiceSpec
from bus_schemas.subjects import DESIRED, SERVICE_ADDRESSES, Fact, Family
from services.route_distribution.bgp_settings import readable

SERVICE, SLICE = DESIRED[Service], DESIRED[EndpointSlice]
READS: tuple[Family[Any], ...] = (SERVICE, SLICE, SERVICE_ADDRESSES)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Key = tuple[str, str]
"""Namespace and name of a Service."""

_FAMILIES = {"IPv4": 4, "IPv6": 6}


@dataclass(frozen=True)
class Ranges:
    """Of a BGPConfiguration: what may be announced at all."""

    cluster: tuple[Network, ...] = ()
    external: tuple[Network, ...] = ()
    load_balancer: tuple[Network, ...] = ()
    aggregated: bool = True
    """False: the addresses of load balancers one by one."""


def ranges_of(spec: BGPConfigurationSpec | None) -> Ranges:
    if spec is None:
        return Ranges()
    return Ranges(
        _networks(spec.service_cluster_ips),
        _networks(spec.service_external_ips),
        _networks(spec.service_load_balancer_ips),
        spec.service_load_balancer_aggregation != "Disabled",
    )


def _networks(blocks: Iterable[ServiceBlock]) -> tuple[Network, ...]:
    return tuple(network for block in blocks if (network := readable(block.cidr)) is not None)


@dataclass(frozen=True)
class _Slice:
    service: Key
    family: int
    nodes: frozenset[NodeName]
    """With a ready endpoint; empty name: one that says no node."""


@dataclass
class _Known:
    """What there is of one Service."""

    spec: ServiceSpec | None = None
    given: tuple[str, ...] = ()
    slices: dict[str, _Slice] = field(default_factory=dict)

    def ready(self, family: int) -> set[NodeName]:
        return {node for one in self.slices.values() if one.family == family for node in one.nodes}


@dataclass(frozen=True)
class _Announced:
    """Of one Service. Nobody's name, the empty one, stands for every node."""

    pairs: frozenset[tuple[NodeName, str]] = frozenset()


EVERY_NODE = NodeName("")


class ServiceAnnouncements:
    def __init__(self) -> None:
        self._ranges = Ranges()
        self._known: defaultdict[Key, _Known] = defaultdict(_Known)
        self._service_of: dict[Key, Key] = {}
        """By EndpointSlice."""
        self._announced: dict[Key, _Announced] = {}
        self._by_node: defaultdict[NodeName, Counter[str]] = defaultdict(Counter)

    def of(self, node: NodeName) -> tuple[str, ...]:
        """/32 and /128, each once."""
        return tuple(dict.fromkeys((*self._by_node.get(EVERY_NODE, ()), *self._by_node.get(node, ()))))

    def apply(self, fact: Fact) -> set[NodeName]:
        """One key's current value or absence; the nodes whose announcements changed (`EVERY_NODE`: all)."""
        key = (fact.key[0], fact.key[1])
        if fact.family == SLICE:
            return self._apply_slice(key, fact.value)
        if fact.family == SERVICE:
            self._known[key].spec = None if fact.value is None else fact.value.spec
        elif fact.family == SERVICE_ADDRESSES:
            given: ServiceAddresses | None = fact.value
            self._known[key].given = () if given is None else given.addresses
        return self._settle(key)

    def apply_ranges(self, ranges: Ranges) -> set[NodeName]:
        if ranges == self._ranges:
            return set()
        self._ranges = ranges
        return {node for key in list(self._known) for node in self._settle(key)}

    def _apply_slice(self, key: Key, found: EndpointSlice | None) -> set[NodeName]:
        changed: set[NodeName] = set()
        before = self._service_of.pop(key, None)
        service = (key[0], found.service) if found is not None and found.service else None
        if before is not None and before != service:
            del self._known[before].slices[key[1]]
            changed |= self._settle(before)
        if service is not None and found is not None:
            self._service_of[key] = service
            family = _FAMILIES.get(found.spec.address_type, 0)
            self._known[service].slices[key[1]] = _Slice(service, family, _ready_nodes(found.spec))
            changed |= self._settle(service)
        return changed

    def _settle(self, key: Key) -> set[NodeName]:
        known = self._known[key]
        if known == _Known():
            del self._known[key]
        before = self._announced.pop(key, _Announced())
        after = _Announced(frozenset(_announced(known, self._ranges)))
        if after.pairs:
            self._announced[key] = after
        changed: set[NodeName] = set()
        for node, cidr in after.pairs - before.pairs:
            self._by_node[node][cidr] += 1
            changed |= {node} if self._by_node[node][cidr] == 1 else set()
        for node, cidr in before.pairs - after.pairs:
            counts = self._by_node[node]
            counts[cidr] -= 1
            if not counts[cidr]:
                del counts[cidr]
                changed.add(node)
            if not counts:
                del self._by_node[node]
        return changed


def _announced(known: _Known, ranges: Ranges) -> Iterator[tuple[NodeName, str]]:
    """(node, address as a network); `EVERY_NODE` for all."""
    spec = known.spec
    if spec is None:
        return
    balanced = known.given if spec.type == "LoadBalancer" else ()
    for addresses, inside, one_by_one in (
        (spec.cluster_ips, ranges.cluster, False),
        (spec.external_ips, ranges.external, False),
        (balanced, ranges.load_balancer, not ranges.aggregated),
    ):
        for address in map(ip_address, addresses):
            holding = [network for network in inside if network.version == address.version and address in network]
            nodes = known.ready(address.version)
            if not holding or not nodes:
                continue
            cidr = f"{address}/{address.max_prefixlen}"
            if spec.external_traffic_policy == "Local":
                yield from ((node, cidr) for node in nodes if node)
            elif one_by_one or all(network.num_addresses == 1 for network in holding):
                yield EVERY_NODE, cidr


def _ready_nodes(spec: EndpointSliceSpec) -> frozenset[NodeName]:
    return frozenset(NodeName(endpoint.node_name) for endpoint in spec.endpoints if endpoint.ready)
