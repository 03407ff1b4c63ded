"""Networks as numbers: what blocks and pools calculate with, text only at the door.

A Cidr orders by family, then first address, then the wider network first, so that the blocks inside a network are one
slice of a sorted list.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

from bus_schemas.ids import BlockCidr

WIDTH = {4: 32, 6: 128}
"""Bits of an address by family."""


class Address(NamedTuple):
    family: int
    number: int

    def __str__(self) -> str:
        return str(IPv4Address(self.number) if self.family == 4 else IPv6Address(self.number))


class Cidr(NamedTuple):
    family: int
    first: int
    prefix: int

    @property
    def size(self) -> int:
        """How many addresses it holds."""
        return 1 << (WIDTH[self.family] - self.prefix)

    @property
    def last(self) -> int:
        return self.first + self.size - 1

    def holds(self, other: Cidr | Address) -> bool:
        """Whether all of a network, or an address, lies inside."""
        first, last = (other.first, other.last) if isinstance(other, Cidr) else (other.number, other.number)
        return self.family == other.family and self.first <= first and last <= self.last

    def address(self, ordinal: int) -> Address:
        assert 0 <= ordinal < self.size
        return Address(self.family, self.first + ordinal)

    def around(self, address: Address, prefix: int) -> Cidr:
        """The network of length `prefix` around an address that this one holds."""
        shift = WIDTH[self.family] - prefix
        return Cidr(self.family, address.number >> shift << shift, prefix)

    @property
    def text(self) -> BlockCidr:
        """Canonical notation, `10.244.0.64/26`."""
        return _text(self)

    def __str__(self) -> str:
        return _text(self)


@lru_cache(maxsize=1 << 16)
def _text(cidr: Cidr) -> BlockCidr:
    return BlockCidr(f"{Address(cidr.family, cidr.first)}/{cidr.prefix}")


@lru_cache(maxsize=1 << 16)
def parse(text: str) -> Cidr:
    """A masked network. Raises ValueError that says what is wrong."""
    network = ip_network(text)
    return Cidr(network.version, int(network.network_address), network.prefixlen)


def parse_address(text: str) -> Address:
    """A plain address without a mask. Raises ValueError."""
    address = ip_address(text)
    return Address(address.version, int(address))
