"""Which device each host endpoint governs, from what they ask for and the devices with their addresses. Pure.

    interface `eth0`      the device of that name, whether it is there yet or not
    no interface          each device that carries one of its addresses
    interface `*`         every device that no other one governs

A device has one host endpoint. Of several that claim it, by name or by address, the one whose own name is first in the
alphabet governs; so of several `*`. Neither the loopback nor a pod's link can be named: what a host's process says to
another is nobody's business, and a pod has policy of its own (what `*` means for pods is for `host` to say).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from bus_schemas.policy import HostAttachment
from services.node_dataplane.nft.names import LINK_PREFIX
from services.node_dataplane.nft.sets import LINK_BYTES

LOOPBACK = "lo"
EVERY = "*"
_UNSPEAKABLE = frozenset(' /:"*\\')
"""What the kernel does not take in a name, and what nft would read as something else."""

Devices = Mapping[str, frozenset[str]]
"""Name -> plain addresses, as Python spells them."""


class Governed(NamedTuple):
    by_device: Mapping[str, str]
    """Device -> name of its host endpoint."""
    others: str | None
    """The host endpoint of all other devices."""
    idle: Mapping[str, str]
    """Host endpoint that governs nothing -> why."""


def govern(attachments: Iterable[HostAttachment], devices: Devices) -> Governed:
    by_device: dict[str, str] = {}
    others: str | None = None
    idle: dict[str, str] = {}
    for attachment in sorted(attachments, key=lambda a: a.name):
        if attachment.interface == EVERY:
            if others is None:
                others = attachment.name
            else:
                idle[attachment.name] = f"{others} stands for all devices already"
            continue
        if fault := _impossible(attachment.interface):
            idle[attachment.name] = fault
            continue
        claimed = _claims(attachment, devices)
        if not claimed:
            idle[attachment.name] = "no device carries any of its addresses"
            continue
        free = [device for device in claimed if device not in by_device]
        if not free:
            holders = ", ".join(sorted({by_device[device] for device in claimed}))
            idle[attachment.name] = f"{', '.join(claimed)} is governed by {holders}"
        by_device.update((device, attachment.name) for device in free)
    return Governed(by_device, others, idle)


def _claims(attachment: HostAttachment, devices: Devices) -> list[str]:
    if attachment.interface:
        return [attachment.interface]
    wanted = frozenset(_spelled(attachment.addresses))
    return sorted(name for name, carried in devices.items() if not _impossible(name) and wanted & carried)


def _spelled(addresses: Iterable[str]) -> Iterator[str]:
    """What is no address is carried by no device."""
    for address in addresses:
        try:
            yield str(ip_address(address))
        except ValueError:
            continue


def _impossible(device: str) -> str:
    if device == LOOPBACK:
        return "the loopback is never governed"
    if device.startswith(LINK_PREFIX):
        return f"{device} would be a pod's link"
    if not (device.isascii() and device.isprintable()) or _UNSPEAKABLE & set(device):
        return f"{device!r} is not a name that a device has"
    if len(device) >= LINK_BYTES:
        return f"{device!r} is longer than any device's name"
    return ""
