"""Who speaks to whom in a packet, as far as its first bytes tell. Pure.

IPv4 (RFC 791), IPv6 with its extension headers (RFC 8200, 4302; at most as many as are sane), ports of TCP, UDP, SCTP,
DCCP and UDP-Lite, type and code of ICMP and ICMPv6. Fragments but the first have no ports.
"""

from __future__ import annotations

from typing import NamedTuple

TCP, UDP, DCCP, SCTP, UDPLITE = 6, 17, 33, 132, 136
ICMP, ICMPV6 = 1, 58
WITH_PORTS = frozenset({TCP, UDP, DCCP, SCTP, UDPLITE})
NAMES = {TCP: "TCP", UDP: "UDP", DCCP: "DCCP", SCTP: "SCTP", UDPLITE: "UDPLite", ICMP: "ICMP", ICMPV6: "ICMPv6"}

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_MOBILITY, _HIP, _SHIM6 = 135, 139, 140
_EXTENSIONS = frozenset({_HOP_BY_HOP, _ROUTING, _AUTHENTICATION, _DESTINATION, _MOBILITY, _HIP, _SHIM6})
_MOST_EXTENSIONS = 8


class Header(NamedTuple):
    source: bytes
    """Packed."""
    destination: bytes
    protocol: int
    source_port: int = 0
    port: int = 0
    """Of the destination; 0: the protocol has none, or it is not in these bytes."""
    icmp_type: int | None = None
    icmp_code: int | None = None


def protocol_name(protocol: int) -> str:
    return NAMES.get(protocol, str(protocol))


def read(packet: bytes) -> Header | None:
    """None: not an IP packet, or not even its addresses are there."""
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        return _read4(packet)
    return _read6(packet) if version == 6 else None


def _read4(packet: bytes) -> Header | None:
    length = (packet[0] & 15) * 4
    if len(packet) < 20 or length < 20:
        return None
    later_fragment = (packet[6] & 0x1F) or packet[7]
    rest = b"" if later_fragment else packet[length:]
    return _read_transport(packet[12:16], packet[16:20], packet[9], rest)


def _read6(packet: bytes) -> Header | None:
    if len(packet) < 40:
        return None
    source, destination = packet[8:24], packet[24:40]
    protocol, rest = packet[6], packet[40:]
    for _ in range(_MOST_EXTENSIONS):
        if protocol == _FRAGMENT and len(rest) >= 8:
            first = not (rest[2] or rest[3] & 0xF8)
            protocol, rest = rest[0], rest[8:] if first else b""
        elif protocol in _EXTENSIONS and len(rest) >= 2:
            length = (rest[1] + 2) * 4 if protocol == _AUTHENTICATION else (rest[1] + 1) * 8
            protocol, rest = rest[0], rest[length:]
        else:
            break
    return _read_transport(source, destination, protocol, rest)


def _read_transport(source: bytes, destination: bytes, protocol: int, rest: bytes) -> Header:
    if protocol in WITH_PORTS and len(rest) >= 4:
        ports = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
        return Header(source, destination, protocol, *ports)
    if protocol in (ICMP, ICMPV6) and len(rest) >= 2:
        return Header(source, destination, protocol, icmp_type=rest[0], icmp_code=rest[1])
    return Header(source, destination, protocol)
