"""What the drivers of all tunnel devices do alike: find a device, and give it its own addresses."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NetlinkSocket

DEVICE, SETTINGS, ADDRESS, LAST_ADDRESS = "device", "link settings", "address", "last address"
"""Changes, in words. With DEVICE and LAST_ADDRESS the kernel drops routes over the device and entries on it: it is new,
or has no IPv4 address any more."""


def find(socket: NetlinkSocket, device: str) -> readback.Link | None:
    row = socket.get(rtnl.link_get(device))
    return None if row is None else readback.link(row[1])


def own_addresses(socket: NetlinkSocket, index: int) -> dict[bytes, int]:
    """Address -> prefix length, without those that the kernel gives itself."""
    held = {}
    for _, body in socket.dump(rtnl.addresses_dump(index=index)):
        row = readback.address(body)
        if row.device == index and not ip_address(row.packed).is_link_local:
            held[row.packed] = row.prefix
    return held


def set_addresses(socket: NetlinkSocket, index: int, device: str, wanted: Iterable[str]) -> list[str]:
    """Single addresses, these and no others; what was changed. Raises NetlinkError."""
    held = own_addresses(socket, index)
    whole = {packed: len(packed) * 8 for packed in (ip_address(address).packed for address in wanted)}
    requests = [rtnl.address(index, a, prefix) for a, prefix in whole.items() if held.get(a) != prefix]
    requests += [rtnl.address(index, a, p, remove=True) for a, p in held.items() if whole.get(a) != p]
    if not requests:
        return []
    socket.execute(requests, f"set the address of {device}")
    lost = any(len(a) == 4 for a in held) and not any(len(a) == 4 for a in whole)
    return [LAST_ADDRESS if lost else ADDRESS]


def tunnel_addresses(socket: NetlinkSocket, device: str) -> tuple[str, ...]:
    """What the device, as it is found, has for a tunnel address."""
    found = find(socket, device)
    held = own_addresses(socket, found.device) if found is not None else {}
    return tuple(sorted(str(ip_address(a)) for a, prefix in held.items() if prefix == len(a) * 8))
