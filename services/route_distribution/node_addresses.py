"""The nodes' addresses on the fabric, and which node has one that several claim: the oldest. Pure.

Two Nodes with one address are a copied machine, a mistyped address, or a machine that joined under a new name and whose
old Node is still there. Packets can only reach one of them, so the others count as having no address of that family
until the claim is settled, and everybody is told. A Node that does not say when it was created counts as the youngest;
of two of the same second the one whose name sorts first stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

from bus_schemas.ids import NodeName
from bus_schemas.resources import Node

FAMILIES = (4, 6)


class Rivalry(NamedTuple):
    address: str
    loser: NodeName
    winner: NodeName


class _Claim(NamedTuple):
    addresses: tuple[str, str]
    """As the Node has them, IPv4 and IPv6."""
    plain: tuple[str, str]
    created: str


class NodeAddresses:
    def __init__(self) -> None:
        self._claims: dict[NodeName, _Claim] = {}
        self._claimants: defaultdict[str, set[NodeName]] = defaultdict(set)
        self._contested: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._claims

    def __iter__(self) -> Iterator[NodeName]:
        return iter(self._claims)

    def apply(self, name: NodeName, node: Node | None) -> set[NodeName]:
        """One Node's current value or absence; the nodes whose addresses may count differently now."""
        before = self._claims.pop(name, None)
        now = _claim(node) if node is not None else None
        if now is not None:
            self._claims[name] = now
        if now == before:
            return set()
        touched = {name}
        for claim in (before, now):
            for address in claim.plain if claim is not None else ():
                touched |= self._claimants.get(address, set())
        for address in before.plain if before is not None else ():
            self._claimants[address].discard(name)
        for address in now.plain if now is not None else ():
            if address:
                self._claimants[address].add(name)
        for claim in (before, now):
            for address in claim.plain if claim is not None else ():
                self._recount(address)
        return touched

    def address(self, name: NodeName, family: int) -> str:
        """With its prefix length, as the Node has it; empty when it has none that counts."""
        claim = self._claims[name]
        at = FAMILIES.index(family)
        return claim.addresses[at] if self._winner(claim.plain[at]) in (name, None) else ""

    def rivalries(self) -> Iterator[Rivalry]:
        for address in self._contested:
            winner = self._winner(address)
            assert winner is not None, "a contested address has claimants"
            for loser in self._claimants[address] - {winner}:
                yield Rivalry(address, loser, winner)

    def _winner(self, address: str) -> NodeName | None:
        claimants = self._claimants.get(address)
        return min(claimants, key=self._seniority) if claimants else None

    def _seniority(self, name: NodeName) -> tuple[bool, str, NodeName]:
        """RFC 3339 times of one zone and precision, which is what API servers write, sort as text."""
        created = self._claims[name].created
        return not created, created, name

    def _recount(self, address: str) -> None:
        claimants = self._claimants.get(address, set())
        if len(claimants) > 1:
            self._contested.add(address)
        else:
            self._contested.discard(address)
        if not claimants:
            self._claimants.pop(address, None)


def _claim(node: Node) -> _Claim:
    v4, v6 = node.address(4), node.address(6)
    return _Claim((v4, v6), (_plain(v4), _plain(v6)), node.metadata.creation_timestamp)


def _plain(address: str) -> str:
    """Without its prefix length, in one spelling; empty for what is none."""
    try:
        return str(ip_address(address.partition("/")[0]))
    except ValueError:
        return ""
