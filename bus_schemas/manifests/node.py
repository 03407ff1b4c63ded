"""Reading Node, as Kubernetes (v1) or as Calico (projectcalico.org/v3) writes it, into one shape.

In Kubernetes Calico keeps a node's BGP data in annotations of the core node; they are read from there.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass

from bus_schemas.manifests.addresses import address, interface_address, network
from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown, said
from bus_schemas.manifests.numbers import as_number
from bus_schemas.resources.core import Node, NodeAddress, NodeBgp, NodeSpec

_CORE = Envelope(namespaced=False, unknown=Unknown.IGNORED)
_CALICO = Envelope(namespaced=False)

_ANNOTATION = "projectcalico.org/"

WIREGUARD_KEY = 32
"""Bytes of a Curve25519 key."""


def core_node(document: Fields) -> Node:
    meta = metadata(document, _CORE)
    spec, status = document.fields("spec"), document.fields("status")
    annotations = document.fields("metadata").fields("annotations")
    return Node(
        metadata=meta,
        spec=NodeSpec(
            bgp=_bgp(annotations, _ANNOTATION_FIELDS),
            pod_cidrs=_pod_cidrs(spec),
            addresses=tuple(_address(at.fields()) for at in status.items("addresses")),
        ),
    )


def calico_node(document: Fields) -> Node:
    meta = metadata(document, _CALICO)
    spec, status = document.fields("spec"), document.fields("status")
    bgp = spec.maybe("bgp", lambda at: _calico_bgp(at.fields()))
    addresses = tuple(_address(at.fields()) for at in spec.items("addresses"))
    spec.known("orchRefs", "ipv4VXLANTunnelAddr", "ipv6VXLANTunnelAddr", "vxlanTunnelMACAddr", "vxlanTunnelMACAddrV6")
    spec.known("interfaces")
    spec.maybe("wireguard", _wireguard)
    for name in ("wireguardPublicKey", "wireguardPublicKeyV6"):
        status.maybe(name, _wireguard_key)
    pod_cidrs = _pod_cidrs(spec) or _pod_cidrs(status)
    spec.close(Unknown.NEARLY_REFUSED)
    return Node(metadata=meta, spec=NodeSpec(bgp=bgp, pod_cidrs=pod_cidrs, addresses=addresses))


def _wireguard(at: At) -> None:
    fields = at.fields()
    for name, family in (("interfaceIPv4Address", 4), ("interfaceIPv6Address", 6)):
        place = fields.take(name)
        if place is not None and place.value != "":
            address(place, family=family)
    fields.close(Unknown.NEARLY_REFUSED)
    at.warn("has no effect here")


def _wireguard_key(at: At) -> None:
    text = at.string()
    try:
        key = b64decode(text, validate=True)
    except ValueError:
        key = b""
    if text and len(key) != WIREGUARD_KEY:
        at.fault(f"must be the base64 of {WIREGUARD_KEY} bytes, not {said(text)}")


def _pod_cidrs(fields: Fields) -> tuple[str, ...]:
    cidrs = fields.items("podCIDRs")
    if not cidrs and (one := fields.take("podCIDR")) is not None and one.value != "":
        cidrs = [one]
    found = [network(at) for at in cidrs]
    return tuple(str(cidr) for cidr in found if cidr is not None)


def _address(fields: Fields) -> NodeAddress:
    """A host's name may stand there too (type Hostname, InternalDNS): it is kept as it is."""
    kind = fields.string("type")
    if kind.endswith("IP"):
        return NodeAddress(address=fields.required("address", _address_of_interface, ""), type=kind)
    return NodeAddress(address=fields.required("address", At.string, ""), type=kind)


def _address_of_interface(at: At) -> str:
    """Calico allows a prefix length behind the address; it says nothing here."""
    plain = At(at.string().partition("/")[0], at.path, at.report)
    return address(plain)


@dataclass(frozen=True, slots=True)
class _BgpFields:
    ipv4_address: str
    ipv6_address: str
    as_number: str
    cluster_id: str


_SPEC_FIELDS = _BgpFields("ipv4Address", "ipv6Address", "asNumber", "routeReflectorClusterID")
_ANNOTATION_FIELDS = _BgpFields(
    _ANNOTATION + "IPv4Address",
    _ANNOTATION + "IPv6Address",
    _ANNOTATION + "ASNumber",
    _ANNOTATION + "RouteReflectorClusterID",
)


def _calico_bgp(fields: Fields) -> NodeBgp | None:
    if not fields.at.value:
        fields.at.fault("must not be empty")
    fields.known("ipv4IPIPTunnelAddr")
    bgp = _bgp(fields, _SPEC_FIELDS)
    fields.close(Unknown.NEARLY_REFUSED)
    return bgp


def _bgp(fields: Fields, names: _BgpFields) -> NodeBgp | None:
    bgp = NodeBgp(
        ipv4_address=fields.read(names.ipv4_address, lambda at: _optional_interface(at, 4), ""),
        ipv6_address=fields.read(names.ipv6_address, lambda at: _optional_interface(at, 6), ""),
        as_number=fields.maybe(names.as_number, as_number),
        route_reflector_cluster_id=fields.read(names.cluster_id, _cluster_id, ""),
    )
    return None if bgp == NodeBgp() else bgp


def _optional_interface(at: At, family: int) -> str:
    return "" if at.value == "" else interface_address(at, family=family)


def _cluster_id(at: At) -> str:
    """RFC 4456: four bytes, written like an IPv4 address."""
    return "" if at.value == "" else address(at, family=4)
