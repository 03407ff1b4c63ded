"""Builders for the world of BGP: configurations, peers and filters as facts, and records as sets of sessions."""

from __future__ import annotations

from typing import Any

from bus_schemas.bgp import MeshMember, Speaker, with_mesh
from bus_schemas.ids import NodeName
from bus_schemas.ipam import ServiceAddresses
from bus_schemas.resources import (
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    EndpointSlice,
    Metadata,
    Node,
    Service,
)
from bus_schemas.resources.bgp import BGPConfigurationSpec, BGPFilterSpec, BGPPeerSpec
from bus_schemas.resources.core import NodeBgp, NodeSpec
from bus_schemas.resources.services import SERVICE_NAME, EndpointSliceSpec, ServiceSpec, SliceEndpoint
from bus_schemas.routes import Route
from bus_schemas.subjects import DESIRED, SERVICE_ADDRESSES, Fact
from services.route_distribution.bgp import BgpCore


def speaking(
    name: str,
    v4: str = "",
    v6: str = "",
    *,
    labels: dict[str, str] | None = None,
    as_number: int | None = None,
    cluster: str = "",
) -> Fact:
    """A node."""
    bgp = NodeBgp(ipv4_address=v4, ipv6_address=v6, as_number=as_number, route_reflector_cluster_id=cluster)
    resource = Node(metadata=Metadata(name=name, labels=labels or {}), spec=NodeSpec(bgp=bgp))
    return Fact(DESIRED[Node], resource.key, resource)


def configuration(name: str = "default", **spec: Any) -> Fact:
    resource = BGPConfiguration(metadata=Metadata(name=name), spec=BGPConfigurationSpec(**spec))
    return Fact(DESIRED[BGPConfiguration], resource.key, resource)


def peer(name: str, **spec: Any) -> Fact:
    resource = BGPPeer(metadata=Metadata(name=name), spec=BGPPeerSpec(**spec))
    return Fact(DESIRED[BGPPeer], resource.key, resource)


def bgp_filter(name: str, **spec: Any) -> Fact:
    resource = BGPFilter(metadata=Metadata(name=name), spec=BGPFilterSpec(**spec))
    return Fact(DESIRED[BGPFilter], resource.key, resource)


class Told:
    """A core, and everything that it has published."""

    def __init__(self, *facts: Fact) -> None:
        self.core = BgpCore()
        self.speakers: dict[str, Speaker] = {}
        self.members: dict[str, MeshMember] = {}
        self.troubles: set[str] = set()
        self.tell(*facts)

    def tell(self, *facts: Fact) -> set[str]:
        """The keys that were written for it: names of nodes, those of the mesh with `mesh/` before."""
        for fact in facts:
            self.core.apply(fact)
        return self.flush()

    def lead(self, cidr: str, node: str | None, *, borrowed: bool = False) -> set[str]:
        route = None if node is None else Route(cidr=cidr, node=NodeName(node), borrowed=borrowed)
        self.core.apply_route(cidr, route)
        return self.flush()

    def flush(self) -> set[str]:
        changes = self.core.flush()
        for kept, changed in ((self.speakers, changes.speakers), (self.members, changes.members)):
            for name, value in changed.items():
                if value is None:
                    del kept[name]  # type: ignore[attr-defined]
                else:
                    kept[name] = value  # type: ignore[index]
        self.troubles -= {trouble.object for trouble in changes.cleared}
        self.troubles |= {trouble.object for trouble in changes.raised}
        return {*changes.speakers, *(f"mesh/{name}" for name in changes.members)}

    def whole(self, node: str) -> Speaker:
        return with_mesh(self.speakers[node], self.members.values())

    def neighbours(self, node: str) -> list[str]:
        return [session.neighbour for session in self.whole(node).sessions]


def service(name: str, **spec: Any) -> Fact:
    resource = Service(metadata=Metadata(name=name, namespace="default"), spec=ServiceSpec(**spec))
    return Fact(DESIRED[Service], resource.key, resource)


def endpoint_slice(name: str, of: str, *nodes: str, ready: bool = True, family: str = "IPv4") -> Fact:
    """One endpoint on each of the nodes."""
    endpoints = tuple(SliceEndpoint(addresses=("10.244.9.9",), ready=ready, node_name=node) for node in nodes)
    metadata = Metadata(name=name, namespace="default", labels={SERVICE_NAME: of} if of else {})
    spec = EndpointSliceSpec(address_type=family, endpoints=endpoints)
    resource = EndpointSlice(metadata=metadata, spec=spec)
    return Fact(DESIRED[EndpointSlice], resource.key, resource)


def balanced(name: str, *addresses: str) -> Fact:
    """What ipam gave to a Service of type LoadBalancer."""
    message = ServiceAddresses(namespace="default", service=name, addresses=addresses)
    return Fact(SERVICE_ADDRESSES, ("default", name), message)
