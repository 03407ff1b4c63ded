"""Where a packet to a service address goes, worked out for that packet alone from services and slices: slow, and plain.

It follows kube-proxy's words (KEP-1669, KEP-2086 and the Service API), and knows nothing of frontends, pools or rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Literal

from bus_schemas.resources import EndpointSlice, Service
from bus_schemas.resources.services import ServicePort, SliceEndpoint
from tests.support.service_worlds import NODE

Fate = frozenset[str] | Literal["reject", "drop", "none"]
"""The `address port` that it may go to; or what becomes of it; or it is no service's affair."""
_NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132}


@dataclass(frozen=True)
class Asked:
    source: str
    destination: str
    protocol: int
    port: int
    inside: bool
    """From this node or one of its pods."""


def fate(asked: Asked, services: Sequence[Service], slices: Sequence[EndpointSlice], node: Iterable[str]) -> Fate:
    """`services` by name: of several that want an address and port, the first has it."""
    owned = False
    for service in services:
        spec = service.spec
        if not spec.cluster_ips or spec.type == "ExternalName":
            continue
        owned = owned or asked.destination in spec.cluster_ips
        balanced = [i.ip for i in service.status.load_balancer_ingress if i.ip_mode == "VIP"]
        for port in spec.ports:
            if _NUMBERS[port.protocol] != asked.protocol:
                continue
            if asked.destination in spec.cluster_ips and port.port == asked.port:
                only_here = spec.internal_traffic_policy == "Local"
            elif asked.destination in spec.external_ips and port.port == asked.port:
                only_here = spec.external_traffic_policy == "Local" and not asked.inside
            elif spec.type == "LoadBalancer" and asked.destination in balanced and port.port == asked.port:
                only_here = spec.external_traffic_policy == "Local" and not asked.inside
                source = ip_address(asked.source)
                ranges = [ip_network(text) for text in spec.load_balancer_source_ranges]
                if ranges and not any(source in net for net in ranges if net.version == source.version):
                    return "drop"
            elif asked.destination in node and port.node_port == asked.port and _speaks(spec.cluster_ips, asked):
                only_here = spec.external_traffic_policy == "Local" and not asked.inside
            else:
                continue
            return _endpoints(service, port, slices, only_here, ":" in asked.destination)
    return "reject" if owned else "none"


def _speaks(cluster_ips: Iterable[str], asked: Asked) -> bool:
    return any((":" in ip) == (":" in asked.destination) for ip in cluster_ips)


def _endpoints(
    service: Service, port: ServicePort, slices: Sequence[EndpointSlice], only_here: bool, six: bool
) -> Fate:
    found: list[tuple[str, SliceEndpoint]] = []
    for each in slices:
        if each.service != service.metadata.name or each.spec.address_type != ("IPv6" if six else "IPv4"):
            continue
        for slice_port in each.spec.ports:
            if (slice_port.name, slice_port.protocol) == (port.name, port.protocol) and slice_port.port:
                found += [(f"{e.addresses[0]} {slice_port.port}", e) for e in each.spec.endpoints]
    always = service.spec.publish_not_ready_addresses
    ready = [(there, e) for there, e in found if e.ready or always]
    ending = [(there, e) for there, e in found if (e.ready if e.serving is None else e.serving) and e.terminating]
    if not ready and not ending:
        return "reject"
    if not only_here:
        return frozenset(there for there, _ in ready or ending)
    here = [there for there, e in ready if e.node_name == NODE] or [there for there, e in ending if e.node_name == NODE]
    return frozenset(here) or "drop"
