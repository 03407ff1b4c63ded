"""What links there are, and which addresses their far ends have: read from the kernel, without entering any namespace.

The kernel says of a veth by which number (netnsid) this namespace knows that of its far end, and answers questions
about devices and addresses there. That is the truth about an address: a pod can make up what ARP and NDP say.
"""

from __future__ import annotations

import errno
from ipaddress import ip_address

from services.node_dataplane.found.residents import Bridge, Seen, Veth
from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.readback import Link
from services.node_dataplane.netlink.wire import NetlinkError, NetlinkSocket

_GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.EINVAL, errno.ENONET})
"""The namespace, or the device in it, ended meanwhile."""


def observe(socket: NetlinkSocket) -> Seen:
    """Raises NetlinkError."""
    links = [readback.link(body) for _, body in socket.dump(rtnl.links_dump())]
    by_index = {link.device: link for link in links}
    carried: dict[int, list[str]] = {}
    for _, body in socket.dump(rtnl.addresses_dump()):
        row = readback.address(body)
        if row.packed:
            carried.setdefault(row.device, []).append(f"{ip_address(row.packed)}/{row.prefix}")
    veths = [found for link in links if (found := _veth(socket, link, by_index)) is not None]
    bridges = {
        link.device: Bridge(link.name, tuple(sorted(carried.get(link.device, ()))), _others(link, links))
        for link in links
        if link.kind == "bridge"
    }
    return Seen(tuple(sorted(veths)), bridges)


def _others(bridge: Link, links: list[Link]) -> tuple[str, ...]:
    return tuple(sorted(link.name for link in links if link.master == bridge.device and link.kind != "veth"))


def _veth(socket: NetlinkSocket, link: Link, by_index: dict[int, Link]) -> Veth | None:
    """None: no veth that leads elsewhere."""
    if link.kind != "veth" or link.peer_netnsid < 0:
        return None
    try:
        far = socket.get(rtnl.link_get_index(link.peer, netnsid=link.peer_netnsid))
        rows = socket.dump(rtnl.addresses_dump(index=link.peer, netnsid=link.peer_netnsid))
    except NetlinkError as error:
        if error.errno in _GONE:
            return None
        raise
    if far is None:
        return None
    addresses = (readback.address(body) for _, body in rows)
    plain = {str(ip_address(row.packed)) for row in addresses if row.device == link.peer and row.packed}
    return Veth(
        link.device,
        link.name,
        readback.link(far[1]).mac,
        link.master if link.master in by_index else 0,
        frozenset(address for address in plain if not ip_address(address).is_link_local),
    )
