"""From a Route, the same for every node, to the one kernel row that is right where this node stands. Pure.

the destination is ours                          blackhole: addresses nobody holds must not loop by the uplink
                                                 (a borrowed address of ours is its pod's own host route)
the owner is in our subnet, tunnel not Always    by the owner's address, directly
tunnel Always, or CrossSubnet and another subnet by the owner's vtep on the tunnel device, onlink
otherwise                                        no row: the fabric itself must know the way
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_network
from typing import NamedTuple

from bus_schemas.ids import NodeName
from bus_schemas.routes import Encapsulation, Route, Tunnel

Destination = tuple[bytes, int]
"""Packed address and prefix length."""
Network = IPv4Interface | IPv6Interface


class Row(NamedTuple):
    """A kernel route. No device: a blackhole. No gateway: the destination is on the link."""

    device: str = ""
    gateway: bytes | None = None
    onlink: bool = False


BLACKHOLE = Row()
_MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Peer(NamedTuple):
    """A remote node at the far end of the tunnel."""

    vtep: bytes
    mac: str
    remote: bytes
    """Its address on the fabric."""


@dataclass(frozen=True)
class Standpoint:
    """Where this node stands, for one family."""

    uplink: str
    network: Network
    """Own address with the subnet's prefix."""
    tunnel: str = ""
    """Name of the tunnel device; empty: none is wanted."""


class Conversion(NamedTuple):
    destination: Destination
    row: Row | None
    peer: Peer | None = None


def destination(cidr: str) -> Destination:
    """Raises ValueError."""
    network = ip_network(cidr)
    return network.network_address.packed, network.prefixlen


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
    owner = ip_address(route.address.partition("/")[0])
    if owner.version != standpoint.network.version or len(where[0]) != len(owner.packed):
        raise ValueError(f"the owner's address {route.address} is not of the destination's family")
    near = owner in standpoint.network.network
    tunnelled = route.tunnel is Tunnel.VXLAN and (
        route.encapsulation is Encapsulation.ALWAYS or (route.encapsulation is Encapsulation.CROSS_SUBNET and not near)
    )
    if tunnelled:
        if not (standpoint.tunnel and route.vtep and route.vtep_mac):
            return Conversion(where, None)
        vtep = ip_address(route.vtep).packed
        if len(vtep) != len(owner.packed) or not _MAC.fullmatch(mac := route.vtep_mac.lower()):
            raise ValueError(f"{route.vtep} {route.vtep_mac} is not the address and the MAC of a tunnel's end")
        return Conversion(where, Row(standpoint.tunnel, vtep, onlink=True), Peer(vtep, mac, owner.packed))
    return Conversion(where, Row(standpoint.uplink, owner.packed) if near else None)
