"""The node's own devices as the kernel has them now: what `uplink` chooses from, and what host endpoints govern."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import NamedTuple

from services.node_dataplane.links import PREFIX
from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NetlinkSocket
from services.node_dataplane.tunnel_devices import NAMES
from services.node_dataplane.uplink import Interface

_UNFIT = (
    (rtnl.IFA_F_DADFAILED, "is somebody else's, too (duplicate address detection)"),
    (rtnl.IFA_F_TENTATIVE, "is not in use yet (duplicate address detection)"),
    (rtnl.IFA_F_TEMPORARY, "is a temporary one (RFC 8981)"),
    (rtnl.IFA_F_DEPRECATED, "is deprecated"),
)


class Seen(NamedTuple):
    uplinks: list[Interface]
    """All devices but pods' links, by their number."""
    devices: dict[str, frozenset[str]]
    """All but pod links, with the plain addresses that they carry."""


def observe(socket: NetlinkSocket) -> Seen:
    addresses = [readback.address(body) for _, body in socket.dump(rtnl.addresses_dump())]
    defaults: dict[int, set[int]] = {}
    for family, version in ((rtnl.AF_INET, 4), (rtnl.AF_INET6, 6)):
        for _, body in socket.dump(rtnl.routes_dump(family, 0)):
            row = readback.route(body)
            if row.prefix == 0 and row.device:
                defaults.setdefault(row.device, set()).add(version)
    carried: dict[int, set[str]] = {}
    for address in addresses:
        carried.setdefault(address.device, set()).add(str(ip_address(address.packed)))
    seen = []
    devices = {}
    for _, body in socket.dump(rtnl.links_dump()):
        link = readback.link(body)
        if link.name.startswith(PREFIX):
            continue
        devices[link.name] = frozenset(carried.get(link.device, ()))
        own = [a for a in addresses if a.device == link.device and not ip_address(a.packed).is_link_local]
        interface = Interface(
            link.name,
            link.mtu,
            tuple(ip_interface(f"{ip_address(a.packed)}/{a.prefix}") for a in own),
            frozenset(defaults.get(link.device, ())),
            up=link.up,
            own=link.name in NAMES,
            unfit=tuple((ip_interface(f"{ip_address(a.packed)}/{a.prefix}"), why) for a in own if (why := _unfit(a))),
        )
        seen.append((link.device, interface))
    return Seen([interface for _, interface in sorted(seen, key=lambda pair: pair[0])], devices)


def _unfit(address: readback.Address) -> str:
    """Why nobody should rely on an IPv6 address; empty: one may. Of IPv4 the bit of the temporary ones says that others
    of the subnet come first, which is no fault."""
    if len(address.packed) == 4:
        return ""
    for bit, why in _UNFIT:
        if address.flags & bit:
            return why
    return ""
