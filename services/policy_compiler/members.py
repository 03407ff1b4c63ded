"""What selectors find: things that carry labels and stand for addresses.

    Workload        a plugged-in pod            see `endpoints`
    Host            a host endpoint             see `hosts`
    NetworkSet      a (Global)NetworkSet        see `network_sets`
    Node            a node's own addresses      see `nodes`
    Slice           an EndpointSlice            see `slices`

Each joins its facts into `Contents`; a group's members are made of the contents of whoever its selection matches. The
first three share one world of labels: a selector of a policy finds all of them. Nodes and slices are worlds of their
own, which only the peers made for them can name (`selection.Realm`).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

from services.policy_compiler.labels import Labels

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}

EVERY_PORT = "*"
"""In place of a port's name: all of them. No port is called so."""


LONGEST_IPV4 = len("255.255.255.255")


class NamedPort(NamedTuple):
    name: str
    protocol: int
    port: int


class Contents(NamedTuple):
    """What a group, a selector and an attachment need to know."""

    labels: Labels
    """Effective labels, see `labels`."""
    addresses: tuple[bytes, ...]
    """Packed, 4 or 16 bytes each."""
    ports: tuple[NamedPort, ...] = ()
    container: str = ""
    """Of a workload: its incarnation."""
    namespace_known: bool = False
    nets: tuple[bytes, ...] = ()
    """Packed networks, 5 or 17 bytes each."""

    def members(self, port: str) -> list[bytes]:
        """Its members in a group of addresses (`port` empty), or of ports of that name: see `bus_schemas.policy`."""
        if not port:
            return [*self.addresses, *self.nets]
        ends = [bytes((p.protocol, 0)) + p.port.to_bytes(2, "big") for p in self.ports if port in (p.name, EVERY_PORT)]
        return [address + end for address in self.addresses for end in ends]

    @property
    def reached(self) -> object:
        """What its members in groups are made of."""
        return (self.addresses, self.ports, self.nets)


class Member:
    """One thing's identity; compared as an object."""

    __slots__ = ("now",)

    now: Contents | None
    """As of the last flush; None: there is no such thing, or nothing is to find it."""

    def __init__(self) -> None:
        self.now = None


class Change(NamedTuple):
    """How a member differs from the last flush; for an attachment it can differ although the contents do not."""

    member: Member
    before: Contents | None
    after: Contents | None


def packed(text: str) -> bytes | None:
    """A plain address in network order; None: it is none."""
    if ":" in text:
        try:
            return IPv6Address(text).packed
        except AddressValueError:
            return None
    if len(text) > LONGEST_IPV4:
        return None
    try:
        address = bytes(map(int, text.split(".")))
    except ValueError:
        return None
    # Whatever else `int` reads (leading zeros, blanks, other digits) is not written so.
    return address if len(address) == 4 and ".".join(map(str, address)) == text else None


def packed_all(texts: Iterable[str]) -> tuple[tuple[bytes, ...], list[str]]:
    """The addresses, and what is none."""
    addresses: list[bytes] = []
    rest: list[str] = []
    for text in texts:
        address = packed(text)
        if address is None:
            rest.append(text)
        else:
            addresses.append(address)
    return tuple(addresses), rest


def is_port(port: int) -> bool:
    return 0 < port < 1 << 16
