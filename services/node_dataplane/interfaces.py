"""The node's own devices as the kernel has them now: what `uplink` chooses from."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from services.node_dataplane.links import PREFIX
from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NetlinkSocket
from services.node_dataplane.tunnel import DEVICES
from services.node_dataplane.uplink import Interface


def observe(socket: NetlinkSocket) -> list[Interface]:
    """The node's devices that are up and not our own, by index."""
    addresses = [readback.address(body) for _, body in socket.dump(rtnl.addresses_dump())]
    defaults: dict[int, set[int]] = {}
    for family, version in ((rtnl.AF_INET, 4), (rtnl.AF_INET6, 6)):
        for _, body in socket.dump(rtnl.routes_dump(family, 0)):
            row = readback.route(body)
            if row.prefix == 0 and row.device:
                defaults.setdefault(row.device, set()).add(version)
    seen = []
    for _, body in socket.dump(rtnl.links_dump()):
        link = readback.link(body)
        if not link.up or link.name == "lo" or link.name.startswith(PREFIX) or link.name in DEVICES.values():
            continue
        networks = tuple(
            ip_interface(f"{ip_address(a.packed)}/{a.prefix}")
            for a in addresses
            if a.device == link.device and not ip_address(a.packed).is_link_local
        )
        seen.append((link.device, Interface(link.name, link.mtu, networks, frozenset(defaults.get(link.device, ())))))
    return [interface for _, interface in sorted(seen, key=lambda pair: pair[0])]
