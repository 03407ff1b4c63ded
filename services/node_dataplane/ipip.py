"""The IP-in-IP device that a node should have, from pools and FelixConfiguration. Pure; `ipip_device` makes it so.

One device carries all: `tunl0`, the kernel's own for packets of protocol 4 (RFC 2003). It has no ends of its own, so
the next hop of a route over it, the owner's address on the fabric, is where the outer packet goes; there is nothing to
set up for a peer. IPv4 only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bus_schemas.ids import NodeName
from bus_schemas.resources import FelixConfiguration, IPPool
from services.node_dataplane.felix import setting

DEVICE = "tunl0"
PROTOCOL = 4
OVERHEAD = 20
"""The outer IPv4 header, in bytes."""


@dataclass(frozen=True)
class IpipSpec:
    mtu: int
    addresses: tuple[str, ...] = ()
    """What the node's own packets to pods come from; empty until the address service has given one."""


def wanted(pools: Iterable[IPPool], *, enabled: bool = False) -> bool:
    """Whether a pool uses IP in IP; `enabled`: one that gives out addresses."""
    return any(
        pool.family == 4 and pool.spec.ipip_mode != "Never" and not (enabled and pool.spec.disabled) for pool in pools
    )


def spec(
    node: NodeName, underlay_mtu: int, configurations: Mapping[str, FelixConfiguration], addresses: Iterable[str]
) -> IpipSpec:
    said = setting(configurations, node, "ipip_mtu")
    mtu = said if isinstance(said, int) and 68 <= said <= 65535 else underlay_mtu - OVERHEAD
    return IpipSpec(mtu, tuple(sorted(addresses)))
