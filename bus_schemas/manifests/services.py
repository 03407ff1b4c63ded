"""Reading Service (v1) and EndpointSlice (discovery.k8s.io/v1). Kubernetes has validated them."""

from __future__ import annotations

from bus_schemas.manifests.addresses import address, net
from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown
from bus_schemas.manifests.names import label_map
from bus_schemas.manifests.ports import PORT_PROTOCOLS, port_number
from bus_schemas.resources.services import (
    EndpointSlice,
    EndpointSliceSpec,
    LoadBalancerIngress,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
    SliceEndpoint,
    SlicePort,
)

_ENVELOPE = Envelope(namespaced=True, unknown=Unknown.IGNORED)
_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
_TRAFFIC = ("Cluster", "Local")
_HEADLESS = "None"
_AFFINITY = ("None", "ClientIP")
_DAY_S = 86_400
"""The longest affinity that Kubernetes takes."""
_IP_MODES = ("VIP", "Proxy")
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
        internal_traffic_policy=fields.choice("internalTrafficPolicy", _TRAFFIC, "Cluster"),  # type: ignore[arg-type]
        session_affinity=fields.choice("sessionAffinity", _AFFINITY, "None"),  # type: ignore[arg-type]
        session_affinity_timeout_s=_affinity_timeout(fields),
        load_balancer_source_ranges=tuple(net(at) for at in fields.items("loadBalancerSourceRanges")),
        publish_not_ready_addresses=fields.boolean("publishNotReadyAddresses", False),
        health_check_node_port=fields.maybe("healthCheckNodePort", _some_port) or 0,
        selector=fields.maybe("selector", label_map) or {},
        ports=tuple(_service_port(at.fields()) for at in fields.items("ports")),
    )
    ingress = document.fields("status").fields("loadBalancer").items("ingress")
    status = ServiceStatus(load_balancer_ingress=tuple(filter(None, (_ingress(at.fields()) for at in ingress))))
    return Service(metadata=meta, spec=spec, status=status)


def _affinity_timeout(fields: Fields) -> int:
    client = fields.fields("sessionAffinityConfig").fields("clientIP")
    return client.maybe("timeoutSeconds", lambda at: at.integer(1, _DAY_S)) or ServiceSpec().session_affinity_timeout_s


def _some_port(at: At) -> int:
    """Kubernetes writes 0 where there is none."""
    return at.integer(0, 65535)


def _ingress(fields: Fields) -> LoadBalancerIngress | None:
    """None: it has a name instead of an address."""
    ip = fields.read("ip", lambda at: address(at) if at.value else "", "")
    mode = fields.choice("ipMode", _IP_MODES, "VIP")
    return LoadBalancerIngress(ip=ip, ip_mode=mode) if ip else None  # type: ignore[arg-type]


def _service_port(fields: Fields) -> ServicePort:
    return ServicePort(
        name=fields.string("name"),
        protocol=fields.choice("protocol", PORT_PROTOCOLS, "TCP"),
        port=fields.required("port", port_number, 1),
        node_port=fields.maybe("nodePort", _some_port) or 0,
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
    conditions = fields.fields("conditions")
    return SliceEndpoint(
        addresses=tuple(map(At.string, items)) if family == "FQDN" else tuple(map(address, items)),
        ready=conditions.boolean("ready", True),
        serving=conditions.maybe("serving", At.boolean),
        terminating=conditions.boolean("terminating", False),
        node_name=fields.string("nodeName"),
    )


def _slice_port(fields: Fields) -> SlicePort:
    return SlicePort(
        name=fields.string("name"),
        protocol=fields.choice("protocol", PORT_PROTOCOLS, "TCP"),
        port=fields.maybe("port", port_number),
    )
