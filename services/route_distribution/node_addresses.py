"""Which address each node is reached at, decided once for all. Pure: a filter in front of the cores.

    Node (DESIRED) ------------------+
    NodeAddresses (of its agent) ----+--> Node with the address that counts --> routes, BGP

Two nodes with one address are a copied machine, a mistyped address, or a machine that joined under a new name and whose
old Node is still there. Packets can reach only one of them: the older keeps it, the other has none, and a `Withheld`
names both. Older is who took it first; what only Node resources say is older than what agents found, and of two of them
the one that was created first is, or, in the same second, the one whose name sorts first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeVar

from bus_schemas.ids import NodeName
from bus_schemas.node_addresses import FAMILIES, NodeAddresses, address_of, completed, since
from bus_schemas.resources import Node
from bus_schemas.subjects import DESIRED, NODE_ADDRESSES, Fact
from services.route_distribution.core import Withheld

NODE = DESIRED[Node]
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Clear:
    """What the nodes come to."""

    nodes: Mapping[NodeName, Node | None]
    """Those that changed, as the cores are to see them; None: gone."""
    raised: tuple[Withheld, ...] = ()
    cleared: tuple[Withheld, ...] = ()


class AddressesOfNodes:
    def __init__(self) -> None:
        self._nodes: dict[NodeName, Node] = {}
        self._found: dict[NodeName, NodeAddresses] = {}
        self._claims: dict[NodeName, dict[int, str]] = {}
        """By node and family, the address that it says is its own, plain."""
        self._claimants: defaultdict[str, set[NodeName]] = defaultdict(set)
        self._dirty: set[NodeName] = set()
        self._told: dict[NodeName, Node] = {}
        self._troubles: dict[NodeName, tuple[Withheld, ...]] = {}

    def apply(self, fact: Fact) -> bool:
        """Whether the fact is one of ours."""
        if fact.family == NODE:
            name = NodeName(fact.key[1])
            _store(self._nodes, name, fact.value)
        elif fact.family == NODE_ADDRESSES:
            name = NodeName(fact.key[0])
            _store(self._found, name, fact.value)
        else:
            return False
        self._dirty.add(name)
        return True

    def flush(self) -> Clear:
        """What changed since the last flush."""
        affected = set(self._dirty)
        for name in self._dirty:
            affected |= self._claim(name)
        self._dirty.clear()
        changed: dict[NodeName, Node | None] = {}
        raised: list[Withheld] = []
        cleared: list[Withheld] = []
        for name in sorted(affected):
            node, troubles = self._settle(name)
            if node != self._told.get(name):
                changed[name] = node
                _store(self._told, name, node)
            before = self._troubles.get(name, ())
            raised += (trouble for trouble in troubles if trouble not in before)
            cleared += (trouble for trouble in before if trouble not in troubles)
            _store(self._troubles, name, troubles or None)
        return Clear(changed, tuple(raised), tuple(cleared))

    def _claim(self, name: NodeName) -> set[NodeName]:
        """Note what the node claims now; everybody who claims what it claims or claimed."""
        before, now = self._claims.pop(name, {}), self._claimed(name)
        if now:
            self._claims[name] = now
        affected: set[NodeName] = set()
        for address in before.values():
            self._claimants[address].discard(name)
            affected |= self._claimants[address]
            if not self._claimants[address]:
                del self._claimants[address]
        for address in now.values():
            affected |= self._claimants[address]
            self._claimants[address].add(name)
        return affected

    def _claimed(self, name: NodeName) -> dict[int, str]:
        node = self._nodes.get(name)
        if node is None:
            return {}
        said = ((family, _plain(address_of(node, self._found.get(name), family))) for family in FAMILIES)
        return {family: address for family, address in said if address}

    def _settle(self, name: NodeName) -> tuple[Node | None, tuple[Withheld, ...]]:
        node, found = self._nodes.get(name), self._found.get(name)
        if node is None:
            return None, ()
        addresses, troubles = {}, []
        for family, address in self._claims.get(name, {}).items():
            keeper = min(self._claimants[address], key=lambda other: self._age(other, family))
            if keeper == name:
                addresses[family] = address_of(node, found, family)
            else:
                troubles.append(_shared(name, keeper, address))
        return completed(node, addresses), tuple(troubles)

    def _age(self, name: NodeName, family: int) -> tuple[float, bool, str, NodeName]:
        """The least is the oldest. A Node that does not say when it was created counts as the youngest; RFC 3339 times
        of one zone and precision, which is what API servers write, sort as text."""
        node = self._nodes[name]
        created = node.metadata.creation_timestamp
        return since(node, self._found.get(name), family), not created, created, name


def _shared(name: NodeName, keeper: NodeName, address: str) -> Withheld:
    return Withheld(
        "duplicate",
        name,
        f"node {name} says that its address is {address}, which node {keeper} has had for longer: {name} is not "
        f"reached until one of them has another (tortie node explain {name}), or the Node that is gone is deleted",
    )


def _plain(address: str) -> str:
    """Without its prefix length, in one spelling; empty for what is none."""
    try:
        return str(ip_address(address.partition("/")[0]))
    except ValueError:
        return ""


def _store(table: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
