"""The VXLAN device that a node should have, from pools and FelixConfiguration. Pure; `overlay` makes it so.

One device a family, as the outer packets of one device are all of one family: `vxlan.tortie` carries IPv4 pools over
the nodes' IPv4 addresses, `vxlan6.tortie` IPv6 pools over IPv6. Nothing is learned: each remote node is one permanent
neighbour (its vtep's MAC) and one forwarding entry (the node behind that MAC).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from bus_schemas.ids import NodeName
from bus_schemas.resources import FelixConfiguration, IPPool
from bus_schemas.routes import vtep_mac_of
from services.node_dataplane.checksums import overridden
from services.node_dataplane.felix import setting
from services.node_dataplane.routes import Network

VNI = 4096
PORT = 4789
DEVICES = {4: "vxlan.tortie", 6: "vxlan6.tortie"}
OVERHEAD = {4: 50, 6: 70}
"""Outer Ethernet, IP, UDP and VXLAN headers, in bytes (RFC 7348)."""

_LIMITS = {"vxlan_vni": (1, (1 << 24) - 1), "vxlan_port": (1, 65535), "vxlan_mtu": (68, 65535)}
"""What the kernel takes; MTUs as for any device, `setting` 0 stands for the default."""


@dataclass(frozen=True)
class TunnelSpec:
    family: int
    device: str
    vni: int
    port: int
    mac: str
    mtu: int
    local: bytes
    underlay: str
    addresses: tuple[str, ...] = ()
    """Our own vtep; empty until the address service has given one."""
    checksums_broken: bool | None = None
    """What featureDetectOverride says of its transmit checksum offload; None: nothing."""


def families(pools: Iterable[IPPool], *, enabled: bool = False) -> frozenset[int]:
    """Families with a pool that uses VXLAN; `enabled`: only pools that give out addresses."""
    return frozenset(
        pool.family for pool in pools if pool.spec.vxlan_mode != "Never" and not (enabled and pool.spec.disabled)
    )


def faults(configurations: Mapping[str, FelixConfiguration], node: NodeName) -> list[str]:
    """Numbers of the configuration that cannot be, one sentence each; the default is taken in their place."""
    found = []
    for field, (least, most) in _LIMITS.items():
        value = setting(configurations, node, field)
        if isinstance(value, int) and value and not least <= value <= most:
            found.append(f"FelixConfiguration: {field} is {value}, not from {least} to {most}")
    return found


def spec(
    node: NodeName,
    network: Network,
    underlay: str,
    underlay_mtu: int,
    configurations: Mapping[str, FelixConfiguration],
    addresses: Iterable[str],
) -> TunnelSpec:
    """The device of one family on this node."""
    family = network.version

    def number(field: str, default: int) -> int:
        value = setting(configurations, node, field)
        least, most = _LIMITS[field]
        return value if isinstance(value, int) and least <= value <= most else default

    override = setting(configurations, node, "feature_detect_override")
    return TunnelSpec(
        family=family,
        device=DEVICES[family],
        vni=number("vxlan_vni", VNI),
        port=number("vxlan_port", PORT),
        mac=vtep_mac_of(node),
        mtu=number("vxlan_mtu", underlay_mtu - OVERHEAD[family]),
        local=network.ip.packed,
        underlay=underlay,
        addresses=tuple(sorted(a for a in addresses if (":" in a) == (family == 6))),
        checksums_broken=overridden(override if isinstance(override, str) else None),
    )


def misplaced(addresses: Iterable[str], pools: Iterable[IPPool]) -> tuple[str, ...]:
    """Own tunnel addresses that none of the pools, from which they may be, covers any more."""
    nets = [ip_network(pool.spec.cidr) for pool in pools]
    return tuple(a for a in addresses if not any(ip_address(a) in net for net in nets if net.version == _version(a)))


def _version(address: str) -> int:
    return 6 if ":" in address else 4
