"""Services and where they lead (core/v1, discovery.k8s.io/v1): the fields that policies by service need."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from bus_schemas.resources.metadata import Resource

SERVICE_NAME = "kubernetes.io/service-name"
"""The label by which an EndpointSlice names its Service."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    pass


class ServicePort(_Part, frozen=True, kw_only=True):
    name: str = ""
    protocol: str = "TCP"
    port: int


class ServiceSpec(_Part, frozen=True, kw_only=True):
    type: str = "ClusterIP"
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    """`None` (headless) is left out."""
    load_balancer_class: str = ""
    """Empty or `calico`: ours. Anybody else's is left alone."""
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    """The address asked for, before annotations came to be (deprecated in Kubernetes, still used)."""
    ip_families: tuple[str, ...] = ()
    """IPv4, IPv6."""
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    external_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    """`Local`: what comes from outside goes to endpoints of the node where it arrives, with its source."""
    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()


class Service(Resource, tag="service/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Service"
    TOKEN: ClassVar[str] = "service"
    PLURAL: ClassVar[str] = "services"
    ALIASES: ClassVar[tuple[str, ...]] = ("svc",)
    NAMESPACED: ClassVar[bool] = True

    spec: ServiceSpec = ServiceSpec()


class SlicePort(_Part, frozen=True, kw_only=True):
    name: str = ""
    protocol: str = "TCP"
    port: int | None = None
    """None: every port of the protocol."""


class SliceEndpoint(_Part, frozen=True, kw_only=True):
    addresses: tuple[str, ...]
    ready: bool = True
    """conditions.ready, which counts as true when it is absent. Policy does not ask: an endpoint that is about to be
    ready must be reachable, as in Calico."""
    node_name: str = ""
    """Where it runs; empty: not told."""


class EndpointSliceSpec(_Part, frozen=True, kw_only=True):
    """A manifest has these at its top level."""

    address_type: str = "IPv4"
    """IPv4, IPv6 or FQDN (of which nothing is a member)."""
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()


class EndpointSlice(Resource, tag="endpointslice/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "discovery.k8s.io/v1"
    KIND: ClassVar[str] = "EndpointSlice"
    TOKEN: ClassVar[str] = "endpointslice"
    PLURAL: ClassVar[str] = "endpointslices"
    ALIASES: ClassVar[tuple[str, ...]] = ("eps",)
    NAMESPACED: ClassVar[bool] = True

    spec: EndpointSliceSpec = EndpointSliceSpec()

    @property
    def service(self) -> str:
        """The name of the Service in the same namespace; empty: of none."""
        return self.metadata.labels.get(SERVICE_NAME, "")
