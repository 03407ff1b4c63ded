"""The kinds of sets in the table, and their elements.

An element's key is kept as the very bytes that the kernel holds: each part of a concatenation padded to four bytes,
addresses and ports big-endian, a device's name filled up to 16 bytes, its group and its index in the
processor's own order. `spell` writes such a key as nft does.

All sets whose members come and go are hash sets (constant time per change); only what changes with the configuration,
pools and the networks of network sets, are interval sets. Their keys are the text of a CIDR, and they are rewritten
whole.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

LINK_BYTES = 16
GROUP_BYTES = 4


@dataclass(frozen=True)
class SetKind:
    declaration: str
    spell: Callable[[bytes], str]
    verdicts: bool = False
    """A map from the key to a chain."""
    counters: bool = False
    """A map from the key to a counter object."""
    values: bool = False
    """A map from the key to an address and a port: `<address> . <port>`."""
    dynamic: bool = False
    """The packets put elements in, which go by themselves: none is ours to write or to check."""
    interval: bool = False

    @property
    def word(self) -> str:
        return "map" if self.mapped else "set"

    @property
    def mapped(self) -> bool:
        return self.verdicts or self.counters or self.values


@dataclass(frozen=True)
class SetSpec:
    kind: SetKind
    comment: str = ""


def _spell4(key: bytes) -> str:
    return "%d.%d.%d.%d" % tuple(key)  # noqa: UP031 - a hundred thousand times in a whole table


def _spell6(key: bytes) -> str:
    return str(ipaddress.IPv6Address(key))


def _spell_port4(key: bytes) -> str:
    return f"{_spell4(key[:4])} . {key[4]} . {int.from_bytes(key[8:10], 'big')}"


def _spell_port6(key: bytes) -> str:
    return f"{_spell6(key[:16])} . {key[16]} . {int.from_bytes(key[20:22], 'big')}"


def _spell_backend4(key: bytes) -> str:
    return f"{_spell_port4(key)} . {_native(key[12:])}"


def _spell_backend6(key: bytes) -> str:
    return f"{_spell_port6(key)} . {_native(key[24:])}"


def _native(number: bytes) -> int:
    return int.from_bytes(number, sys.byteorder)


def _spell_link(key: bytes) -> str:
    return f'"{key[:LINK_BYTES].rstrip(bytes(1)).decode()}"'


def _spell_group(key: bytes) -> str:
    return str(int.from_bytes(key[:GROUP_BYTES], sys.byteorder))


def _spell_source4(key: bytes) -> str:
    return f"{_spell_group(key)} . {_spell4(key[GROUP_BYTES:])}"


def _spell_source6(key: bytes) -> str:
    return f"{_spell_group(key)} . {_spell6(key[GROUP_BYTES:])}"


ADDRESSES4 = SetKind("type ipv4_addr;", _spell4)
ADDRESSES6 = SetKind("type ipv6_addr;", _spell6)
PORTS4 = SetKind("type ipv4_addr . inet_proto . inet_service;", _spell_port4)
PORTS6 = SetKind("type ipv6_addr . inet_proto . inet_service;", _spell_port6)
SOURCES4 = SetKind("type devgroup . ipv4_addr;", _spell_source4)
SOURCES6 = SetKind("type devgroup . ipv6_addr;", _spell_source6)
DISPATCH = SetKind("type ifname : verdict;", _spell_link, verdicts=True)
POD_DISPATCH = SetKind("type devgroup : verdict;", _spell_group, verdicts=True)
DEVICES = SetKind("type iface_index;", _spell_group)
DEVICE_SOURCES4 = SetKind("type iface_index . ipv4_addr;", _spell_source4)
DEVICE_SOURCES6 = SetKind("type iface_index . ipv6_addr;", _spell_source6)
ADDRESS_DISPATCH4 = SetKind("type ipv4_addr : verdict;", _spell4, verdicts=True)
ADDRESS_DISPATCH6 = SetKind("type ipv6_addr : verdict;", _spell6, verdicts=True)
NETS4 = SetKind("type ipv4_addr; flags interval;", bytes.decode, interval=True)
NETS6 = SetKind("type ipv6_addr; flags interval;", bytes.decode, interval=True)

SERVICES4 = SetKind("type ipv4_addr . inet_proto . inet_service : verdict;", _spell_port4, verdicts=True)
SERVICES6 = SetKind("type ipv6_addr . inet_proto . inet_service : verdict;", _spell_port6, verdicts=True)
BACKENDS4 = SetKind(
    "typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport;",
    _spell_backend4,
    values=True,
)
BACKENDS6 = SetKind(
    "typeof ip6 daddr . meta l4proto . th dport . numgen random mod 2 : ip6 daddr . th dport;",
    _spell_backend6,
    values=True,
)
_STICKY = 65_536
"""Clients that are remembered of one backend; of those that come then, each connection is for itself."""


@lru_cache(maxsize=1024)
def sticky(size: int, timeout_s: int) -> SetKind:
    """The clients of a backend, of addresses of `size` bytes, each for so long after its last connection."""
    type_, spell = ("ipv4_addr", _spell4) if size == 4 else ("ipv6_addr", _spell6)
    declaration = f"type {type_}; size {_STICKY}; flags dynamic,timeout; timeout {timeout_s}s;"
    return SetKind(declaration, spell, dynamic=True)


MapData = Literal["verdict", "counter"]
_DATA: tuple[MapData, ...] = ("verdict", "counter")


class Shape(NamedTuple):
    """What a map of merged rules is looked up by."""

    family: Literal[0, 4, 6]
    """Of the address; 0: there is none, and both others are there."""
    side: Literal["saddr", "daddr", ""]
    protocol: bool
    port: bool
    """The destination port, never without the protocol."""

    @property
    def fields(self) -> str:
        return self._spelled("")

    def masked(self, length: int) -> str:
        """The fields, with so many bits of the address and no more."""
        bits = 32 if self.family == 4 else 128
        if length == bits:
            return self.fields
        mask = (1 << bits) - (1 << bits - length)
        return self._spelled(f" & {ipaddress.ip_address(mask.to_bytes(bits // 8, 'big'))}")

    def _spelled(self, mask: str) -> str:
        address = {0: "", 4: f"ip {self.side}{mask}", 6: f"ip6 {self.side}{mask}"}[self.family]
        return " . ".join(
            filter(None, (address, "meta l4proto" if self.protocol else "", "th dport" if self.port else ""))
        )

    def kind(self, data: MapData) -> SetKind:
        return _MERGED[data, False, self.family, self.protocol, self.port]

    def ranges(self, data: MapData) -> SetKind:
        """Of the interval map; its keys are text. It always has the protocol, all of them if need be: in a map with
        intervals of a single field nft 1.0.6 does not find chains that are made in the same transaction."""
        return _MERGED[data, True, self.family, True, self.port]

    @property
    def ranged_fields(self) -> str:
        return self._replace(protocol=True).fields


def suffix(protocol: int | None, port: int | None) -> bytes:
    """What follows the address in the key of a merged map."""
    return (b"" if protocol is None else bytes((protocol, 0, 0, 0))) + (
        b"" if port is None else port.to_bytes(2, "big") + b"\0\0"
    )


def _merged(data: MapData, interval: bool, family: int, protocol: bool, port: bool) -> SetKind:
    width = {0: 0, 4: 4, 6: 16}[family]

    def spell(key: bytes) -> str:
        parts = [] if not family else [_spell4(key[:4]) if family == 4 else _spell6(key[:16])]
        if protocol:
            parts.append(str(key[width]))
        if port:
            parts.append(str(int.from_bytes(key[width + 4 : width + 6], "big")))
        return " . ".join(parts)

    types = {0: "", 4: "ipv4_addr", 6: "ipv6_addr"}[family]
    key = " . ".join(filter(None, (types, "inet_proto" if protocol else "", "inet_service" if port else "")))
    flags = " flags interval;" if interval else ""
    return SetKind(
        f"type {key} : {data};{flags}",
        bytes.decode if interval else spell,
        verdicts=data == "verdict",
        counters=data == "counter",
        interval=interval,
    )


_SHAPES = [
    (0, True, True),
    *(
        (family, protocol, port)
        for family in (4, 6)
        for protocol, port in ((True, True), (True, False), (False, False))
    ),
]
_MERGED = {
    (data, interval, *shape): _merged(data, interval, *shape)
    for data in _DATA
    for interval in (False, True)
    for shape in _SHAPES
}


def service_key(address: bytes, protocol: int, port: int) -> bytes:
    return b"%b%b\0\0\0%b\0\0" % (address, bytes((protocol,)), port.to_bytes(2, "big"))


def backend_index(index: int) -> bytes:
    """What follows the key of a service in that of one of its backends."""
    return index.to_bytes(4, sys.byteorder)


def pack_value(text: str) -> bytes:
    """`<address> . <port>` as the kernel holds it."""
    address, _, port = text.partition(" . ")
    return ipaddress.ip_address(address).packed + int(port).to_bytes(2, "big") + b"\0\0"


def spell_value(data: bytes) -> str:
    return f"{ipaddress.ip_address(data[:-4])} . {int.from_bytes(data[-4:-2], 'big')}"


def link_key(link: str) -> bytes:
    encoded = link.encode()
    assert 0 < len(encoded) < LINK_BYTES, f"not a link name: {link!r}"
    return encoded.ljust(LINK_BYTES, b"\0")


def group_key(group: int) -> bytes:
    """Of a group of devices."""
    return group.to_bytes(GROUP_BYTES, sys.byteorder)


def device_key(index: int) -> bytes:
    """Of a device's index."""
    return index.to_bytes(GROUP_BYTES, sys.byteorder)


def address_key(address: str) -> bytes:
    """Four bytes or sixteen. Raises ValueError for what is no address."""
    return ipaddress.ip_address(address).packed


def port_key(member: bytes) -> bytes:
    """A member of a `ports` group (address, protocol, 0, port) in the kernel's layout."""
    return b"%b\0\0\0%b\0\0" % (member[:-3], member[-2:])


def net_keys(cidrs: Iterable[str], family: int) -> set[bytes]:
    """The CIDRs of one family with overlaps and neighbours merged, as an interval set needs them."""
    nets = [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]
    if family == 4:
        merged = {str(n) for n in ipaddress.collapse_addresses(n for n in nets if isinstance(n, ipaddress.IPv4Network))}
    else:
        merged = {str(n) for n in ipaddress.collapse_addresses(n for n in nets if isinstance(n, ipaddress.IPv6Network))}
    return {text.encode() for text in merged}


def packed_net_keys(nets: Iterable[bytes]) -> set[bytes]:
    """Packed networks (`bus_schemas.policy.NET4`) of one family without those that lie in another, as an interval set
    needs them: it can hold neighbours, but no overlaps."""
    kept: set[bytes] = set()
    covered = -1
    for net in sorted(nets):  # Of those with one address the widest is first.
        bits = 8 * (len(net) - 1)
        host = (1 << bits - net[-1]) - 1
        start = int.from_bytes(net[:-1], "big") & ~host
        if start > covered:
            covered = start | host
            address = start.to_bytes(len(net) - 1, "big")
            kept.add(f"{ipaddress.ip_address(address)}/{net[-1]}".encode())
    return kept
