"""Reading Namespace, ServiceAccount and Pod (v1). Kubernetes has validated them; the many fields that are not a
network's business are passed over."""

from __future__ import annotations

import msgspec

from bus_schemas.manifests import pod_annotations
from bus_schemas.manifests.addresses import address
from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown
from bus_schemas.manifests.names import dns_label
from bus_schemas.manifests.ports import PORT_PROTOCOLS, kubernetes_port, port_number
from bus_schemas.resources.core import Container, ContainerPort, Namespace, Pod, PodSpec, PodStatus, ServiceAccount

NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"
"""The label that the API server puts on every namespace: its name."""

_NAMESPACE = Envelope(namespaced=False, name=dns_label, unknown=Unknown.IGNORED)
_NAMESPACED = Envelope(namespaced=True, unknown=Unknown.IGNORED)


def namespace(document: Fields) -> Namespace:
    meta = metadata(document, _NAMESPACE)
    return Namespace(
        metadata=msgspec.structs.replace(meta, labels={**meta.labels, NAMESPACE_NAME_LABEL: meta.name}),
    )


def service_account(document: Fields) -> ServiceAccount:
    return ServiceAccount(metadata=metadata(document, _NAMESPACED))


def pod(document: Fields) -> Pod:
    spec = document.fields("spec")
    pod_annotations.check_sources(document)
    return Pod(
        metadata=metadata(document, _NAMESPACED),
        spec=PodSpec(
            node_name=spec.string("nodeName"),
            host_network=spec.boolean("hostNetwork"),
            service_account_name=spec.string("serviceAccountName") or spec.string("serviceAccount") or "default",
            containers=tuple(_container(at.fields()) for at in spec.items("containers")),
            init_containers=tuple(_container(at.fields()) for at in spec.items("initContainers")),
        ),
        status=_status(document),
    )


def _container(fields: Fields) -> Container:
    return Container(
        name=fields.string("name"),
        ports=tuple(_port(at.fields()) for at in fields.items("ports")),
    )


def _port(fields: Fields) -> ContainerPort:
    return ContainerPort(
        container_port=fields.required("containerPort", port_number, 1),
        name=fields.read("name", _port_name, ""),
        protocol=fields.choice("protocol", PORT_PROTOCOLS, "TCP"),
    )


def _port_name(at: At) -> str:
    name = at.string()
    if name:
        kubernetes_port(at)
    return name


def _status(document: Fields) -> PodStatus:
    fields = document.fields("status")
    many = tuple(at.fields().read("ip", address, "") for at in fields.items("podIPs"))
    one = fields.take("podIP")
    told = tuple(filter(None, many)) or ((address(one),) if one is not None and one.value != "" else ())
    return PodStatus(phase=fields.string("phase"), pod_ips=told or pod_annotations.addresses(document))
