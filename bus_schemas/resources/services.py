"""Services and where they lead (core/v1, discovery.k8s.io/v1): the fields that policies by service, the announcement of
addresses and the translation of service addresses need."""

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
    node_port: int = 0
    """On which every node answers; 0: on none."""


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
    internal_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    """`Local`: what is sent to `clusterIPs` goes to endpoints of the node where it arrives."""
    session_affinity: Literal["None", "ClientIP"] = "None"
    """`ClientIP`: the connections of one client go to one endpoint."""
    session_affinity_timeout_s: int = msgspec.field(default=10800, name="sessionAffinityTimeoutSeconds")
    """`sessionAffinityConfig.clientIP.timeoutSeconds`: so long after its last connection a client stays with its
    endpoint."""
    load_balancer_source_ranges: tuple[str, ...] = ()
    """CIDRs that may use the addresses of the load balancer; none: all."""
    publish_not_ready_addresses: bool = False
    """Every endpoint counts as ready."""
    health_check_node_port: int = 0
    """TCP port on which each node tells load balancers whether it has an endpoint; 0: none."""
    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()


class LoadBalancerIngress(_Part, frozen=True, kw_only=True):
    ip: str = ""
    """The address; one that has a name instead is left out."""
    ip_mode: Literal["VIP", "Proxy"] = "VIP"
    """`Proxy`: what nodes get carries other addresses, and whoever wants this one goes by the load balancer."""


class ServiceStatus(_Part, frozen=True, kw_only=True):
    load_balancer_ingress: tuple[LoadBalancerIngress, ...] = ()
    """`loadBalancer.ingress`, those with an address."""


class Service(Resource, tag="service/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Service"
    TOKEN: ClassVar[str] = "service"
    PLURAL: ClassVar[str] = "services"
    ALIASES: ClassVar[tuple[str, ...]] = ("svc",)
    NAMESPACED: ClassVar[bool] = True

    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


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
    serving: bool | None = None
    """conditions.serving: ready, but for its being about to end; None: as `ready`."""
    terminating: bool = False
    """conditions.terminating: it is about to end."""
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
