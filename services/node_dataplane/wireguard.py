"""The WireGuard devices that a node should have, from FelixConfiguration. Pure; `wireguard_device` makes it so.

    wg.tortie   IPv4 destinations, outer packets between the nodes' IPv4 addresses
    wg6.tortie  IPv6 destinations, between their IPv6 addresses

A peer is another node that has a key, and its allowed addresses are the destinations of the routes that lead to it: the
device picks the peer by the destination, so plain routes over the device are enough, in the main table, and no rule of
routing is needed. What reaches the node from a peer must come from those addresses, too.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bus_schemas.ids import NodeName
from bus_schemas.resources import FelixConfiguration
from services.node_dataplane.felix import setting
from services.node_dataplane.turns import seconds

DEVICES = {4: "wg.tortie", 6: "wg6.tortie"}
PORTS = {4: 51820, 6: 51821}
OVERHEAD = {4: 60, 6: 80}
"""Outer IP, UDP, and WireGuard's header and authenticator, in bytes."""
KEY_BYTES = 32
_ENABLED = {4: "wireguard_enabled", 6: "wireguard_enabled_v6"}
_PORT = {4: "wireguard_listening_port", 6: "wireguard_listening_port_v6"}
_MTU = {4: "wireguard_mtu", 6: "wireguard_mtu_v6"}
_LONGEST_KEEP_ALIVE_S = 65535


class Allowed(NamedTuple):
    """A network whose packets a peer may send, and is sent."""

    packed: bytes
    prefix: int


class WireguardPeer(NamedTuple):
    key: bytes
    endpoint: bytes
    """The node's address on the fabric."""
    port: int
    allowed: frozenset[Allowed]


@dataclass(frozen=True)
class WireguardSpec:
    port: int
    mtu: int
    keep_alive_s: int = 0
    """0: none."""
    addresses: tuple[str, ...] = ()
    """What the node's own packets to pods come from; empty until the address service has given one."""


def enabled(configurations: Mapping[str, FelixConfiguration], node: NodeName, family: int) -> bool:
    return bool(setting(configurations, node, _ENABLED[family]))


def spec(
    node: NodeName,
    family: int,
    underlay_mtu: int,
    configurations: Mapping[str, FelixConfiguration],
    addresses: Iterable[str],
) -> WireguardSpec:
    said = setting(configurations, node, "wireguard_keep_alive")
    keep_alive = seconds(said) if isinstance(said, str) else None
    port, mtu = setting(configurations, node, _PORT[family]), setting(configurations, node, _MTU[family])
    return WireguardSpec(
        port=port if isinstance(port, int) and 0 < port <= 65535 else PORTS[family],
        mtu=mtu if isinstance(mtu, int) and 68 <= mtu <= 65535 else underlay_mtu - OVERHEAD[family],
        keep_alive_s=min(round(keep_alive or 0), _LONGEST_KEEP_ALIVE_S),
        addresses=tuple(sorted(a for a in addresses if (":" in a) == (family == 6))),
    )


def read_key(text: str) -> bytes:
    """A key as people and the bus write it. Raises ValueError."""
    try:
        key = b64decode(text, validate=True)
    except Error as error:
        raise ValueError(f"{text!r} is not a WireGuard key: {error}") from error
    if len(key) != KEY_BYTES:
        raise ValueError(f"{text!r} is not a WireGuard key: it has {len(key)} bytes, not {KEY_BYTES}")
    return key
