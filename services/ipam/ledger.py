"""What the bus says about blocks, affinities and handles, by key and with the sequence that the next write must name.

Three sources tell the ledger of a key, and they may disagree for a moment:

    apply     the feed: in order, but late: older than what is known already is passed over
    learned   a direct read after a conflict: replaces what is known
    committed our own write: what the feed will say in a moment (read your writes)

None of them needs to be right. A wrong sequence makes the next write conflict, and the conflict makes the shell read
again; that is all that correctness rests on.

A key that a direct read does not find at all, not even its tombstone, was not deleted but lost (tombstones outlive
every delay), as all keys are when the stream is wiped: its last value stays, and is `lost` until it is written again.
A key under which lies what cannot be read is set aside until it is mended (see `mending`) or written by another.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Affinity, Block, Handle
from bus_schemas.subjects import AFFINITY, BLOCK, HANDLE, Fact, Family, Key
from services.ipam import block as blocks
from services.ipam.cidr import WIDTH, Address, Cidr, parse, parse_address

TOMBSTONES = 1 << 14
"""How many tombstones are remembered. Without one, a key that comes again costs a conflict."""

Where = tuple[Family[Any], Key]


class Ledger:
    def __init__(self) -> None:
        self.blocks: dict[Cidr, Block] = {}
        self.affinities: dict[tuple[NodeName, Cidr], Affinity] = {}
        self.handles: dict[HandleId, Handle] = {}
        self.owned: defaultdict[NodeName, set[Cidr]] = defaultdict(set)
        """Blocks by the node that they say is theirs."""
        self.ownerless: set[Cidr] = set()
        """Blocks that are nobody's."""
        self.claims: defaultdict[NodeName, set[Cidr]] = defaultdict(set)
        """Affinities by node."""
        self.claimants: defaultdict[Cidr, set[NodeName]] = defaultdict(set)
        """Affinities by block."""
        self.load_balanced: set[HandleId] = set()
        """The handles of Services."""
        self.used: Counter[str] = Counter()
        """Given addresses by pool name."""
        self.faults: dict[Where, str] = {}
        """Records that cannot be worked with, and why."""
        self.unreadable: dict[Where, Any] = {}
        """Keys whose last message cannot be read, with the value that was known before, None where none was. They are
        at fault, too, until they are written again."""
        self.lost: set[Where] = set()
        """Keys that the bus no longer holds, and nobody deleted."""
        self._facts: dict[Where, Fact] = {}
        self._buried: dict[Where, None] = {}
        """Keys of which only the tombstone is known, oldest first."""
        self._spans: dict[int, list[Cidr]] = {4: [], 6: []}
        """Every block by first address, also those that are at fault."""

    # --- questions

    def fact(self, family: Family[Any], key: Key) -> Fact:
        return self._facts.get((family, key)) or Fact(family, key, None, 0)

    def knows(self, family: Family[Any], key: Key) -> bool:
        """Whether anything was told of the key, be it that there is nothing."""
        return (family, key) in self._facts

    def block_at(self, address: Address) -> Cidr | None:
        """The block that holds an address."""
        spans = self._spans[address.family]
        at = bisect_right(spans, Cidr(address.family, address.number, WIDTH[address.family]))
        if at and spans[at - 1].holds(address):
            return spans[at - 1]
        return None

    def within(self, cidr: Cidr) -> Iterator[Cidr]:
        """Every block inside a network, in order."""
        spans = self._spans[cidr.family]
        for at in range(bisect_left(spans, Cidr(cidr.family, cidr.first, 0)), len(spans)):
            if spans[at].first > cidr.last:
                return
            yield spans[at]

    def occupied(self, cidr: Cidr) -> bool:
        """Whether a block, of whatever size, lies in, at or around the network."""
        return next(self.within(cidr), None) is not None or self.block_at(cidr.address(0)) is not None

    def count(self, first: int, last: int, family: int) -> int:
        """How many blocks begin between two addresses, both included."""
        spans = self._spans[family]
        return bisect_right(spans, Cidr(family, last, WIDTH[family])) - bisect_left(spans, Cidr(family, first, 0))

    # --- what is told

    def apply(self, fact: Fact) -> bool:
        """From the feed. Whether anything changed."""
        known = self._facts.get((fact.family, fact.key))
        if known is not None and 0 < fact.sequence <= known.sequence:
            return False
        if known is None and fact.value is None and not fact.sequence:
            return False
        self._set(fact)
        return True

    def learned(self, fact: Fact) -> None:
        """From a direct read."""
        known = self._facts.get((fact.family, fact.key))
        if fact.value is None and not fact.sequence and known is not None:
            fact = known._replace(sequence=0)
        self._set(fact)

    def committed(self, facts: Iterable[Fact]) -> None:
        """Our own writes with the sequences that they got."""
        for fact in facts:
            known = self._facts.get((fact.family, fact.key))
            if known is None or known.sequence < fact.sequence:
                self._set(fact)

    def cannot_read(self, family: Family[Any], key: Key, sequence: int, reason: str) -> None:
        """What lies under the key is no message of its family: nothing is given from it or over it."""
        where = (family, key)
        known = self.fact(family, key)
        if known.sequence >= sequence:
            return
        remembered = self.unreadable.get(where, known.value)
        self._set(Fact(family, key, None, sequence))
        self._buried.pop(where, None)
        self.unreadable[where] = remembered
        self.faults[where] = f"it cannot be read: {reason}"
        if family is BLOCK:
            with suppress(ValueError):  # a key that is no network is no block's
                cidr = _cidr(key[0])
                insort(self._spans[cidr.family], cidr)

    def _set(self, fact: Fact) -> None:
        where = (fact.family, fact.key)
        self._facts[where] = fact
        self.faults.pop(where, None)
        self.unreadable.pop(where, None)
        if fact.value is not None and not fact.sequence:
            self.lost.add(where)
        else:
            self.lost.discard(where)
        if fact.family is BLOCK:
            self._set_block(fact)
        elif fact.family is AFFINITY:
            self._set_affinity(fact)
        else:
            assert fact.family is HANDLE, fact.family
            self._set_handle(fact)
        self._buried.pop(where, None)
        if fact.value is None:
            self._bury(where)

    def _bury(self, where: Where) -> None:
        self._buried[where] = None
        if len(self._buried) > TOMBSTONES:
            oldest = next(iter(self._buried))
            del self._buried[oldest]
            del self._facts[oldest]

    def _set_block(self, fact: Fact) -> None:
        try:
            cidr = _cidr(fact.key[0])
        except ValueError as error:
            self._set_aside(fact, str(error))
            return
        self._forget_block(cidr)
        block: Block | None = fact.value
        if block is None:
            return
        insort(self._spans[cidr.family], cidr)
        fault = blocks.fault(block)
        if fault is None and block.cidr != fact.key[0]:
            fault = f"it says that it is {block.cidr}"
        if fault is not None:
            self.faults[fact.family, fact.key] = fault
            return
        self.blocks[cidr] = block
        self.used[block.pool] += len(block.allocations)
        if block.node is not None:
            self.owned[block.node].add(cidr)
        else:
            self.ownerless.add(cidr)

    def _set_aside(self, fact: Fact, reason: str) -> None:
        if fact.value is not None:
            self.faults[fact.family, fact.key] = reason

    def _forget_block(self, cidr: Cidr) -> None:
        spans = self._spans[cidr.family]
        at = bisect_left(spans, cidr)
        if at < len(spans) and spans[at] == cidr:
            del spans[at]
        old = self.blocks.pop(cidr, None)
        if old is None:
            return
        self.used[old.pool] -= len(old.allocations)
        if not self.used[old.pool]:
            del self.used[old.pool]
        self.ownerless.discard(cidr)
        if old.node is not None:
            _discard(self.owned, old.node, cidr)

    def _set_affinity(self, fact: Fact) -> None:
        node = NodeName(fact.key[0])
        try:
            cidr = _cidr(fact.key[1])
        except ValueError as error:
            self._set_aside(fact, str(error))
            return
        self.affinities.pop((node, cidr), None)
        _discard(self.claims, node, cidr)
        _discard(self.claimants, cidr, node)
        if fact.value is not None:
            self.affinities[node, cidr] = fact.value
            self.claims[node].add(cidr)
            self.claimants[cidr].add(node)

    def _set_handle(self, fact: Fact) -> None:
        handle = HandleId(fact.key[0])
        self.handles.pop(handle, None)
        self.load_balanced.discard(handle)
        if fact.value is not None:
            fault = _handle_fault(handle, fact.value)
            if fault is None:
                self.handles[handle] = fact.value
                if fact.value.use == "loadbalancer":
                    self.load_balanced.add(handle)
            else:
                self.faults[fact.family, fact.key] = fault


def _discard(index: defaultdict[Any, set[Any]], key: Any, member: Any) -> None:
    index[key].discard(member)
    if not index[key]:
        del index[key]


def _handle_fault(handle: HandleId, value: Handle) -> str | None:
    """Why a handle record cannot be worked with, or None."""
    if value.handle != handle:
        return f"it says that it is {value.handle}"
    if not value.addresses or len(value.addresses) != len(value.sequences):
        return f"{len(value.addresses)} addresses and {len(value.sequences)} sequences make no handle"
    try:
        canonical = tuple(str(parse_address(text)) for text in value.addresses)
    except ValueError as error:
        return str(error)
    return None if canonical == value.addresses else f"{value.addresses} should be spelt {canonical}"


def _cidr(token: str) -> Cidr:
    """The network in a key. Raises ValueError unless it is spelt as it should be: one network, one key."""
    cidr = parse(token)
    if cidr.text != token:
        raise ValueError(f"{token!r} should be spelt {cidr.text!r}")
    return cidr
