"""Reading Calico's Tier, NetworkSet, GlobalNetworkSet, HostEndpoint and Profile."""

from __future__ import annotations

import re
from typing import Literal

from bus_schemas.manifests.addresses import address, net
from bus_schemas.manifests.calico_rules import rule
from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown, said
from bus_schemas.manifests.names import dns_label, dns_subdomain, label_map
from bus_schemas.manifests.ports import PORT_PROTOCOLS, port_number, protocol, protocol_number
from bus_schemas.resources.metadata import Metadata
from bus_schemas.resources.policy_scopes import (
    ALLOW_ALL,
    DEFAULT_ALLOW,
    FIXED_TIERS,
    GlobalNetworkSet,
    HostEndpoint,
    HostEndpointPort,
    HostEndpointSpec,
    NetworkSet,
    NetworkSetSpec,
    Profile,
    ProfileSpec,
    Tier,
    TierSpec,
)

MAX_INTERFACE = 15
"""IFNAMSIZ of the kernel, without its closing zero."""
MAX_RULES = 1024

NAMESPACE_LABEL = "projectcalico.org/namespace"
DERIVED_PROFILES = ("kns.", "ksa.")
"""What the names of the profiles of namespaces and service accounts begin with."""

INTERFACE = re.compile(r"[A-Za-z0-9_.-]+")
PORT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_ACTIONS: tuple[Literal["Deny", "Pass"], ...] = ("Deny", "Pass")


def tier(document: Fields, *, stored: bool) -> Tier:
    meta = metadata(document, Envelope(namespaced=False, name=dns_label, stored=stored))
    fields = document.fields("spec")
    fixed = FIXED_TIERS.get(meta.name, TierSpec())
    spec = TierSpec(
        order=fields.maybe("order", At.number),
        default_action=fields.choice("defaultAction", _ACTIONS, fixed.default_action),
    )
    fields.close(Unknown.REFUSED)
    if meta.name in FIXED_TIERS:
        if spec.order not in (None, fixed.order):
            fields.place("order").fault(f"is {fixed.order:.0f} in the tier {meta.name} and cannot be another")
        if spec.default_action != fixed.default_action:
            fields.place("defaultAction").fault(f"is {fixed.default_action} in the tier {meta.name}")
        spec = fixed
    return Tier(metadata=meta, spec=spec)


def network_set(document: Fields, *, stored: bool) -> NetworkSet:
    meta = metadata(document, Envelope(namespaced=True, stored=stored))
    return NetworkSet(metadata=_own_labels(document, meta), spec=_nets(document.fields("spec")))


def global_network_set(document: Fields, *, stored: bool) -> GlobalNetworkSet:
    meta = metadata(document, Envelope(namespaced=False, stored=stored))
    return GlobalNetworkSet(metadata=_own_labels(document, meta), spec=_nets(document.fields("spec")))


def _nets(fields: Fields) -> NetworkSetSpec:
    read = NetworkSetSpec(nets=tuple(net(at) for at in fields.items("nets")))
    fields.close(Unknown.REFUSED)
    return read


def _own_labels(document: Fields, meta: Metadata) -> Metadata:
    """A set that could say where it lives could say that it lives elsewhere."""
    if NAMESPACE_LABEL in meta.labels:
        place = document.fields("metadata").place(f"labels[{NAMESPACE_LABEL}]")
        place.fault("is set by the namespace that the object is in, and cannot be given")
    return meta


def host_endpoint(document: Fields, *, stored: bool) -> HostEndpoint:
    meta = metadata(document, Envelope(namespaced=False, stored=stored))
    fields = document.fields("spec")
    spec = HostEndpointSpec(
        node=fields.required("node", dns_subdomain, ""),
        interface_name=fields.read("interfaceName", _interface, ""),
        expected_ips=tuple(address(at) for at in fields.items("expectedIPs")),
        profiles=tuple(dns_subdomain(at) for at in fields.items("profiles")),
        ports=tuple(_port(at.fields()) for at in fields.items("ports")),
    )
    if not spec.interface_name and not spec.expected_ips:
        fields.place("interfaceName").fault("is required where there are no expectedIPs to find the devices by")
    fields.close(Unknown.REFUSED)
    return HostEndpoint(metadata=meta, spec=spec)


def _interface(at: At) -> str:
    name = at.string()
    if name and name != "*" and (len(name) > MAX_INTERFACE or not INTERFACE.fullmatch(name)):
        at.fault(f"must be a device's name (at most {MAX_INTERFACE} characters) or '*', not {said(name)}")
    return name


def _port(fields: Fields) -> HostEndpointPort:
    default: int | str = "TCP"
    read = HostEndpointPort(
        name=fields.required("name", _port_name, ""),
        protocol=fields.required("protocol", _port_protocol, default),
        port=fields.required("port", port_number, 1),
    )
    fields.close(Unknown.REFUSED)
    return read


def _port_protocol(at: At) -> int | str:
    read = protocol(at)
    if protocol_number(read) not in map(protocol_number, PORT_PROTOCOLS):
        at.fault(f"must be a protocol that has ports: {', '.join(PORT_PROTOCOLS)}")
    return read


def _port_name(at: At) -> str:
    name = at.string()
    if not PORT_NAME.fullmatch(name):
        at.fault(f"must be a port's name: letters, digits, '-', '_' and '.', at most 128, not {said(name)}")
    return name


def profile(document: Fields, *, stored: bool) -> Profile:
    meta = metadata(document, Envelope(namespaced=False, stored=stored))
    if meta.name.startswith(DERIVED_PROFILES):
        place = document.fields("metadata").place("name")
        place.fault(f"{said(meta.name)} is made of a namespace or a service account, and cannot be written")
    fields = document.fields("spec")
    spec = ProfileSpec(
        ingress=tuple(rule(at.fields(), "ingress") for at in fields.items("ingress", most=MAX_RULES)),
        egress=tuple(rule(at.fields(), "egress") for at in fields.items("egress", most=MAX_RULES)),
        labels_to_apply=fields.maybe("labelsToApply", label_map) or {},
    )
    fields.close(Unknown.REFUSED)
    if meta.name == DEFAULT_ALLOW and spec != ALLOW_ALL:
        fields.at.fault(f"the profile {DEFAULT_ALLOW} allows everything and cannot be changed")
    return Profile(metadata=meta, spec=spec)
