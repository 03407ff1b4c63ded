"""The core/v1 kinds that a network needs: Namespace, Pod, ServiceAccount, and Node (also as Calico writes it)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import msgspec

from bus_schemas.resources.metadata import Metadata, Resource


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    pass


class Namespace(Resource, tag="namespace/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Namespace"
    TOKEN: ClassVar[str] = "namespace"
    PLURAL: ClassVar[str] = "namespaces"
    ALIASES: ClassVar[tuple[str, ...]] = ("ns",)
    NAMESPACED: ClassVar[bool] = False


class ServiceAccount(Resource, tag="serviceaccount/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "ServiceAccount"
    TOKEN: ClassVar[str] = "serviceaccount"
    PLURAL: ClassVar[str] = "serviceaccounts"
    ALIASES: ClassVar[tuple[str, ...]] = ("sa",)
    NAMESPACED: ClassVar[bool] = True


class ContainerPort(_Part, frozen=True, kw_only=True):
    container_port: int
    name: str = ""
    protocol: str = "TCP"


class Container(_Part, frozen=True, kw_only=True):
    name: str = ""
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(_Part, frozen=True, kw_only=True):
    node_name: str = ""
    host_network: bool = False
    service_account_name: str = "default"
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    """Some of them go on running beside the others; their ports count as well."""


class PodStatus(_Part, frozen=True, kw_only=True):
    phase: str = ""
    pod_ips: tuple[str, ...] = msgspec.field(default=(), name="podIPs")
    """Plain addresses."""


class Pod(Resource, tag="pod/1", frozen=True, kw_only=True):
    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Pod"
    TOKEN: ClassVar[str] = "pod"
    PLURAL: ClassVar[str] = "pods"
    ALIASES: ClassVar[tuple[str, ...]] = ("po",)
    NAMESPACED: ClassVar[bool] = True

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ports(self) -> Iterator[ContainerPort]:
        """Every declared port of every container."""
        for container in (*self.spec.containers, *self.spec.init_containers):
            yield from container.ports


class NodeBgp(_Part, frozen=True, kw_only=True):
    """projectcalico.org/v3 NodeBGPSpec, the fields that something here uses."""

    ipv4_address: str = msgspec.field(default="", name="ipv4Address")
    """With the subnet's prefix: `10.0.0.15/24`."""
    ipv6_address: str = msgspec.field(default="", name="ipv6Address")
    as_number: int | None = None
    route_reflector_cluster_id: str = msgspec.field(default="", name="routeReflectorClusterID")


class NodeAddress(_Part, frozen=True, kw_only=True):
    address: str
    type: str = ""


class NodeSpec(_Part, frozen=True, kw_only=True):
    bgp: NodeBgp | None = None
    pod_cidrs: tuple[str, ...] = msgspec.field(default=(), name="podCIDRs")
    addresses: tuple[NodeAddress, ...] = ()


class Node(Resource, tag="node/1", frozen=True, kw_only=True):
    """One node. A core/v1 manifest's status.addresses and a projectcalico.org/v3 manifest's spec are read into the
    same fields, so every service sees one shape."""

    API_VERSION: ClassVar[str] = "projectcalico.org/v3"
    KIND: ClassVar[str] = "Node"
    TOKEN: ClassVar[str] = "node"
    PLURAL: ClassVar[str] = "nodes"
    ALIASES: ClassVar[tuple[str, ...]] = ("no",)
    NAMESPACED: ClassVar[bool] = False

    spec: NodeSpec = NodeSpec()

    def address(self, family: int) -> str:
        """The node's address on the fabric with its prefix length, `10.0.0.15/24`; empty when it has none.

        Without a subnet in the resource (a core/v1 InternalIP) the prefix is /32 or /128."""
        bgp = self.spec.bgp
        known = "" if bgp is None else bgp.ipv4_address if family == 4 else bgp.ipv6_address
        if known:
            return known if "/" in known else f"{known}/{32 if family == 4 else 128}"
        for candidate in self.spec.addresses:
            if candidate.type in ("InternalIP", "CalicoNodeIP") and (":" in candidate.address) == (family == 6):
                return f"{candidate.address}/{32 if family == 4 else 128}"
        return ""


__all__ = [
    "Container",
    "ContainerPort",
    "Metadata",
    "Namespace",
    "Node",
    "NodeAddress",
    "NodeBgp",
    "NodeSpec",
    "Pod",
    "PodSpec",
    "PodStatus",
    "ServiceAccount",
]
