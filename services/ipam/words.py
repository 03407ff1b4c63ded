"""What the nodes' agents say that they hold: endpoints, and the word that there is nothing else. Pure.

    ENDPOINT(node, ...) --+
    HOLDING(node) --------+--> Words: which addresses are listed, by whom; under which epoch a node spoke last

A node's word is its `Holding`; it is worth something under the epoch that it names. An agent that died leaves its last
word behind, and what it says of the pods is still so; whether the agent lives is not known here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Holding
from bus_schemas.subjects import ENDPOINT, HOLDING, Fact, Key
from services.ipam.cidr import parse_address

FLOATING = ".floating"
"""What is behind a pod's handle in the handle of its floating addresses."""


class Record(NamedTuple):
    """Addresses that are somebody's, and whose."""

    handle: HandleId
    node: NodeName
    namespace: str
    pod: str
    use: str
    addresses: tuple[str, ...]


class Words:
    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self.holdings: dict[NodeName, Holding] = {}
        self._facts: dict[NodeName, dict[Key, Fact]] = defaultdict(dict)
        self._listed: dict[str, set[tuple[NodeName, Key]]] = defaultdict(set)
        """Address -> who lists it, and where."""
        self.shared: set[str] = set()
        """Addresses that more than one node lists."""
        for fact in facts:
            self.apply(fact)

    def apply(self, fact: Fact) -> None:
        """An ENDPOINT or a HOLDING, in any order, any number of times."""
        node = NodeName(fact.key[0])
        before, after = _addresses(self._facts[node].get(fact.key)), _addresses(fact)
        for address in before:
            self._listed[address].discard((node, fact.key))
            if not self._listed[address]:
                del self._listed[address]
        if fact.value is None:
            self._facts[node].pop(fact.key, None)
            if not self._facts[node]:
                del self._facts[node]
        else:
            self._facts[node][fact.key] = fact
        if fact.family is HOLDING:
            self.holdings.pop(node, None)
            if fact.value is not None:
                self.holdings[node] = fact.value
        for address in after:
            self._listed[address].add((node, fact.key))
        for address in {*before, *after}:
            if len(self.users(address)) > 1:
                self.shared.add(address)
            else:
                self.shared.discard(address)

    def has_spoken(self, node: NodeName, epoch: str) -> bool:
        """Whether its word is one of this life of the records."""
        holding = self.holdings.get(node)
        return holding is not None and holding.epoch == epoch

    @property
    def nodes(self) -> set[NodeName]:
        """Everybody who says anything."""
        return set(self._facts)

    @property
    def epochs(self) -> set[str]:
        return {holding.epoch for holding in self.holdings.values() if holding.epoch}

    @property
    def any_endpoint(self) -> bool:
        return any(fact.family is ENDPOINT for facts in self._facts.values() for fact in facts.values())

    @property
    def any_held(self) -> bool:
        """Whether anybody says that he has something beside endpoints."""
        return any(holding.held or holding.blocks for holding in self.holdings.values())

    @property
    def any_word(self) -> bool:
        """Whether anybody has said everything that he has; under whatever epoch, and be it nothing."""
        return any(holding.complete for holding in self.holdings.values())

    def users(self, address: str) -> set[NodeName]:
        """Who lists an address (canonical)."""
        return {node for node, _ in self._listed.get(address, ())}

    def remains(self, node: NodeName) -> list[Fact]:
        """Everything that a node has on the bus: endpoints first, its word last."""
        facts = self._facts.get(node, {})
        return sorted(facts.values(), key=lambda fact: (fact.family is HOLDING, fact.key))

    def records(self, node: NodeName) -> Iterator[Record]:
        """What the node says is whose: pods' own addresses first."""
        facts = self.remains(node)
        endpoints: list[Endpoint] = [fact.value for fact in facts if fact.family is ENDPOINT]
        seen: set[str] = set()
        for endpoint in endpoints:
            if endpoint.handle:
                who = (node, endpoint.namespace, endpoint.name)
                yield from _fresh(Record(endpoint.handle, *who, "workload", endpoint.addresses), seen)
                translated = tuple(address for address, _ in endpoint.floating)
                yield from _fresh(Record(HandleId(endpoint.handle + FLOATING), *who, "floating", translated), seen)
        holding = self.holdings.get(node)
        for held in holding.held if holding is not None else ():
            yield from _fresh(Record(held.handle, node, "", "", held.use, held.addresses), seen)


def _fresh(record: Record, seen: set[str]) -> Iterator[Record]:
    """The record with the addresses that no earlier one had: a warm address is its pod's as soon as there is one."""
    addresses = tuple(text for text in map(_canonical, record.addresses) if text and text not in seen)
    if addresses:
        seen.update(addresses)
        yield record._replace(addresses=addresses)


def _addresses(fact: Fact | None) -> list[str]:
    if fact is None or fact.value is None:
        return []
    if fact.family is ENDPOINT:
        found = [*fact.value.addresses, *(address for address, _ in fact.value.floating)]
    else:
        found = [address for held in fact.value.held for address in held.addresses]
    return [text for text in map(_canonical, found) if text]


def _canonical(text: str) -> str:
    """Empty: it is no address."""
    try:
        return str(parse_address(text))
    except ValueError:
        return ""
