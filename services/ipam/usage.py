"""How addresses are used, by pool and node: what /metrics shows of the ledger. Pure.

It is asked for when somebody looks, not kept up with every request. A block that has not changed since the last look is
not counted again, so a look costs the blocks that changed, and one comparison for each of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from bus_schemas.ids import NodeName
from bus_schemas.ipam import Block
from bus_schemas.reserved import Reserved
from services.ipam.cidr import Cidr
from services.ipam.ledger import Ledger
from services.ipam.pools import Pool

Place = tuple[str, str]
"""(pool, node); the node is empty where there is none."""
NOBODY = NodeName("")


class PoolUsage(NamedTuple):
    """`size` is what is in use, reserved and free together."""

    size: int
    reserved: int
    """Kept back by an IPReservation and not given."""
    free: int
    """Also what nodes keep ready, and what rests after its release."""


class Usage(NamedTuple):
    in_use: Counter[Place]
    """Addresses by the node that uses them."""
    warm: Counter[Place]
    """Addresses that a node keeps ready for its next pod; nobody uses them yet."""
    borrowed: Counter[Place]
    """Addresses that a node has of another node's block."""
    blocks: Counter[Place]
    pools: dict[str, PoolUsage]


class _Counted(NamedTuple):
    """One block."""

    block: Block
    in_use: Counter[NodeName]
    warm: Counter[NodeName]
    borrowed: Counter[NodeName]
    complete: bool
    """All of its handles were known: a handle may be heard of a moment after its block."""


class Meter:
    """Remembers what it counted."""

    def __init__(self) -> None:
        self._counted: dict[Cidr, _Counted] = {}

    def read(self, ledger: Ledger, pools: Iterable[Pool], reserved: Reserved) -> Usage:
        self._counted = {cidr: self._count(cidr, block, ledger) for cidr, block in ledger.blocks.items()}
        in_use, warm, borrowed, blocks = Counter[Place](), Counter[Place](), Counter[Place](), Counter[Place]()
        used, given_though_reserved = Counter[str](), Counter[str]()
        for cidr, counted in self._counted.items():
            pool = counted.block.pool
            blocks[pool, counted.block.node or NOBODY] += 1
            for total, part in ((in_use, counted.in_use), (warm, counted.warm), (borrowed, counted.borrowed)):
                for node, count in part.items():
                    total[pool, node] += count
            used[pool] += counted.in_use.total()
            if reserved:
                given_though_reserved[pool] += _given_of(reserved, cidr, counted.block)
        figures = {}
        for pool_ in pools:
            kept = reserved.count(str(pool_.cidr)) - given_though_reserved[pool_.name]
            figures[pool_.name] = PoolUsage(pool_.cidr.size, kept, pool_.cidr.size - kept - used[pool_.name])
        return Usage(in_use, warm, borrowed, blocks, figures)

    def _count(self, cidr: Cidr, block: Block, ledger: Ledger) -> _Counted:
        known = self._counted.get(cidr)
        return known if known is not None and known.block is block and known.complete else _count(block, ledger)


def _count(block: Block, ledger: Ledger) -> _Counted:
    in_use, warm, borrowed = Counter[NodeName](), Counter[NodeName](), Counter[NodeName]()
    complete = True
    for allocation in block.allocations:
        node = allocation.borrower or block.node or NOBODY
        handle = ledger.handles.get(allocation.handle)
        complete &= handle is not None
        (warm if handle is not None and handle.use == "warm" else in_use)[node] += 1
        if allocation.borrower is not None and allocation.borrower != block.node:
            borrowed[node] += 1
    return _Counted(block, in_use, warm, borrowed, complete)


def _given_of(reserved: Reserved, cidr: Cidr, block: Block) -> int:
    """How many reserved addresses of the block are given all the same."""
    if next(reserved.within(cidr.family, cidr.first, cidr.last), None) is None:
        return 0
    return sum((cidr.family, cidr.first + allocation.ordinal) in reserved for allocation in block.allocations)
