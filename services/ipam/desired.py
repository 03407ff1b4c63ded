"""What people asked for, as far as addresses go: pools, the labels of nodes and namespaces.

Presence and absence are told apart from ignorance. `gone` nodes and pools were deleted, by word of the bus; a node that
nobody spoke of may merely not have been heard of yet, and nothing is taken from it for that (silence never deletes).
"""

from __future__ import annotations

from collections.abc import Mapping

from bus_schemas.ids import NodeName
from bus_schemas.resources import IPPool, Namespace, Node
from bus_schemas.subjects import DESIRED, Fact
from services.ipam.cidr import Address, Cidr
from services.ipam.pools import MalformedPool, Pool, read

POOL = DESIRED[IPPool]
NODE = DESIRED[Node]
NAMESPACE = DESIRED[Namespace]


class Desired:
    def __init__(self) -> None:
        self.pools: dict[str, Pool] = {}
        self.malformed_pools: dict[str, str] = {}
        """Name -> what is wrong."""
        self.gone_pools: set[str] = set()
        self.nodes: dict[NodeName, Mapping[str, str]] = {}
        """Labels by name."""
        self.gone_nodes: set[NodeName] = set()
        self._namespaces: dict[str, Mapping[str, str]] = {}

    def pool_of(self, inside: Cidr | Address) -> Pool | None:
        """The pool that holds a block or an address; the narrowest, where pools overlap against the rules."""
        holders = [pool for pool in self.pools.values() if pool.cidr.holds(inside)]
        return max(holders, key=lambda pool: (pool.cidr.prefix, pool.name), default=None)

    def namespace(self, name: str) -> Mapping[str, str] | None:
        return self._namespaces.get(name)

    def apply_pool(self, fact: Fact) -> None:
        name = fact.key[1]
        self.pools.pop(name, None)
        self.malformed_pools.pop(name, None)
        self.gone_pools.discard(name)
        if fact.value is None:
            self.gone_pools.add(name)
            return
        try:
            self.pools[name] = read(fact.value)
        except MalformedPool as error:
            self.malformed_pools[name] = str(error)

    def apply_node(self, fact: Fact) -> None:
        name = NodeName(fact.key[1])
        if fact.value is None:
            self.nodes.pop(name, None)
            self.gone_nodes.add(name)
        else:
            self.nodes[name] = fact.value.metadata.labels
            self.gone_nodes.discard(name)

    def apply_namespace(self, fact: Fact) -> None:
        name = fact.key[1]
        if fact.value is None:
            self._namespaces.pop(name, None)
        else:
            implied = {"kubernetes.io/metadata.name": name, "projectcalico.org/name": name}
            self._namespaces[name] = implied | fact.value.metadata.labels
