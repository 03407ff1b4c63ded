"""Transmit checksum offload of the tunnel device: off where it is known to send packets with wrong checksums.

Wrong inner checksums show as connections through the tunnel that hang or are very slow while pings pass. Known causes:
kernels before 5.7 change the checksum of an outer UDP header that has none when it is masqueraded, and VMware's vmxnet3
offloads tunnelled checksums only for the ports that it knows.
"""

from __future__ import annotations

import array
import fcntl
import platform
import re
import socket
import struct
from typing import Literal

_SIOCETHTOOL = 0x8946
_GET_DRIVER, _GET_CHECKSUM, _SET_CHECKSUM = 0x03, 0x16, 0x17
_FIXED_IN = (5, 7)
_BROKEN_DRIVERS = ("vmxnet3",)


def must_be_off(mode: Literal["auto", "on", "off"], release: str, driver: str) -> bool:
    """Pure. `release` is uname's, `driver` that of the uplink."""
    if mode != "auto":
        return mode == "off"
    numbers = re.match(r"(\d+)\.(\d+)", release)
    old = numbers is not None and (int(numbers[1]), int(numbers[2])) < _FIXED_IN
    return old or driver in _BROKEN_DRIVERS


def apply(device: str, uplink: str, mode: Literal["auto", "on", "off"]) -> bool:
    """Set the offload of `device`; True when it had to be changed. Raises OSError."""
    off = must_be_off(mode, platform.release(), _driver(uplink))
    if off == (not _checksum(device)):
        return False
    _ethtool(device, array.array("I", [_SET_CHECKSUM, int(not off)]))
    return True


def _driver(device: str) -> str:
    data = array.array("B", struct.pack("=I192x", _GET_DRIVER))
    try:
        _ethtool(device, data)
    except OSError:
        return ""  # A device without ethtool (veth, in a lab) is none of the broken ones.
    return data.tobytes()[4:36].split(b"\0")[0].decode(errors="replace")


def _checksum(device: str) -> bool:
    data = array.array("I", [_GET_CHECKSUM, 0])
    _ethtool(device, data)
    return bool(data[1])


def _ethtool(device: str, data: array.array[int]) -> None:
    address, _ = data.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, struct.pack("16sP16x", device.encode(), address))
