"""The figures of the table's counter objects by one netlink dump (linux/netfilter/nf_tables.h: NFT_MSG_GETOBJ). Pure.

The kernel walks the objects of one table and nothing else: neither chains nor rules nor sets, however many there are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from services.node_dataplane.netlink.framing import NLM_F_DUMP, NLM_F_REQUEST, attribute, attributes, message
from services.node_dataplane.nft.encode import SUBSYSTEM, get_table
from services.node_dataplane.nft.names import TABLE

__all__ = ["Figures", "dump", "get_table", "read", "table_handle"]

_GETOBJ = 19
_INET = 1
_OBJ_TABLE, _OBJ_NAME, _OBJ_TYPE, _OBJ_DATA = 1, 2, 3, 4
_COUNTER = 1
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_TABLE_HANDLE = 4
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
_U64 = struct.Struct(">Q")


class Figures(NamedTuple):
    packets: int
    bytes: int


def dump() -> bytes:
    """The request for all counter objects of our table."""
    body = struct.pack("=BBH", _INET, 0, 0)
    body += attribute(_OBJ_TABLE, TABLE.encode() + b"\0") + attribute(_OBJ_TYPE, struct.pack(">I", _COUNTER))
    return message(SUBSYSTEM << 8 | _GETOBJ, NLM_F_REQUEST | NLM_F_DUMP, body)


def read(bodies: Iterable[bytes | memoryview]) -> dict[str, Figures]:
    """By name; a kernel that does not know the filter by type tells other objects too, which are left out.

    Attributes are walked in place: a node has thousands of counters, and this is most of the price of a reading."""
    figures = {}
    header, number = _ATTRIBUTE.unpack_from, _U64.unpack_from
    for body in bodies:
        name, counter, packets, size = b"", False, 0, 0
        at, end = 4, len(body)
        while at + 4 <= end:
            length, type_ = header(body, at)
            type_ &= _TYPE_MASK
            if type_ == _OBJ_NAME:
                name = bytes(body[at + 4 : at + length - 1])
            elif type_ == _OBJ_TYPE:
                counter = body[at + 7] == _COUNTER
            elif type_ == _OBJ_DATA and counter:
                for inner in range(at + 4, at + length - 11, 12):
                    what = header(body, inner)[1]
                    if what == _COUNTER_PACKETS:
                        packets = number(body, inner + 4)[0]
                    elif what == _COUNTER_BYTES:
                        size = number(body, inner + 4)[0]
            at += (length + 3) & ~3 or end
        if counter:
            figures[name.decode()] = Figures(packets, size)
    return figures


def table_handle(body: bytes) -> int:
    """What the kernel calls the table (the answer to `get_table`): another one after every replacement."""
    return int.from_bytes(dict(attributes(body[4:])).get(_TABLE_HANDLE, b""), "big")
