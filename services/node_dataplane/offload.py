"""The driver of transmit checksum offload: reads the state of a tunnel device, sets it, reads it back.

By the ioctl of ethtool(8), `ethtool -K DEVICE tx-checksum-ip-generic`, which every kernel has (linux/ethtool.h).
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_SIOCETHTOOL = 0x8946
_GET_DRIVER, _GET_CHECKSUM, _SET_CHECKSUM = 0x03, 0x16, 0x17
_DEEPEST = 4
"""A VLAN over a bond over its parts: no machine stacks more."""


def state(device: str) -> bool:
    """Whether checksums are left to the device. Raises OSError."""
    data = array.array("I", [_GET_CHECKSUM, 0])
    _ethtool(device, data)
    return bool(data[1])


def switch(device: str, *, on: bool) -> bool:
    """True when it had to be changed. Raises OSError, also when it was not, as read back afterwards."""
    if state(device) == on:
        return False
    _ethtool(device, array.array("I", [_SET_CHECKSUM, int(on)]))
    if state(device) != on:
        raise OSError(f"{device}: the kernel took the change of checksum offload and did not make it")
    return True


def drivers(device: str) -> tuple[str, ...]:
    """Of a device, and of what lies below it (bond, VLAN, bridge); without those that have none."""
    return tuple(dict.fromkeys(filter(None, map(_driver, _stack(device, 0)))))


def _stack(device: str, depth: int) -> Iterator[str]:
    yield device
    if depth < _DEEPEST:
        for lower in sorted(Path("/sys/class/net", device).glob("lower_*")):
            yield from _stack(lower.name.removeprefix("lower_"), depth + 1)


def _driver(device: str) -> str:
    data = array.array("B", struct.pack("=I192x", _GET_DRIVER))
    try:
        _ethtool(device, data)
    except OSError:
        return ""  # A device without ethtool is none of the broken ones.
    return data.tobytes()[4:36].split(b"\0")[0].decode(errors="replace")


def _ethtool(device: str, data: array.array[int]) -> None:
    address, _ = data.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, struct.pack("16sP16x", device.encode(), address))
