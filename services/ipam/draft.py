"""A change in the making: the ledger as it will be, and the writes that make it so.

    Ledger --read--> Draft --take, claim, remove ...--> writes()   all of them or none (one atomic batch)
                                                        believed() what was only read, to be read again

Everything that a decision rests on ends in one of the two: keys that change are written by compare-and-swap on the
sequence that was read, keys that merely answered a question are believed, and the shell reads them again before it
answers. So a decision made on a stale ledger cannot take effect.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any, NamedTuple

from bus_schemas.codec import Message
from bus_schemas.events import Event
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Affinity, AffinityState, Block, Busy, Handle, PoolExhausted
from bus_schemas.subjects import AFFINITY, BLOCK, HANDLE, Fact, Family, Key
from services.ipam.block import NOTHING_WITHHELD, OpenBlock, Withholding, adopted, disowned, fresh, moved
from services.ipam.cidr import Address, Cidr
from services.ipam.ledger import Ledger


class Write(NamedTuple):
    """One compare-and-swap; `message` None is a tombstone, `expected` 0 a key that must not exist."""

    family: Family[Any]
    key: Key
    message: Message | None
    expected: int


class Promise(NamedTuple):
    """A block that this draft's claim will bring, and how many of its addresses nobody waits for yet."""

    node: NodeName
    left: int


class Draft:
    def __init__(
        self, ledger: Ledger, withholding: Withholding = NOTHING_WITHHELD, under_way: Container[Cidr] = ()
    ) -> None:
        self.ledger = ledger
        self.withholding = withholding
        self.under_way = under_way
        """Blocks that others are about to claim."""
        self.now = withholding.now
        """Unix time in seconds."""
        self.promises: dict[Cidr, Promise] = {}
        self.exhausted: dict[object, PoolExhausted | Busy] = {}
        """What was searched for in vain, so that the next request need not search again."""
        self.events: list[Event] = []
        self._open: dict[Cidr, OpenBlock | None] = {}
        """None: the block is to go."""
        self._left: dict[Cidr, int] = {}
        """`free` of blocks that are not open and withhold something."""
        self._affinities: dict[tuple[NodeName, Cidr], AffinityState | None] = {}
        self._handles: dict[HandleId, Handle | None] = {}

    # --- reading through

    def block(self, cidr: Cidr) -> Block | None:
        """The block before the changes that are still open; see `free` and `open`."""
        if cidr in self._open:
            opened = self._open[cidr]
            return None if opened is None else opened.block
        return self.ledger.blocks.get(cidr)

    def free(self, cidr: Cidr) -> int:
        """How many addresses the block has for whoever comes."""
        if cidr in self._open:
            opened = self._open[cidr]
            return 0 if opened is None else opened.free
        block = self.ledger.blocks.get(cidr)
        if block is None or not block.free:
            return 0
        if not block.cooling and not self.withholding.reserved:
            return len(block.free)
        if cidr not in self._left:
            self._left[cidr] = len(block.free) - len(self.withholding.of(block, cidr))
        return self._left[cidr]

    def unused(self, cidr: Cidr) -> bool:
        """Whether nobody has an address of the block, or had one a moment ago."""
        if cidr in self._open:
            opened = self._open[cidr]
            return opened is None or opened.unused
        block = self.ledger.blocks.get(cidr)
        return block is None or not (block.allocations or self.withholding.cooling(block))

    def given(self, cidr: Cidr) -> int:
        """How many addresses of the block somebody has."""
        opened = self._open.get(cidr)
        if opened is not None:
            return opened.given
        block = self.block(cidr)
        return 0 if block is None else len(block.allocations)

    def cooling(self, cidr: Cidr) -> list[float]:
        """When those of the block's addresses were released that still cool down."""
        opened = self._open.get(cidr)
        if opened is not None:
            return opened.cooling
        block = self.block(cidr)
        return [] if block is None else [c.released for c in self.withholding.cooling(block)]

    def owned(self, node: NodeName) -> list[Cidr]:
        """The node's blocks, in order."""
        cidrs = {cidr for cidr in self.ledger.owned.get(node, ()) if cidr not in self._open}
        cidrs |= {cidr for cidr, opened in self._open.items() if opened is not None and opened.node == node}
        return sorted(cidrs)

    def ownerless(self) -> list[Cidr]:
        """The blocks that are nobody's, in order."""
        cidrs = {cidr for cidr in self.ledger.ownerless if cidr not in self._open}
        cidrs |= {cidr for cidr, opened in self._open.items() if opened is not None and opened.node is None}
        return sorted(cidrs)

    def blocks_within(self, cidr: Cidr) -> Iterator[tuple[Cidr, Block]]:
        """The sound blocks of a network that are there already."""
        for inside in self.ledger.within(cidr):
            block = self.block(inside)
            if block is not None:
                yield inside, block

    def block_at(self, address: Address) -> Cidr | None:
        """The block that holds an address, there already or just created."""
        known = self.ledger.block_at(address)
        if known is not None:
            return known
        return next((c for c, opened in self._open.items() if opened is not None and c.holds(address)), None)

    def occupied(self, cidr: Cidr) -> bool:
        """Whether a block cannot be created there."""
        return cidr in self._open or self.ledger.occupied(cidr)

    def affinity(self, node: NodeName, cidr: Cidr) -> AffinityState | None:
        if (node, cidr) in self._affinities:
            return self._affinities[node, cidr]
        affinity = self.ledger.affinities.get((node, cidr))
        return None if affinity is None else affinity.state

    def handle(self, handle: HandleId) -> Handle | None:
        """Asking is remembered: an answer that rests on it is believed or written."""
        if handle not in self._handles:
            self._handles[handle] = self.ledger.handles.get(handle)
        return self._handles[handle]

    def changed(self, cidr: Cidr) -> bool:
        if cidr not in self._open:
            return False
        opened = self._open[cidr]
        return opened is None or opened.close() is not self.ledger.blocks.get(cidr)

    # --- changing

    def open(self, cidr: Cidr) -> OpenBlock:
        opened = self._open.get(cidr)
        if opened is None:
            opened = self._reopen(cidr, self.ledger.blocks[cidr])
        return opened

    def _reopen(self, cidr: Cidr, block: Block) -> OpenBlock:
        opened = self._open[cidr] = OpenBlock(block, self.withholding)
        return opened

    def create(self, cidr: Cidr, pool: str, node: NodeName) -> OpenBlock:
        return self._reopen(cidr, fresh(cidr, pool, node, self.now))

    def adopt(self, cidr: Cidr, node: NodeName) -> OpenBlock:
        return self._reopen(cidr, adopted(self.open(cidr).close(), node, self.now))

    def disown(self, cidr: Cidr) -> None:
        self._reopen(cidr, disowned(self.open(cidr).close()))

    def move(self, cidr: Cidr, pool: str) -> None:
        self._reopen(cidr, moved(self.open(cidr).close(), pool))

    def remove(self, cidr: Cidr) -> None:
        self._open[cidr] = None

    def set_affinity(self, node: NodeName, cidr: Cidr, state: AffinityState | None) -> None:
        self._affinities[node, cidr] = state

    def set_handle(self, handle: HandleId, value: Handle | None) -> None:
        self._handles[handle] = value

    def tell(self, what: str, message: str, *, node: NodeName | None, object: str, **detail: str) -> None:
        """An event that is true once the draft is committed."""
        self.events.append(
            Event(time=self.now, domain="ipam", what=what, node=node, object=object, message=message, detail=detail)
        )

    # --- what comes of it

    @property
    def touched(self) -> int:
        """How many keys it has looked at or changed: there are no more writes than that."""
        return len(self._open) + len(self._affinities) + len(self._handles)

    def writes(self) -> list[Write]:
        """Blocks, affinities, then handles: only what differs from the ledger. Blocks come first because a follower may
        see the batch in parts, and an affinity without its block looks like one that lost its race."""
        writes: list[Write] = []
        for cidr, opened in self._open.items():
            self._write(writes, BLOCK, (cidr.text,), None if opened is None else opened.close())
        for (node, cidr), state in self._affinities.items():
            affinity = None if state is None else Affinity(node=node, cidr=cidr.text, state=state)
            self._write(writes, AFFINITY, (node, cidr.text), affinity)
        for handle, value in self._handles.items():
            self._write(writes, HANDLE, (handle,), value)
        return writes

    def believed(self, handle: HandleId) -> Fact | None:
        """What an answer about the handle rests on, unless the writes prove it."""
        if self._handles.get(handle) != self.ledger.handles.get(handle):
            return None
        return self.ledger.fact(HANDLE, (handle,))

    def believed_block(self, cidr: Cidr) -> Fact | None:
        """As `believed`, of a block."""
        return None if self.changed(cidr) else self.ledger.fact(BLOCK, (cidr.text,))

    def _write(self, writes: list[Write], family: Family[Any], key: Key, message: Message | None) -> None:
        known = self.ledger.fact(family, key)
        if message != known.value:
            writes.append(Write(family, key, message, known.sequence))
