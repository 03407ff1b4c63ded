"""Enough of SCTP to ask and to answer by raw packets, on kernels with or without SCTP. Pure.

    who asks      INIT      ->
    who listens   INIT ACK  <-   its state cookie carries the answer
    who does not  ABORT     <-

The association goes no further: an INIT ACK proves that both directions pass. A kernel that has SCTP adds an ABORT of
its own, since it knows of no socket: an ABORT is believed only where no INIT ACK follows. The checksum covers nothing
of the IP header, so a packet is the same for both families. Source: RFC 9260, sections 3.1, 3.3.2, 3.3.3, 3.3.7, 8.5.1
and appendix A.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PROTOCOL = 132

_INIT = 1
_INIT_ACK = 2
_ABORT = 6
_STATE_COOKIE = 7

_HEADER = struct.Struct("!HHI4s")
"""Source port, destination port, verification tag, checksum."""
_CHUNK = struct.Struct("!BBH")
"""Type, flags, length."""
_INIT_FIELDS = struct.Struct("!IIHHI")
"""Initiate tag, receive window, outbound streams, inbound streams, initial sequence number."""
_PARAMETER = struct.Struct("!HH")
_WINDOW = 65536


@dataclass(frozen=True)
class Init:
    """Somebody asks."""

    source: int
    destination: int
    tag: int
    """By which the answer is known; not 0."""


@dataclass(frozen=True)
class InitAck:
    source: int
    destination: int
    tag: int
    """The one of the Init."""
    cookie: bytes


@dataclass(frozen=True)
class Abort:
    source: int
    destination: int
    tag: int
    """The one of the Init."""


def init(message: Init) -> bytes:
    chunk = _with_length(_INIT, _INIT_FIELDS.pack(message.tag, _WINDOW, 1, 1, 1))
    return _packet(message.source, message.destination, 0, chunk)


def init_ack(to: Init, cookie: bytes) -> bytes:
    """The answer of one who listens."""
    parameter = _PARAMETER.pack(_STATE_COOKIE, _PARAMETER.size + len(cookie)) + cookie
    chunk = _with_length(_INIT_ACK, _INIT_FIELDS.pack(to.tag ^ 0xFFFFFFFF or 1, _WINDOW, 1, 1, 1) + parameter)
    return _packet(to.destination, to.source, to.tag, chunk)


def abort(to: Init) -> bytes:
    """The answer where nobody listens."""
    return _packet(to.destination, to.source, to.tag, _with_length(_ABORT, b""))


def payload(packet: bytes) -> bytes:
    """What an IPv4 packet carries: raw sockets of that family show its header too, those of IPv6 do not."""
    return packet[(packet[0] & 0x0F) * 4 :]


def read(packet: bytes) -> Init | InitAck | Abort | None:
    """The first chunk of an SCTP packet (without IP header), where it is one of these three and whole."""
    if len(packet) < _HEADER.size + _CHUNK.size:
        return None
    source, destination, tag, checksum = _HEADER.unpack_from(packet)
    if checksum != _checksum(packet):
        return None
    kind, _, length = _CHUNK.unpack_from(packet, _HEADER.size)
    chunk = packet[_HEADER.size + _CHUNK.size : _HEADER.size + length]
    if kind == _ABORT:
        return Abort(source, destination, tag)
    if kind not in (_INIT, _INIT_ACK) or len(chunk) < _INIT_FIELDS.size:
        return None
    if kind == _INIT:
        return Init(source, destination, _INIT_FIELDS.unpack_from(chunk)[0])
    return InitAck(source, destination, tag, _cookie(chunk[_INIT_FIELDS.size :]))


def _cookie(parameters: bytes) -> bytes:
    """The state cookie; empty when there is none."""
    while len(parameters) >= _PARAMETER.size:
        kind, length = _PARAMETER.unpack_from(parameters)
        if kind == _STATE_COOKIE:
            return parameters[_PARAMETER.size : length]
        parameters = parameters[max(_padded(length), _PARAMETER.size) :]
    return b""


def _with_length(kind: int, body: bytes) -> bytes:
    length = _CHUNK.size + len(body)
    return _CHUNK.pack(kind, 0, length) + body + bytes(_padded(length) - length)


def _padded(length: int) -> int:
    return (length + 3) & ~3


def _packet(source: int, destination: int, tag: int, chunk: bytes) -> bytes:
    blank = _HEADER.pack(source, destination, tag, bytes(4)) + chunk
    return _HEADER.pack(source, destination, tag, _checksum(blank)) + chunk


def _checksum(packet: bytes) -> bytes:
    """CRC-32C of the packet with a blank checksum, as it lies on the wire."""
    crc = 0xFFFFFFFF
    for byte in packet[:8] + bytes(4) + packet[12:]:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return (crc ^ 0xFFFFFFFF).to_bytes(4, "little")


def _table_entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE = tuple(map(_table_entry, range(256)))
