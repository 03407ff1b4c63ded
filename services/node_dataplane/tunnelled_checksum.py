"""Whether the checksums of a VXLAN packet over IPv4 would be right on the wire. Pure.

A packet on its way to a device may still lack its inner checksum, which the device is to compute; the outer one is
then computed as if it were there (the kernel's local checksum offload). So the inner one is filled in first. RFC 768,
RFC 7348.
"""

from __future__ import annotations

import struct

_UDP = 17
_OUTER_TO_INNER = 8 + 8 + 14
"""UDP header, VXLAN header, inner Ethernet header."""


def ones(data: bytes) -> int:
    """The one's complement sum of 16-bit words (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def udp_checksum(packet: bytes) -> int:
    """What the checksum field of an IPv4 packet with UDP must be."""
    head = (packet[0] & 0x0F) * 4
    datagram = packet[head:]
    pseudo = packet[12:20] + struct.pack("!BBH", 0, _UDP, len(datagram))
    rest = datagram[:6] + b"\0\0" + datagram[8:]
    return (ones(pseudo + rest) ^ 0xFFFF) or 0xFFFF


def filled(packet: bytes) -> bytes:
    """The same with the UDP checksum computed."""
    at = (packet[0] & 0x0F) * 4 + 6
    return packet[:at] + struct.pack("!H", udp_checksum(packet)) + packet[at + 2 :]


def outer_checksum(packet: bytes) -> int:
    head = (packet[0] & 0x0F) * 4
    return int(struct.unpack_from("!H", packet, head + 6)[0])


def outer_is_right(packet: bytes) -> bool:
    """`packet` begins with the outer IPv4 header and holds UDP in UDP. No checksum (0) is right, too."""
    inner = (packet[0] & 0x0F) * 4 + _OUTER_TO_INNER
    whole = packet[:inner] + filled(packet[inner:])
    found = outer_checksum(packet)
    return found in (0, udp_checksum(whole))
