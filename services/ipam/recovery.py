"""Blocks and handles that a wiped bus lost, from what the agents hold and what a living replica remembers. Pure.

    words of the agents --+
    memory of a replica --+--> records --one by one--> Draft: the address taken, block and affinity made --> writes

Records are taken in as if their addresses were assigned exactly, a hundred at a time: every batch leaves blocks,
affinities and handles in agreement, and whoever goes on after a crash begins where it stopped. What an agent lists
outranks all else: where a record on the bus stands in its way that no agent lists, that one goes (it was written by a
replica that had not heard of the wipe, and nobody was told, see `docs/decisions`). Two agents that list one address are
named; nothing is taken from either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import AffinityState, Handle, Holding
from bus_schemas.subjects import BLOCK, HANDLE
from services.ipam.block import BLOCK_PREFIXES
from services.ipam.cidr import Address, Cidr, parse, parse_address
from services.ipam.desired import Desired
from services.ipam.draft import Draft
from services.ipam.pools import Pool
from services.ipam.release import Behind, release_all
from services.ipam.words import Record, Words

ROOM = 120
"""Records that one batch takes in: each changes a few keys, and a batch holds 1,000 writes."""
NO_POOL_PREFIX = {4: 26, 6: 122}
NO_POOL = "unknown"
"""What the pool of a block is called that lies in none: the addresses are used, whoever removed the pool."""


def older(created: str, epoch_began: float) -> bool:
    """Whether a resource of this creationTimestamp (RFC 3339, whole seconds) was there before. One that does not say
    when it was made was not."""
    try:
        return datetime.fromisoformat(created).timestamp() < float(int(epoch_began))
    except ValueError:
        return False


class Collected(NamedTuple):
    records: list[Record]
    """Every address once, every handle once."""
    conflicts: list[str]


def records(words: Words, memory: Iterable[Handle]) -> Collected:
    """All that is known to be held: the agents' words, and behind them what is remembered and not contradicted."""
    found: dict[HandleId, Record] = {}
    taken: dict[str, Record] = {}
    conflicts: list[str] = []
    for node in sorted(words.nodes):
        for record in words.records(node):
            for text in record.addresses:
                if text in taken:
                    conflicts.append(f"{text} is held by the nodes {taken[text].node} and {node}")
            addresses = tuple(text for text in record.addresses if text not in taken)
            if not addresses:
                continue
            if record.handle in found:
                conflicts.append(f"{record.handle} is a handle of the nodes {found[record.handle].node} and {node}")
                record = record._replace(handle=HandleId(f"{record.handle}.{node}"))
            found[record.handle] = record._replace(addresses=addresses)
            taken.update(dict.fromkeys(addresses, record))
    for held in sorted(memory, key=lambda one: one.handle):
        if held.handle not in found and taken.keys().isdisjoint(held.addresses):
            remembered = Record(held.handle, held.node, held.namespace, held.pod, held.use, held.addresses)
            found[held.handle] = remembered
            taken.update(dict.fromkeys(held.addresses, remembered))
    return Collected(list(found.values()), conflicts)


def owners(holdings: Mapping[NodeName, Holding], remembered: Mapping[Cidr, NodeName]) -> dict[Cidr, NodeName]:
    """Blocks by the node that says they are its own; of two nodes that claim one, the one that is remembered as its
    owner, or the first by name."""
    found: dict[Cidr, NodeName] = dict(remembered)
    for node in sorted(holdings):
        for text in holdings[node].blocks:
            try:
                cidr = parse(text)
            except ValueError:
                continue
            found.setdefault(cidr, node)
    return found


class Recovery:
    """One pass over the records that are not on the bus yet."""

    def __init__(
        self,
        draft: Draft,
        desired: Desired,
        words: Words,
        owned: Mapping[Cidr, NodeName],
        read: Collection[Behind] = (),
    ) -> None:
        """`read`: what the ledger was behind on and has been read since. Where it is behind on that all the same, the
        bus has half of a batch."""
        self._read = read
        self._draft = draft
        self._desired = desired
        self._words = words
        self._owned = owned
        self.problems: list[str] = []
        """What stands in the way for good, one sentence each."""
        self.behind: list[Behind] = []
        """What the ledger has to catch up with first."""
        self._taken_in = 0

    def take_in(self, wanted: Iterable[Record]) -> bool:
        """False: there is more than fits in one batch."""
        for record in wanted:
            if self._taken_in >= ROOM:
                return False
            self._take_in(record)
        return True

    def _take_in(self, record: Record) -> None:
        said = all(record.node in self._words.users(text) for text in record.addresses)
        places = {text: self._place(record, parse_address(text)) for text in record.addresses}
        addresses = [text for text, cidr in places.items() if cidr is not None]
        held = self._draft.handle(record.handle)
        if held is not None and set(held.addresses) == set(addresses) and held.node == record.node:
            return
        if not addresses or (not said and (held is not None or not self._all_free(places))):
            return  # a memory gives way
        self._taken_in += 1
        if held is not None and not self._evict(held):
            return
        for text, cidr in places.items():
            if cidr is not None and not self._clear(cidr, parse_address(text)):
                return
        sequences = [self._take(record, cidr, parse_address(text)) for text, cidr in places.items() if cidr is not None]
        self._draft.set_handle(
            record.handle,
            Handle(
                handle=record.handle,
                node=record.node,
                namespace=record.namespace,
                pod=record.pod,
                use=record.use,
                addresses=tuple(addresses),
                sequences=tuple(sequences),
                assigned=self._draft.now,
            ),
        )

    def _place(self, record: Record, address: Address) -> Cidr | None:
        """The block that is or shall be around the address; None: there can be none."""
        cidr = self._draft.block_at(address)
        if cidr is not None:
            if self._draft.block(cidr) is not None:
                return cidr
            self.problems.append(f"the block {cidr} of {address} cannot be worked with")
            return None
        owned = [cidr for cidr in self._around(address) if cidr in self._owned and not self._draft.occupied(cidr)]
        if owned:
            return owned[0]
        pool = self._pool(record.node, address)
        if pool is not None:
            cidr = pool.cidr.around(address, pool.block_prefix)
        else:
            cidr = Cidr(address.family, 0, 0).around(address, NO_POOL_PREFIX[address.family])
        if self._draft.occupied(cidr):
            self.problems.append(
                f"{address} of {record.handle} on node {record.node} is in no block: {cidr} overlaps one"
            )
            return None
        return cidr

    def _around(self, address: Address) -> Iterator[Cidr]:
        for prefix in BLOCK_PREFIXES[address.family]:
            yield Cidr(address.family, 0, 0).around(address, prefix)

    def _all_free(self, places: Mapping[str, Cidr | None]) -> bool:
        for text, cidr in places.items():
            if cidr is None:
                return False
            address = parse_address(text)
            if self._draft.block(cidr) is not None and self._draft.open(cidr).at(address.number - cidr.first):
                return False
        return True

    def _clear(self, cidr: Cidr, address: Address) -> bool:
        """The address is free now. False: not yet."""
        if self._draft.block(cidr) is None:
            return True
        holder = self._draft.open(cidr).at(address.number - cidr.first)
        if holder is None:
            return True
        other = self._draft.handle(holder.handle)
        if other is None:  # the handle's own record was lost: this is all that is left of it
            if not self._draft.ledger.knows(HANDLE, (holder.handle,)):
                self.behind.append(Behind(holder.handle, str(address), cidr))
                return False
            self._draft.open(cidr).release(holder.ordinal, holder.handle, holder.sequence)
            return True
        return self._evict(other) and self._draft.block(cidr) is not None

    def _evict(self, held: Handle) -> bool:
        """The handle holds nothing now. False: not yet, or not at all."""
        draft = self._draft
        blocks = [(text, draft.block_at(parse_address(text))) for text in held.addresses]
        for text, cidr in blocks:
            if cidr is not None and (BLOCK, (cidr.text,)) in draft.ledger.faults:
                self.problems.append(f"{text} of {held.handle} is in the block {cidr}, which cannot be worked with")
                return False
        outcome = release_all(draft, held)
        if not isinstance(outcome, Behind):
            return True
        if outcome not in self._read:
            self.behind.append(outcome)
            return False
        for (text, cidr), sequence in zip(blocks, held.sequences, strict=True):
            if cidr is not None and draft.block(cidr) is not None:
                draft.open(cidr).release(parse_address(text).number - cidr.first, held.handle, sequence)
        draft.set_handle(held.handle, None)
        return True

    def _take(self, record: Record, cidr: Cidr, address: Address) -> int:
        """The sequence of the allocation."""
        if self._draft.block(cidr) is None:
            pool = self._pool(record.node, address)
            owner = self._owned.get(cidr, record.node)
            self._draft.create(cidr, pool.name if pool is not None else NO_POOL, owner)
            self._draft.set_affinity(owner, cidr, AffinityState.CONFIRMED)
        opened = self._draft.open(cidr)
        borrower = None if opened.node == record.node else record.node
        return opened.take(record.handle, ordinal=address.number - cidr.first, borrower=borrower).sequence

    def _pool(self, node: NodeName, address: Address) -> Pool | None:
        own = (pool for pool in self._desired.pod_cidrs(node) if pool.cidr.holds(address))
        return next(own, None) or self._desired.pool_of(address)
