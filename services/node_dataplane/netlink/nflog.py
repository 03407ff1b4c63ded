"""Copies of packets that rules of `log group N` hand out (linux/netfilter/nfnetlink_log.h). Pure.

A group belongs to the one socket that has bound it, in its network namespace, for as long as the socket lives: another
one is refused with EPERM, and while nobody has bound it the rule costs nothing. Logging with a group needs no logger
bound to a protocol family, and to bind one would turn other people's log lines away from the kernel's own log.

The kernel gathers packets into one datagram until it is `BUFFER` long or `FLUSH_S` old. It numbers what it hands out,
so a gap in the numbers is what was lost.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from services.node_dataplane.netlink.framing import NLM_F_ACK, NLM_F_REQUEST, attribute, attributes, message

SUBSYSTEM = 4
"""NFNL_SUBSYS_ULOG"""
PACKET, _CONFIG = 0, 1
_CFG_CMD, _CFG_MODE, _CFG_NLBUFSIZ, _CFG_TIMEOUT, _CFG_QTHRESH, _CFG_FLAGS = 1, 2, 3, 4, 5, 6
_CMD_BIND = 1
_COPY_PACKET = 2
_FLAG_SEQ = 1
_PAYLOAD, _PREFIX = 9, 10
_NUMBERS = (4, 5, 12)
"""NFULA_IFINDEX_INDEV, NFULA_IFINDEX_OUTDEV, NFULA_SEQ."""
_PORTS = (6, 7)
"""NFULA_IFINDEX_PHYSINDEV, NFULA_IFINDEX_PHYSOUTDEV: of a bridge, the port."""

GROUP = 84
COPY = 128
"""Bytes of each packet: the addresses and ports behind any sane header."""
BUFFER = 32 << 10
FLUSH_S = 0.1
GATHERED = 64
"""Packets after which a datagram is sent at once."""

_U32 = struct.Struct(">I")


class Logged(NamedTuple):
    prefix: str
    """The rule's, without the end mark; at most 127 bytes."""
    indev: int
    """Index of the device that the packet came in by, of a bridge its port; 0: none."""
    outdev: int
    payload: bytes
    """The packet from its IP header on, cut off at COPY bytes."""
    sequence: int


def bind(group: int = GROUP) -> list[bytes]:
    """The requests that make the sending socket the group's listener; each is acknowledged. EPERM or EBUSY: another
    socket is."""
    head = struct.pack(">BBH", 0, 0, group)

    def request(type_: int, payload: bytes) -> bytes:
        return message(SUBSYSTEM << 8 | _CONFIG, NLM_F_REQUEST | NLM_F_ACK, head + attribute(type_, payload))

    return [
        request(_CFG_CMD, bytes((_CMD_BIND,))),
        request(_CFG_MODE, struct.pack(">IBB", COPY, _COPY_PACKET, 0)),
        request(_CFG_NLBUFSIZ, _U32.pack(BUFFER)),
        request(_CFG_TIMEOUT, _U32.pack(round(FLUSH_S * 100))),
        request(_CFG_QTHRESH, _U32.pack(GATHERED)),
        request(_CFG_FLAGS, struct.pack(">H", _FLAG_SEQ)),
    ]


def read(type_: int, body: bytes | memoryview) -> Logged | None:
    """One message of the group; None when it is none."""
    if type_ != SUBSYSTEM << 8 | PACKET:
        return None
    found = dict(attributes(body[4:]))
    indev, outdev, sequence = (int.from_bytes(found.get(kind, b""), "big") for kind in _NUMBERS)
    port_in, port_out = (int.from_bytes(found.get(kind, b""), "big") for kind in _PORTS)
    prefix = found.get(_PREFIX, b"").rstrip(b"\0").decode("utf-8", "replace")
    return Logged(prefix, port_in or indev, port_out or outdev, found.get(_PAYLOAD, b""), sequence)
