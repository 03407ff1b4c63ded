"""ctnetlink requests as bytes (linux/netfilter/nfnetlink_conntrack.h): forget what is remembered of an address, or of
one connection; read what is remembered. Pure.

The kernel itself looks for the entries of an address (CTA_FILTER): one request per place in which the address can
stand. Kernels before 5.8 do not know the filter and refuse the request whole (EINVAL), since a tuple without a protocol
is none.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from services.node_dataplane.netlink.framing import (
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    attribute,
    message,
)

_SUBSYSTEM = 1
"""NFNL_SUBSYS_CTNETLINK"""
_GET, _DELETE = 1, 2
_AF_INET, _AF_INET6 = 2, 10
_TUPLE_ORIGINAL, _TUPLE_REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_TUPLE_IP = 1
_SOURCE_PORT, _DESTINATION_PORT = 2, 3
_ICMP = {4: (5, 6), 6: (8, 9)}
"""CTA_PROTO_ICMP_TYPE and _CODE, CTA_PROTO_ICMPV6_TYPE and _CODE."""
_SOURCE, _DESTINATION = 0x1, 0x2
"""Bits of the filter, and the order of CTA_IP_V4_SRC, _DST, CTA_IP_V6_SRC, _DST."""
_PLACES = ((_TUPLE_ORIGINAL, _SOURCE), (_TUPLE_ORIGINAL, _DESTINATION), (_TUPLE_REPLY, _SOURCE))
"""Who began, who was asked, and who answered (another one than was asked, behind a service address)."""


class Tracked(NamedTuple):
    """A connection as its endpoints' node sees it: who began it, and who really answers, behind a service address."""

    source: bytes
    """Packed, of the original direction: before the address of whoever began is hidden."""
    destination: bytes
    """Packed, of whoever answers: after the destination was replaced."""
    protocol: int
    source_port: int
    port: int
    icmp_type: int | None
    icmp_code: int | None
    entry: bytes
    """What names this entry for `cut`."""
    asked: bytes = b""
    """Packed, the destination of the original direction: before it was replaced."""
    asked_port: int = 0


def forget(packed: bytes) -> list[bytes]:
    """Delete every entry that an address, four bytes or sixteen, has a part in."""
    flags = NLM_F_REQUEST | NLM_F_ACK
    return [message(_SUBSYSTEM << 8 | _DELETE, flags, _having(packed, *place)) for place in _PLACES]


def dump() -> bytes:
    """All entries, both families."""
    return message(_SUBSYSTEM << 8 | _GET, NLM_F_REQUEST | NLM_F_DUMP, struct.pack("=BBH", 0, 0, 0))


def dumps_of(packed: bytes) -> list[bytes]:
    """The entries that an address began, and those that it answers."""
    places = ((_TUPLE_ORIGINAL, _SOURCE), (_TUPLE_REPLY, _SOURCE))
    return [message(_SUBSYSTEM << 8 | _GET, NLM_F_REQUEST | NLM_F_DUMP, _having(packed, *place)) for place in places]


def dump_asked(packed: bytes) -> bytes:
    """The entries of what was sent to an address, whoever answers it."""
    body = _having(packed, _TUPLE_ORIGINAL, _DESTINATION)
    return message(_SUBSYSTEM << 8 | _GET, NLM_F_REQUEST | NLM_F_DUMP, body)


def _having(packed: bytes, tuple_: int, side: int) -> bytes:
    family, kind = (_AF_INET, 1) if len(packed) == 4 else (_AF_INET6, 3)
    address = attribute(kind + (side == _DESTINATION), packed)
    body = struct.pack("=BBH", family, 0, 0)
    body += attribute(tuple_ | NLA_F_NESTED, attribute(_TUPLE_IP | NLA_F_NESTED, address))
    return body + attribute(_FILTER | NLA_F_NESTED, attribute(tuple_, struct.pack("=I", side)))


def ends(body: bytes | memoryview) -> tuple[bytes, bytes]:
    """(who began, who answers) of one entry of a dump: the addresses alone, for whoever looks for a few among hundreds
    of thousands."""
    size = 4 if body[0] == _AF_INET else 16
    reply = 4 + _padded(body, 4)
    return bytes(body[16 : 16 + size]), bytes(body[reply + 12 : reply + 12 + size])


def read(body: bytes | memoryview) -> Tracked:
    """One entry of a dump.

    Walked in place, as there are many. The kernel always writes the two tuples first, and each of them as

        tuple 4 | addresses 4 | source 4 + n | destination 4 + n | protocol 4 | number 4 + 4 | ports, or type and code
    """
    size, version = (4, 4) if body[0] == _AF_INET else (16, 6)
    numbers = 24 + 2 * size  # From the begin of a tuple to the number of its protocol, and from there:
    reply = 4 + _padded(body, 4)
    end = reply + _padded(body, reply)
    protocol = body[4 + numbers]
    ports, types, asked_port = [0, 0], list[int | None]((None, None)), 0
    for place, begin, until in ((0, 4, reply), (1, reply, end)):
        at = begin + numbers + 4
        while at + 4 <= until:
            kind = _HEADER.unpack_from(body, at)[1]
            if kind == _SOURCE_PORT:
                ports[place] = body[at + 4] << 8 | body[at + 5]
            elif kind == _DESTINATION_PORT and not place:
                asked_port = body[at + 4] << 8 | body[at + 5]
            elif not place and kind in _ICMP[version]:
                types[_ICMP[version].index(kind)] = body[at + 4]
            at += _padded(body, at)
    entry = bytes(body[:reply])
    at = end
    while at + 4 <= len(body):
        length = _padded(body, at)
        if _HEADER.unpack_from(body, at)[1] in (_ID, _ZONE):
            entry += bytes(body[at : at + length])
        at += length
    source, destination = bytes(body[16 : 16 + size]), bytes(body[reply + 12 : reply + 12 + size])
    asked = bytes(body[20 + size : 20 + 2 * size])
    return Tracked(source, destination, protocol, ports[0], ports[1], types[0], types[1], entry, asked, asked_port)


_HEADER = struct.Struct("=HH")


def _padded(body: bytes | memoryview, at: int) -> int:
    """The length of the attribute there; at least its header's, so that a walk comes to its end."""
    length: int = _HEADER.unpack_from(body, at)[0]
    return max(4, length + 3 & ~3)


def cut(connection: Tracked) -> bytes:
    """Delete one entry; ENOENT: it has ended."""
    return message(_SUBSYSTEM << 8 | _DELETE, NLM_F_REQUEST | NLM_F_ACK, connection.entry)
