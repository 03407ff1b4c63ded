"""Builders for services and their endpoint slices, as the bus tells them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bus_schemas.ids import NodeName
from bus_schemas.ipam import ServiceAddresses
from bus_schemas.resources import EndpointSlice, Service
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.services import (
    SERVICE_NAME,
    EndpointSliceSpec,
    LoadBalancerIngress,
    ServicePort,
    ServiceSpec,
    ServiceStatus,
    SliceEndpoint,
    SlicePort,
)
from bus_schemas.subjects import DESIRED, SERVICE_ADDRESSES, Fact
from services.node_dataplane.service_proxy.core import ServiceProxy

NODE = NodeName("node1")
NAMESPACE = "shop"


def port(text: str, node_port: int = 0) -> ServicePort:
    """`tcp/80`, `http:tcp/80`"""
    name, _, rest = text.rpartition(":")
    protocol, _, number = rest.partition("/")
    return ServicePort(name=name, protocol=protocol.upper(), port=int(number), node_port=node_port)


def service(
    name: str,
    *cluster_ips: str,
    ports: Iterable[ServicePort | str] = ("tcp/80",),
    balanced: Iterable[str | LoadBalancerIngress] = (),
    **spec: Any,
) -> Fact:
    ingress = (LoadBalancerIngress(ip=each) if isinstance(each, str) else each for each in balanced)
    value = Service(
        metadata=Metadata(name=name, namespace=NAMESPACE),
        spec=ServiceSpec(
            cluster_ips=cluster_ips, ports=tuple(port(p) if isinstance(p, str) else p for p in ports), **spec
        ),
        status=ServiceStatus(load_balancer_ingress=tuple(ingress)),
    )
    return Fact(DESIRED[Service], (NAMESPACE, name), value)


def endpoint(address: str, node: str = NODE, **conditions: Any) -> SliceEndpoint:
    return SliceEndpoint(addresses=(address,), node_name=node, **conditions)


def slice_of(
    name: str,
    *endpoints: SliceEndpoint | str,
    ports: Iterable[SlicePort | str] = ("tcp/8080",),
    number: int = 0,
    family: str = "IPv4",
) -> Fact:
    def slice_port(each: SlicePort | str) -> SlicePort:
        if isinstance(each, SlicePort):
            return each
        read = port(each)
        return SlicePort(name=read.name, protocol=read.protocol, port=read.port)

    value = EndpointSlice(
        metadata=Metadata(name=f"{name}-{number}", namespace=NAMESPACE, labels={SERVICE_NAME: name}),
        spec=EndpointSliceSpec(
            address_type=family,
            endpoints=tuple(endpoint(e) if isinstance(e, str) else e for e in endpoints),
            ports=tuple(map(slice_port, ports)),
        ),
    )
    return Fact(DESIRED[EndpointSlice], (NAMESPACE, f"{name}-{number}"), value)


def given(name: str, *addresses: str) -> Fact:
    value = ServiceAddresses(namespace=NAMESPACE, service=name, addresses=addresses)
    return Fact(SERVICE_ADDRESSES, (NAMESPACE, name), value)


def gone(fact: Fact) -> Fact:
    return fact._replace(value=None)


def tell(proxy: ServiceProxy, *facts: Fact) -> None:
    for fact in facts:
        assert proxy.apply(fact)
