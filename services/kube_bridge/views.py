"""The fields of the core kinds that a network uses: what is decoded of an object, and nothing else. Pure.

An API server sends ten times as much (managed fields, volumes, probes); skipping it while decoding costs a tenth of
building it. Kinds that are not here (policies, Calico's) are decoded whole: there an unknown field is a fault.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bus_schemas.resources import EndpointSlice, Namespace, Node, Pod, Resource, Service, ServiceAccount


class _View(msgspec.Struct, omit_defaults=True):
    """A null stands for what is not there."""


class Meta(_View):
    name: str
    namespace: str | None = None
    uid: str | None = None
    creationTimestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Port(_View):
    containerPort: int
    name: str | None = None
    protocol: str | None = None


class _Container(_View):
    name: str | None = None
    ports: list[_Port] | None = None


class _PodSpec(_View):
    nodeName: str | None = None
    hostNetwork: bool | None = None
    serviceAccountName: str | None = None
    containers: list[_Container] | None = None
    initContainers: list[_Container] | None = None


class _PodIP(_View):
    ip: str | None = None


class _PodStatus(_View):
    phase: str | None = None
    podIP: str | None = None
    podIPs: list[_PodIP] | None = None


class PodView(_View):
    metadata: Meta
    spec: _PodSpec | None = None
    status: _PodStatus | None = None

    def __post_init__(self) -> None:
        """Containers without ports say nothing to a network."""
        if self.spec is not None:
            for name in ("containers", "initContainers"):
                held = getattr(self.spec, name)
                setattr(self.spec, name, [one for one in held if one.ports] or None if held else None)


class _NodeSpec(_View):
    podCIDR: str | None = None
    podCIDRs: list[str] | None = None


class _NodeAddress(_View):
    address: str
    type: str | None = None


class _NodeStatus(_View):
    addresses: list[_NodeAddress] | None = None


class NodeView(_View):
    metadata: Meta
    spec: _NodeSpec | None = None
    status: _NodeStatus | None = None


class MetaView(_View):
    metadata: Meta


class _ServicePort(_View):
    port: int
    name: str | None = None
    protocol: str | None = None
    nodePort: int | None = None


class _ClientIP(_View):
    timeoutSeconds: int | None = None


class _SessionAffinity(_View):
    clientIP: _ClientIP | None = None


class _ServiceSpec(_View):
    type: str | None = None
    clusterIP: str | None = None
    clusterIPs: list[str] | None = None
    loadBalancerClass: str | None = None
    loadBalancerIP: str | None = None
    ipFamilies: list[str] | None = None
    externalIPs: list[str] | None = None
    externalTrafficPolicy: str | None = None
    internalTrafficPolicy: str | None = None
    sessionAffinity: str | None = None
    sessionAffinityConfig: _SessionAffinity | None = None
    loadBalancerSourceRanges: list[str] | None = None
    publishNotReadyAddresses: bool | None = None
    healthCheckNodePort: int | None = None
    selector: dict[str, str] | None = None
    ports: list[_ServicePort] | None = None


class _Ingress(_View):
    ip: str | None = None
    hostname: str | None = None
    ipMode: str | None = None


class _LoadBalancer(_View):
    ingress: list[_Ingress] | None = None


class _ServiceStatus(_View):
    loadBalancer: _LoadBalancer | None = None


class ServiceView(_View):
    metadata: Meta
    spec: _ServiceSpec | None = None
    status: _ServiceStatus | None = None


class _Conditions(_View):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _SliceEndpoint(_View):
    addresses: list[str] | None = None
    conditions: _Conditions | None = None
    nodeName: str | None = None


class _SlicePort(_View):
    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class SliceView(_View):
    metadata: Meta
    addressType: str | None = None
    endpoints: list[_SliceEndpoint] | None = None
    ports: list[_SlicePort] | None = None


VIEWS: dict[type[Resource], type[Any]] = {
    Namespace: MetaView,
    ServiceAccount: MetaView,
    Node: NodeView,
    Pod: PodView,
    Service: ServiceView,
    EndpointSlice: SliceView,
}


class ObjectMeta(_View):
    """What the bridge itself needs of every object's metadata."""

    name: str
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    generation: int = 0
    annotations: dict[str, str] | None = None


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """meta/v1 Condition, and a node's: `lastHeartbeatTime` is a node's alone."""

    type: str
    status: str = ""
    reason: str = ""
    message: str = ""
    observedGeneration: int = 0
    lastTransitionTime: str = ""
    lastHeartbeatTime: str = ""


class ObjectStatus(_View):
    """What the bridge reports on."""

    conditions: list[Condition] | None = None
    loadBalancer: _LoadBalancer | None = None


class Head(_View):
    """Decoded of every object that the bridge reports on."""

    metadata: ObjectMeta
    status: ObjectStatus | None = None


class MetaHead(_View):
    """Of every other object."""

    metadata: ObjectMeta


class ListMeta(_View):
    resourceVersion: str = ""
    continue_: str | None = msgspec.field(default=None, name="continue")


class ListPage(_View):
    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


class WatchEvent(_View):
    type: str
    object: msgspec.Raw


class Bookmark(_View):
    metadata: BookmarkMeta


class BookmarkMeta(_View):
    resourceVersion: str = ""
    annotations: dict[str, str] | None = None


class StatusBody(_View):
    """meta/v1 Status: an error."""

    code: int = 0
    reason: str = ""
    message: str = ""
