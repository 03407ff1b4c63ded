"""What people asked for, as far as addresses go: pools, reservations, the configuration, nodes, namespaces' labels.

Presence and absence are told apart from ignorance. `gone` nodes and pools were deleted, by word of the bus; a node that
nobody spoke of may merely not have been heard of yet, and nothing is taken from it for that (silence never deletes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from bus_schemas.ids import NodeName
from bus_schemas.ipam import LOAD_BALANCER, Block, of_pod_cidr, pod_cidr_pool
from bus_schemas.reserved import Reserved
from bus_schemas.resources import IPAMConfiguration, IPPool, IPReservation, Namespace, Node
from bus_schemas.resources.pools import IPAM_CONFIGURATION, IPAMConfigurationSpec
from bus_schemas.subjects import DESIRED, Fact
from services.ipam.cidr import WIDTH, Address, Cidr
from services.ipam.pools import MalformedPool, Pool, read, read_pod_cidrs

POOL = DESIRED[IPPool]
RESERVATION = DESIRED[IPReservation]
CONFIGURATION = DESIRED[IPAMConfiguration]
NODE = DESIRED[Node]
NAMESPACE = DESIRED[Namespace]


Name = TypeVar("Name", bound=str)

REMEMBERED = 1 << 14
"""So many names of what was deleted are remembered. What a node held that left before is as that of one unheard of."""


BySize = dict[tuple[int, int], dict[int, Pool]]
"""Pools by (family, prefix length), the narrowest first, and by the bits of their addresses that this leaves."""


class Desired:
    def __init__(self) -> None:
        self.pools: dict[str, Pool] = {}
        self.malformed_pools: dict[str, str] = {}
        """Name -> what is wrong; pod CIDRs by the name of their pool."""
        self.gone_pools: dict[str, None] = {}
        self._by_size: BySize | None = None
        """None: to be made anew when somebody asks."""
        self.configuration: IPAMConfigurationSpec | None = None
        self.nodes: dict[NodeName, Mapping[str, str]] = {}
        """Labels by name."""
        self.created: dict[NodeName, str] = {}
        """When a node's resource was made (RFC 3339), as far as it says so."""
        self.gone_nodes: dict[NodeName, None] = {}
        self._pod_cidrs: dict[str, tuple[Pool, ...]] = {}
        """By the name that all of a node's have."""
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._reservations: dict[str, IPReservation] = {}
        self._reserved: Reserved | None = None
        """None: to be made anew when somebody asks."""

    # --- questions

    @property
    def reserved(self) -> Reserved:
        """What all reservations together reserve."""
        if self._reserved is None:
            self._reserved = Reserved(self._reservations[name] for name in sorted(self._reservations))
        return self._reserved

    def pool_of(self, inside: Cidr | Address) -> Pool | None:
        """The IPPool that holds a block or an address; the narrowest, where pools overlap against the rules."""
        if self._by_size is None:
            self._by_size = _by_size(self.pools)
        if isinstance(inside, Address):
            inside = Cidr(inside.family, inside.number, WIDTH[inside.family])
        for (family, prefix), pools in self._by_size.items():
            if family == inside.family and prefix <= inside.prefix:
                pool = pools.get(inside.first >> (WIDTH[family] - prefix))
                if pool is not None:
                    return pool
        return None

    def pod_cidrs(self, node: NodeName) -> tuple[Pool, ...]:
        """The node's own ranges. Where an IPPool lies, too, they are cut as that is: two blocks of different sizes have
        different keys, so no compare-and-swap would keep one from overlapping the other."""
        return tuple(own.cut_as(self.pools.values()) for own in self._pod_cidrs.get(pod_cidr_pool(node), ()))

    def pool_of_block(self, cidr: Cidr, block: Block | None) -> Pool | None:
        """Whose part a block is now: of the pod CIDR that it was cut from while there is one, else of an IPPool."""
        if block is not None:
            for pool in self._pod_cidrs.get(block.pool, ()):
                if pool.cidr.holds(cidr):
                    return pool
        return self.pool_of(cidr)

    def has_lost(self, block: Block) -> bool:
        """Whether the pool that a block names is gone, by word of the bus."""
        if not of_pod_cidr(block.pool):
            return block.pool in self.gone_pools
        node = NodeName(block.pool.removeprefix(pod_cidr_pool(NodeName(""))))
        return node in self.nodes or node in self.gone_nodes

    def labels(self, node: NodeName) -> Mapping[str, str] | None:
        """None: there is no such node. That of the load balancers needs no resource."""
        return {} if node == LOAD_BALANCER else self.nodes.get(node)

    def namespace(self, name: str) -> Mapping[str, str] | None:
        return self._namespaces.get(name)

    # --- what is told

    def apply_pool(self, fact: Fact) -> None:
        name = fact.key[1]
        self.pools.pop(name, None)
        self.malformed_pools.pop(name, None)
        self.gone_pools.pop(name, None)
        self._by_size = None
        if fact.value is None:
            _remember(self.gone_pools, name)
            return
        try:
            self.pools[name] = read(fact.value)
        except MalformedPool as error:
            self.malformed_pools[name] = str(error)

    def apply_reservation(self, fact: Fact) -> None:
        self._reservations.pop(fact.key[1], None)
        if fact.value is not None:
            self._reservations[fact.key[1]] = fact.value
        self._reserved = None

    def apply_configuration(self, fact: Fact) -> None:
        if fact.key[1] == IPAM_CONFIGURATION:
            self.configuration = None if fact.value is None else fact.value.spec

    def apply_node(self, fact: Fact) -> None:
        name = NodeName(fact.key[1])
        pool = pod_cidr_pool(name)
        self._pod_cidrs.pop(pool, None)
        self.malformed_pools.pop(pool, None)
        if fact.value is None:
            self.nodes.pop(name, None)
            self.created.pop(name, None)
            self.gone_nodes.pop(name, None)
            _remember(self.gone_nodes, name)
            return
        self.nodes[name] = fact.value.metadata.labels
        self.created[name] = fact.value.metadata.creation_timestamp
        self.gone_nodes.pop(name, None)
        try:
            if ranges := read_pod_cidrs(fact.value):
                self._pod_cidrs[pool] = ranges
        except MalformedPool as error:
            self.malformed_pools[pool] = str(error)

    def apply_namespace(self, fact: Fact) -> None:
        name = fact.key[1]
        if fact.value is None:
            self._namespaces.pop(name, None)
        else:
            implied = {"kubernetes.io/metadata.name": name, "projectcalico.org/name": name}
            self._namespaces[name] = implied | fact.value.metadata.labels


def _by_size(pools: Mapping[str, Pool]) -> BySize:
    found: BySize = {}
    for _, pool in sorted(pools.items(), key=lambda item: (-item[1].cidr.prefix, item[0])):
        cidr = pool.cidr
        found.setdefault((cidr.family, cidr.prefix), {})[cidr.first >> (WIDTH[cidr.family] - cidr.prefix)] = pool
    return found


def _remember(gone: dict[Name, None], name: Name) -> None:
    gone[name] = None
    if len(gone) > REMEMBERED:
        del gone[next(iter(gone))]
