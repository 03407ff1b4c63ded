"""Netlink framing (RFC 3549), both ways. Pure; `wire` has the socket that carries it.

header(16)  length, type, flags, sequence, port          native byte order
body        a fixed struct of the protocol, then attributes
attribute   length, type, payload, padded to 4 bytes; a nested attribute's payload is attributes
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NETLINK_GENERIC = 16

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_ROOT = 0x100
NLM_F_MATCH = 0x200
NLM_F_DUMP = NLM_F_ROOT | NLM_F_MATCH
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP_INTR = 0x10

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

HEADER = struct.Struct("=IHHII")
FLAGS_OFFSET = 6
SEQUENCE_OFFSET = 8
_ATTRIBUTE = struct.Struct("=HH")


def attribute(type_: int, payload: bytes) -> bytes:
    """One attribute, padded. Or NLA_F_NESTED into `type_` where the protocol asks for it."""
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, type_) + payload + b"\0" * (-length & 3)


def message(type_: int, flags: int, body: bytes, seq: int = 0) -> bytes:
    """One message; `NetlinkSocket.transact` writes the sequence number over `seq`."""
    return HEADER.pack(16 + len(body), type_, flags, seq, 0) + body


def attributes(payload: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
    """(type without flag bits, payload) of each attribute."""
    at, end = 0, len(payload)
    while at + 4 <= end:
        length, type_ = _ATTRIBUTE.unpack_from(payload, at)
        if length < 4 or at + length > end:
            raise ValueError("attribute runs over the end of its message")
        yield type_ & _NLA_TYPE_MASK, bytes(payload[at + 4 : at + length])
        at += length + (-length & 3)


def messages(data: bytes | memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """(type, flags, sequence, body) of each message in a datagram."""
    view = memoryview(data)
    at = 0
    while at + 16 <= len(view):
        length, type_, flags, seq, _ = HEADER.unpack_from(view, at)
        if length < 16 or at + length > len(view):
            raise ValueError("netlink message runs over the end of its datagram")
        yield type_, flags, seq, view[at + 16 : at + length]
        at += length + (-length & 3)


class Announcement(NamedTuple):
    """A message that nobody asked for."""

    type: int
    flags: int
    port: int
    """Netlink port of whoever's request is announced; 0: the kernel's own doing."""
    body: memoryview


def announcements(data: bytes | memoryview) -> Iterator[Announcement]:
    view = memoryview(data)
    at = 0
    while at + 16 <= len(view):
        length, type_, flags, _, port = HEADER.unpack_from(view, at)
        if length < 16 or at + length > len(view):
            raise ValueError("netlink message runs over the end of its datagram")
        yield Announcement(type_, flags, port, view[at + 16 : at + length])
        at += length + (-length & 3)
