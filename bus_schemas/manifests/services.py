"""Reading Service (v1) and EndpointSlice (discovery.k8s.io/v1). Kubernetes has validated them."""

from __future__ import annotations

from bus_schemas.manifests.addresses import address
from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown
from bus_schemas.manifests.names import label_map
from bus_schemas.manifests.ports import PORT_PROTOCOLS, port_number
from bus_schemas.resources.services import (
    EndpointSlice,
    EndpointSliceSpec,
    Service,
    ServicePort,
    ServiceSpec,
    SliceEndpoint,
    SlicePort,
)

_ENVELOPE = Envelope(namespaced=True, unknown=Unknown.IGNORED)
_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
_TRAFFIC = ("Cluster", "Local")
_HEADLESS = "None"
_IP_FAMILIES = ("IPv4", "IPv6")
_FAMILIES = ("IPv4", "IPv6", "FQDN")


def service(document: Fields) -> Service:
    meta = metadata(document, _ENVELOPE)
    fields = document.fields("spec")
    one = fields.take("clusterIP")
    many = [at for at in fields.items("clusterIPs") if at.value not in ("", _HEADLESS)]
    if not many and one is not None and one.value not in ("", _HEADLESS):
        many = [one]
    spec = ServiceSpec(
        type=fields.choice("type", _TYPES, "ClusterIP"),
        cluster_ips=tuple(map(address, many)),
        load_balancer_class=fields.string("loadBalancerClass"),
        load_balancer_ip=fields.read("loadBalancerIP", lambda at: address(at) if at.value else "", ""),
        ip_families=tuple(at.choice(_IP_FAMILIES) for at in fields.items("ipFamilies")),
        external_ips=tuple(address(at) for at in fields.items("externalIPs")),
        external_traffic_policy=fields.choice("externalTrafficPolicy", _TRAFFIC, "Cluster"),  # type: ignore[arg-type]
        selector=fields.maybe("selector", label_map) or {},
        ports=tuple(_service_port(at.fields()) for at in fields.items("ports")),
    )
    return Service(metadata=meta, spec=spec)


def _service_port(fields: Fields) -> ServicePort:
    return ServicePort(
        name=fields.string("name"),
        protocol=fields.choice("protocol", PORT_PROTOCOLS, "TCP"),
        port=fields.required("port", port_number, 1),
    )


def endpoint_slice(document: Fields) -> EndpointSlice:
    meta = metadata(document, _ENVELOPE)
    family = document.required("addressType", lambda at: at.choice(_FAMILIES), "IPv4")
    spec = EndpointSliceSpec(
        address_type=family,
        endpoints=tuple(_endpoint(at.fields(), family) for at in document.items("endpoints")),
        ports=tuple(_slice_port(at.fields()) for at in document.items("ports")),
    )
    return EndpointSlice(metadata=meta, spec=spec)


def _endpoint(fields: Fields, family: str) -> SliceEndpoint:
    items = fields.items("addresses")
    return SliceEndpoint(
        addresses=tuple(map(At.string, items)) if family == "FQDN" else tuple(map(address, items)),
        ready=fields.fields("conditions").boolean("ready", True),
        node_name=fields.string("nodeName"),
    )


def _slice_port(fields: Fields) -> SlicePort:
    return SlicePort(
        name=fields.string("name"),
        protocol=fields.choice("protocol", PORT_PROTOCOLS, "TCP"),
        port=fields.maybe("port", port_number),
    )
