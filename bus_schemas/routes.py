"""Who reaches what: one record per block (and per borrowed address), the same for every node that reads it.

The record says how the *owner* wants to be reached; each agent makes of it the one kernel route that is right where
it stands (direct, tunnel, blackhole or none), because only it knows its own subnet.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bus_schemas.codec import Message
from bus_schemas.ids import NodeName


class Encapsulation(StrEnum):
    """When packets to the destination travel in a tunnel (IPPool.spec.vxlanMode, ipipMode)."""

    NEVER = "Never"
    CROSS_SUBNET = "CrossSubnet"
    ALWAYS = "Always"


class Tunnel(StrEnum):
    NONE = "none"
    VXLAN = "vxlan"
    IPIP = "ipip"


class WireguardEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Where and as whom a node takes WireGuard packets of one family."""

    key: str
    """Public key, the base64 of 32 bytes."""
    port: int
    """UDP."""


class WireguardKeys(Message, tag="wireguardkeys/1", frozen=True, kw_only=True):
    """What a node's agent says of its WireGuard devices; the private keys never leave the node."""

    node: NodeName
    ipv4: WireguardEnd | None = None
    """Over the node's IPv4 address, for IPv4 destinations; None: it does not take any."""
    ipv6: WireguardEnd | None = None


class Route(Message, tag="route/1", frozen=True, kw_only=True):
    cidr: str
    """Destination: a block, several neighbouring blocks summarised, or one borrowed address (/32, /128)."""
    node: NodeName
    """Where the destination lives."""
    pool: str = ""
    address: str = ""
    """The owner's address on the fabric with its subnet (`10.0.0.16/24`), in the destination's family; empty: the
    owner has none, and nobody but the owner can have a route."""
    tunnel: Tunnel = Tunnel.NONE
    encapsulation: Encapsulation = Encapsulation.NEVER
    vtep: str = ""
    """The owner's tunnel address, the next hop inside a VXLAN tunnel; empty: not known yet, so no tunnel route. The
    next hop of IP in IP is `address` itself."""
    vtep_mac: str = ""
    """Hardware address of the owner's tunnel device, see `vtep_mac_of`."""
    borrowed: bool = False
    wireguard: WireguardEnd | None = None
    """The owner's end in the destination's family. A node that has one of its own encrypts what it sends there,
    whatever the tunnel of the pool; None: the owner has no key, and is reached as the pool says."""


def vtep_mac_of(node: str) -> str:
    """The MAC of a node's VXLAN device: 0x66 and the first five bytes of SHA-1(node name), as Calico derives it."""
    from hashlib import sha1

    digest = sha1(node.encode(), usedforsecurity=False).digest()
    return ":".join(f"{b:02x}" for b in b"\x66" + digest[:5])
