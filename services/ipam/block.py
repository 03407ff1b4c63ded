"""A block's arithmetic: give addresses first in first out, take them back, say whether a block makes sense.

Every address of a block is a good one, the first and the last included: a pod's address is routed as a /32 or /128, so
no network or broadcast address exists. The free list is a queue: what was released last is given last, so an address
rests as long as the block allows before it is somebody else's.

An allocation carries the block's sequence of the moment when it was given. A release names that sequence: one that
arrives after the address was released and given again names an old one and changes nothing.

Some free addresses are withheld: they are given to who names them, and to nobody else. Reserved ones, and those that
cool down: an address that was released a moment ago is still in the mind of others (entries of conntrack, members of
policy groups on their way to the nodes).

A block is immutable on the bus; `OpenBlock` is one change of it in the making.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Allocation, Block, Cooling
from bus_schemas.reserved import Reserved
from services.ipam.cidr import Cidr, parse

BLOCK_PREFIXES = {4: range(20, 33), 6: range(116, 129)}
"""Legal block sizes by family, as prefix lengths (projectcalico.org/v3 IPPool.spec.blockSize)."""


def fresh(cidr: Cidr, pool: str, node: NodeName, now: float) -> Block:
    """A newly claimed block. Its sequence begins at the clock in microseconds, so that a block that goes and comes
    again does not repeat the sequences of its former life."""
    return Block(
        cidr=cidr.text,
        pool=pool,
        node=node,
        sequence=int(now * 1_000_000),
        free=tuple(range(cidr.size)),
        claimed=now,
    )


def disowned(block: Block) -> Block:
    """The block after its node left: nobody's, and its addresses are borrowed by who still uses them."""
    allocations = tuple(
        a if a.borrower is not None else msgspec.structs.replace(a, borrower=block.node) for a in block.allocations
    )
    return msgspec.structs.replace(block, node=None, allocations=allocations, sequence=block.sequence + 1)


def adopted(block: Block, node: NodeName, now: float) -> Block:
    """Nobody's block as `node`'s own: the inverse of `disowned` for that node's addresses."""
    assert block.node is None
    allocations = tuple(
        msgspec.structs.replace(a, borrower=None) if a.borrower == node else a for a in block.allocations
    )
    return msgspec.structs.replace(block, node=node, allocations=allocations, claimed=now, sequence=block.sequence + 1)


def moved(block: Block, pool: str) -> Block:
    """The block as part of another pool; whose its addresses are does not change."""
    return msgspec.structs.replace(block, pool=pool, sequence=block.sequence + 1)


class Withholding(NamedTuple):
    """Which free addresses wait, at a moment. `cooldown_s` 0: none because of its past."""

    now: float = 0.0
    """Unix time in seconds."""
    cooldown_s: float = 0.0
    reserved: Reserved = Reserved()

    def cooling(self, block: Block) -> Sequence[Cooling]:
        """What still cools down. A time further in the future than that takes is nobody's honest clock."""
        if not block.cooling or not self.cooldown_s:
            return ()
        now, rest = self.now, self.cooldown_s
        return [c for c in block.cooling if -rest < now - c.released < rest]

    def reserved_of(self, cidr: Cidr) -> Iterator[int]:
        """The reserved ordinals, free or not."""
        for first, last in self.reserved.within(cidr.family, cidr.first, cidr.last) if self.reserved else ():
            yield from range(first - cidr.first, last - cidr.first + 1)

    def of(self, block: Block, cidr: Cidr) -> set[int]:
        """The free ordinals that are not given by chance."""
        waits = {c.ordinal for c in self.cooling(block)}
        if self.reserved and (reserved := set(self.reserved_of(cidr))):
            waits |= reserved.intersection(block.free)
        return waits


NOTHING_WITHHELD = Withholding()


def fault(block: Block) -> str | None:
    """Why a block cannot be worked with, or None. Such a block is left alone: nothing is given from it or over it."""
    try:
        cidr = parse(block.cidr)
    except ValueError as error:
        return str(error)
    if cidr.prefix not in BLOCK_PREFIXES[cidr.family]:
        return f"/{cidr.prefix} is no block size"
    given = [a.ordinal for a in block.allocations]
    if given != sorted(set(given)):
        return "its allocations are not in order, or one is there twice"
    ordinals = {*given, *block.free}
    if len(ordinals) != len(given) + len(block.free):
        return "an address is free and given, or free twice"
    if len(ordinals) != cidr.size or min(ordinals) < 0 or max(ordinals) >= cidr.size:
        return f"{len(given)} given and {len(block.free)} free addresses do not make up the {cidr.size} of the block"
    if block.cooling:
        cooling = {c.ordinal for c in block.cooling}
        if len(cooling) != len(block.cooling) or not cooling <= ordinals or not cooling.isdisjoint(given):
            return "an address cools down that is not free, or cools down twice"
    return None


class OpenBlock:
    """One change of a block: take and release any number of addresses, then `close` into the next Block."""

    def __init__(self, block: Block, withholding: Withholding = NOTHING_WITHHELD) -> None:
        self.block = block
        """As it was when opened."""
        self.cidr = parse(block.cidr)
        self._withholding = withholding
        self._free = deque(block.free)
        self._withheld = withholding.of(block, self.cidr)
        """Those of `_free` that are only given by name."""
        self._cooling = {c.ordinal: c for c in withholding.cooling(block)}
        self._given = {a.ordinal: a for a in block.allocations}
        self._changed = False

    @property
    def node(self) -> NodeName | None:
        return self.block.node

    @property
    def free(self) -> int:
        """How many addresses are left for whoever comes."""
        return len(self._free) - len(self._withheld)

    @property
    def given(self) -> int:
        """How many addresses somebody has."""
        return len(self._given)

    @property
    def cooling(self) -> list[float]:
        """When the addresses that cool down were released."""
        return [c.released for c in self._cooling.values()]

    @property
    def unused(self) -> bool:
        """Nobody has an address of it, or had one a moment ago."""
        return not self._given and not self._cooling

    def at(self, ordinal: int) -> Allocation | None:
        return self._given.get(ordinal)

    def take(self, handle: HandleId, *, borrower: NodeName | None = None, ordinal: int | None = None) -> Allocation:
        """The address that was free longest, or exactly `ordinal`; it must be free."""
        if ordinal is None:
            ordinal = next(o for o in self._free if o not in self._withheld)
        if ordinal == self._free[0]:
            self._free.popleft()
        else:
            self._free.remove(ordinal)
        self._withheld.discard(ordinal)
        self._cooling.pop(ordinal, None)
        allocation = Allocation(ordinal=ordinal, handle=handle, sequence=self.block.sequence, borrower=borrower)
        self._given[ordinal] = allocation
        self._changed = True
        return allocation

    def holds(self, ordinal: int, handle: HandleId, sequence: int) -> bool:
        """Whether the address is the one that `handle` was given at `sequence`."""
        held = self._given.get(ordinal)
        return held is not None and held.handle == handle and held.sequence == sequence

    def release(self, ordinal: int, handle: HandleId, sequence: int) -> bool:
        """Free the address if it is still the one that `handle` was given at `sequence`; otherwise it is too late,
        and nothing changes."""
        if not self.holds(ordinal, handle, sequence):
            return False
        del self._given[ordinal]
        self._free.append(ordinal)
        if self._withholding.cooldown_s:
            self._cooling[ordinal] = Cooling(ordinal=ordinal, released=self._withholding.now)
            self._withheld.add(ordinal)
        elif (self.cidr.family, self.cidr.first + ordinal) in self._withholding.reserved:
            self._withheld.add(ordinal)
        self._changed = True
        return True

    def pass_on(self, ordinal: int, handle: HandleId) -> Allocation:
        """A given address is another handle's from now on; whoever releases it as what it was is too late."""
        allocation = msgspec.structs.replace(self._given[ordinal], handle=handle, sequence=self.block.sequence)
        self._given[ordinal] = allocation
        self._changed = True
        return allocation

    def close(self) -> Block:
        """The block after the change, without what has cooled down; the very same object when nothing changed."""
        if not self._changed:
            return self.block
        return msgspec.structs.replace(
            self.block,
            sequence=self.block.sequence + 1,
            allocations=tuple(self._given[ordinal] for ordinal in sorted(self._given)),
            free=tuple(self._free),
            cooling=tuple(self._cooling.values()),
        )
