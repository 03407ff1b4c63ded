"""ctnetlink requests as bytes (linux/netfilter/nfnetlink_conntrack.h): forget what is remembered of an address. Pure.

The kernel itself looks for the entries (CTA_FILTER): one request per place in which the address can stand, and nothing
to dump. Kernels before 5.8 do not know the filter and refuse the request whole (EINVAL), since a tuple without a
protocol is none.
"""

from __future__ import annotations

import struct

from services.node_dataplane.netlink.framing import NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST, attribute, message

_SUBSYSTEM = 1
"""NFNL_SUBSYS_CTNETLINK"""
_DELETE = 2
_AF_INET, _AF_INET6 = 2, 10
_TUPLE_ORIGINAL, _TUPLE_REPLY, _FILTER = 1, 2, 25
_TUPLE_IP = 1
_SOURCE, _DESTINATION = 0x1, 0x2
"""Bits of the filter, and the order of CTA_IP_V4_SRC, _DST, CTA_IP_V6_SRC, _DST."""
_PLACES = ((_TUPLE_ORIGINAL, _SOURCE), (_TUPLE_ORIGINAL, _DESTINATION), (_TUPLE_REPLY, _SOURCE))
"""Who began, who was asked, and who answered (another one than was asked, behind a service address)."""


def forget(packed: bytes) -> list[bytes]:
    """Delete every entry that an address, four bytes or sixteen, has a part in."""
    family, kind = (_AF_INET, 1) if len(packed) == 4 else (_AF_INET6, 3)
    head = struct.pack("=BBH", family, 0, 0)
    requests = []
    for tuple_, side in _PLACES:
        address = attribute(kind + (side == _DESTINATION), packed)
        body = attribute(tuple_ | NLA_F_NESTED, attribute(_TUPLE_IP | NLA_F_NESTED, address))
        body += attribute(_FILTER | NLA_F_NESTED, attribute(tuple_, struct.pack("=I", side)))
        requests.append(message(_SUBSYSTEM << 8 | _DELETE, NLM_F_REQUEST | NLM_F_ACK, head + body))
    return requests
