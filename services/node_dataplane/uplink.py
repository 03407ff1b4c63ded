"""Which device leads to the other nodes, and with which subnet. Pure over what the kernel said, see
`interfaces`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from services.node_dataplane.errors import UplinkError
from services.node_dataplane.routes import Network


@dataclass(frozen=True)
class Interface:
    name: str
    mtu: int
    networks: tuple[Network, ...]
    defaults: frozenset[int] = frozenset()
    """Families whose default route leaves by it."""


@dataclass(frozen=True)
class Uplink:
    device: str
    mtu: int
    network: Network


def choose(interfaces: Sequence[Interface], family: int, *, address: str = "", device: str = "") -> Uplink | None:
    """The uplink of one family; None when the node has no address of it.

    `address` is what the Node resource says (`10.0.0.15/24`), `device` what the operator set. Without either it is the
    device of the default route, or the only one that has an address at all. A Node without a subnet (/32) takes the
    kernel's. Raises UplinkError when what was asked for is not there."""
    if address:
        asked = ip_interface(address)
        for interface in interfaces:
            for network in interface.networks:
                if network.ip == asked.ip and device in ("", interface.name):
                    whole = asked if asked.network.prefixlen < asked.max_prefixlen else network
                    return Uplink(interface.name, interface.mtu, whole)
        where = f"the device {device} does not carry" if device else "no device carries"
        raise UplinkError(f"{where} the node's address {asked.ip}")
    having = [i for i in interfaces if device in ("", i.name) and any(n.version == family for n in i.networks)]
    preferred = [i for i in having if family in i.defaults] or having[:1]
    if not preferred:
        return None
    network = next(n for n in preferred[0].networks if n.version == family)
    return Uplink(preferred[0].name, preferred[0].mtu, network)
