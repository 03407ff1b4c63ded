"""From a Route, the same for every node, to the one kernel row that is right where this node stands. Pure.

the destination is ours                          blackhole: addresses nobody holds must not loop by the uplink
                                                 (a borrowed address of ours is its pod's own host route)
the owner is in our subnet, tunnel not Always    by the owner's address, directly; as a spare where BIRD brings routes
tunnel Always, or CrossSubnet and another subnet by the owner's vtep on the tunnel device, onlink
the same for IP in IP                            by the owner's address on the tunnel device, onlink
the owner and we have WireGuard keys             by the WireGuard device, whatever the tunnel
otherwise                                        no row: the fabric itself must know the way
an end of the tunnel is not known yet            no row, and `waits`: whatever way there was before stays
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_network
from typing import NamedTuple

from bus_schemas.ids import NodeName
from bus_schemas.routes import Encapsulation, Route, Tunnel
from services.node_dataplane.wireguard import read_key

Destination = tuple[bytes, int]
"""Packed address and prefix length."""
Network = IPv4Interface | IPv6Interface


class Row(NamedTuple):
    """A kernel route. No device: a blackhole. No gateway: the destination is on the link."""

    device: str = ""
    gateway: bytes | None = None
    onlink: bool = False
    metric: int = 0
    """0: goes before all others to the same destination."""


BLACKHOLE = Row()
SPARE = 0xFFFFFFFF
"""Metric of a way that is used only while nobody else, which is BIRD, has one to the same destination."""
_OCTETS = {str(number): number for number in range(256)}
_IPV4_PREFIXES = frozenset(str(length) for length in range(33))
_MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Peer(NamedTuple):
    """A remote node at the far end of the tunnel."""

    vtep: bytes
    mac: str
    remote: bytes
    """Its address on the fabric."""


class Secured(NamedTuple):
    """A remote node whose packets are encrypted."""

    key: bytes
    endpoint: bytes
    """Its address on the fabric."""
    port: int


@dataclass(frozen=True)
class Standpoint:
    """Where this node stands, for one family."""

    uplink: str
    network: Network
    """Own address with the subnet's prefix."""
    tunnel: str = ""
    """Name of the VXLAN device; empty: none is wanted."""
    ipip: str = ""
    """Of the IP-in-IP device."""
    wireguard: str = ""
    """Of the WireGuard device; empty: this node does not encrypt."""
    yields: bool = False
    """BIRD brings the routes that need no tunnel; ours are there in case that it does not."""


class Conversion(NamedTuple):
    destination: Destination
    row: Row | None
    peer: Peer | None = None
    secured: Secured | None = None
    node: NodeName = NodeName("")
    bare: bool = False
    """Not encrypted, though this node encrypts: the owner has no key."""
    owner: str = ""
    """Address of the node behind it, as the route says it."""
    waits: bool = False
    """It is to go through a tunnel of which one end is not known yet."""


def destination(cidr: str) -> Destination:
    """Raises ValueError."""
    address, _, prefix = cidr.partition("/")
    octets = address.split(".")
    if len(octets) == 4 and prefix in _IPV4_PREFIXES:  # most of them, at a quarter of what `ip_network` costs
        try:
            packed = bytes(map(_OCTETS.__getitem__, octets))
        except KeyError:
            pass
        else:
            length = int(prefix)
            if not int.from_bytes(packed) & (0xFFFFFFFF >> length):
                return packed, length
    network = ip_network(cidr)
    return network.network_address.packed, network.prefixlen


@lru_cache(4096)
def _address(text: str) -> IPv4Address | IPv6Address:
    """Many routes lead to few nodes."""
    return ip_address(text.partition("/")[0])


def host(address: str) -> Destination:
    packed = ip_address(address).packed
    return packed, len(packed) * 8


def convert(route: Route, node: NodeName, standpoint: Standpoint | None) -> Conversion:
    """The row for `route` on `node`; `standpoint` is that of the destination's family. Raises ValueError."""
    where = destination(route.cidr)
    if route.node == node:
        return Conversion(where, None if route.borrowed else BLACKHOLE)
    if standpoint is None or not route.address:
        return Conversion(where, None)
    owner = _address(route.address)
    if owner.version != standpoint.network.version or len(where[0]) != len(owner.packed):
        raise ValueError(f"the owner's address {route.address} is not of the destination's family")
    if standpoint.wireguard and route.wireguard is not None:
        secured = Secured(read_key(route.wireguard.key), owner.packed, route.wireguard.port)
        return Conversion(where, Row(standpoint.wireguard), secured=secured, node=route.node, owner=route.address)
    bare = bool(standpoint.wireguard)
    near = owner in standpoint.network.network
    tunnelled = route.tunnel is not Tunnel.NONE and (
        route.encapsulation is Encapsulation.ALWAYS or (route.encapsulation is Encapsulation.CROSS_SUBNET and not near)
    )
    if not tunnelled:
        metric = SPARE if standpoint.yields and route.tunnel is Tunnel.NONE else 0
        row = Row(standpoint.uplink, owner.packed, metric=metric) if near else None
        return Conversion(where, row, node=route.node, bare=bare, owner=route.address)
    if route.tunnel is Tunnel.IPIP:
        row = Row(standpoint.ipip, owner.packed, onlink=True) if standpoint.ipip else None
        return Conversion(where, row, node=route.node, bare=bare, owner=route.address, waits=row is None)
    if not (standpoint.tunnel and route.vtep and route.vtep_mac):
        return Conversion(where, None, node=route.node, owner=route.address, waits=True)
    vtep = ip_address(route.vtep).packed
    if len(vtep) != len(owner.packed) or not _MAC.fullmatch(mac := route.vtep_mac.lower()):
        raise ValueError(f"{route.vtep} {route.vtep_mac} is not the address and the MAC of a tunnel's end")
    peer = Peer(vtep, mac, owner.packed)
    row = Row(standpoint.tunnel, vtep, onlink=True)
    return Conversion(where, row, peer, node=route.node, bare=bare, owner=route.address)
