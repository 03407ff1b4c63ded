"""What a record must have said that cannot be read any more, from the records that it was written with. Pure.

A block, the handles of its addresses and its affinity change in one atomic batch, so each can be told from the others:

    block     <- the addresses of all handles in it, and who claims it        handle   <- the allocations that name it
    affinity  <- the block's own node

What was known of the record before (`remembered`) is believed as far as the others agree: another replica may have
written since. What only the record itself knew is lost where nobody remembers it: the order of a block's free addresses
and which of them cool down, the pod of a handle and since when it holds what it does. Nothing is mended from records of
which some cannot be read either: an address that one of those holds would be given twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Any

from bus_schemas.codec import Message
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import LOAD_BALANCER, Affinity, AffinityState, Allocation, Block, Handle, tunnel_kind
from bus_schemas.subjects import AFFINITY, BLOCK, HANDLE
from services.ipam.cidr import Cidr, parse, parse_address
from services.ipam.desired import Desired
from services.ipam.draft import Write
from services.ipam.ledger import Ledger, Where

_TOLD_FROM = {BLOCK.name: HANDLE.name, HANDLE.name: BLOCK.name, AFFINITY.name: BLOCK.name}


def mended(ledger: Ledger, desired: Desired, now: float) -> list[Write]:
    """The writes that put right what can be put right now; `now` is Unix time in seconds."""
    blind = {family.name for family, _ in ledger.unreadable}
    writes = []
    for where, remembered in ledger.unreadable.items():
        if _TOLD_FROM[where[0].name] in blind:
            continue
        write = _mend(ledger, desired, where, remembered, now)
        if write is not None:
            writes.append(write)
    return writes


Said = tuple[HandleId, str, int]
"""A handle, an address of it, and the sequence at which it was given."""


def by_blocks(blocks: Iterable[tuple[Cidr, Block]]) -> Iterator[Said]:
    """What blocks say."""
    for cidr, block in blocks:
        for allocation in block.allocations:
            yield allocation.handle, str(cidr.address(allocation.ordinal)), allocation.sequence


def by_records(handles: Iterable[Handle]) -> Iterator[Said]:
    """What the handles' own records say."""
    for held in handles:
        for address, sequence in zip(held.addresses, held.sequences, strict=True):
            yield held.handle, address, sequence


def disagreeing(blocks: Set[Said], records: Set[Said]) -> set[HandleId]:
    """Handles whose records and blocks do not say the same: a batch was cut short (see `docs/decisions`), or somebody
    wrote one of them by hand. To a ledger that lags behind they seem to disagree, too: look twice, and read them
    again."""
    return {handle for handle, _, _ in blocks ^ records}


def _mend(ledger: Ledger, desired: Desired, where: Where, remembered: Any, now: float) -> Write | None:
    """None: it cannot be told what the record was."""
    family, key = where
    message: Message | None
    if family is HANDLE:
        message = handle_by_blocks(ledger, HandleId(key[0]), remembered)
    else:
        try:
            cidr = parse(key[-1])
        except ValueError:
            return Write(family, key, None, ledger.fact(family, key).sequence)
        if family is AFFINITY:
            message = _affinity(ledger, NodeName(key[0]), cidr)
        else:
            message = _block(ledger, desired, cidr, remembered, now)
            if message is None and _anything_of(ledger, cidr):
                return None
    return Write(family, key, message, ledger.fact(family, key).sequence)


def _anything_of(ledger: Ledger, cidr: Cidr) -> bool:
    return bool(_held(ledger, cidr) or ledger.claimants.get(cidr))


def _held(ledger: Ledger, cidr: Cidr) -> dict[int, tuple[Handle, int]]:
    """Ordinal -> the handle that holds the address, and the sequence at which it was given."""
    held = {}
    for handle in ledger.handles.values():
        for text, sequence in zip(handle.addresses, handle.sequences, strict=True):
            address = parse_address(text)
            if cidr.holds(address):
                held[address.number - cidr.first] = (handle, sequence)
    return held


def _block(ledger: Ledger, desired: Desired, cidr: Cidr, remembered: Block | None, now: float) -> Block | None:
    held = _held(ledger, cidr)
    node = _owner(ledger, cidr, remembered, {handle.node for handle, _ in held.values()})
    pool = desired.pool_of_block(cidr, remembered)
    name = remembered.pool if remembered is not None else pool.name if pool is not None else ""
    if not name or (node is None and not held):
        return None
    allocations = tuple(
        Allocation(
            ordinal=ordinal,
            handle=handle.handle,
            sequence=sequence,
            borrower=handle.node if handle.node != node else None,
        )
        for ordinal, (handle, sequence) in sorted(held.items())
    )
    if remembered is not None and (remembered.node, remembered.allocations) == (node, allocations):
        return remembered
    order = dict.fromkeys((*(remembered.free if remembered is not None else ()), *range(cidr.size)))
    return Block(
        cidr=cidr.text,
        pool=name,
        node=node,
        sequence=max(int(now * 1_000_000), *(sequence + 1 for _, sequence in held.values()), 0),
        allocations=allocations,
        free=tuple(ordinal for ordinal in order if ordinal not in held),
        cooling=tuple(c for c in remembered.cooling if c.ordinal not in held) if remembered is not None else (),
        claimed=now,
    )


def _owner(ledger: Ledger, cidr: Cidr, remembered: Block | None, users: set[NodeName]) -> NodeName | None:
    """Who claims the block alone; else whose it was, or the only node that uses it."""
    confirmed = [
        node
        for node in ledger.claimants.get(cidr, ())
        if ledger.affinities[node, cidr].state is AffinityState.CONFIRMED
    ]
    if len(confirmed) == 1:
        return confirmed[0]
    if remembered is not None:
        return remembered.node
    return next(iter(users)) if len(users) == 1 else None


def _affinity(ledger: Ledger, node: NodeName, cidr: Cidr) -> Affinity | None:
    block = ledger.blocks.get(cidr)
    if block is None or block.node != node:
        return None
    return Affinity(node=node, cidr=cidr.text, state=AffinityState.CONFIRMED)


def handle_by_blocks(ledger: Ledger, name: HandleId, remembered: Handle | None) -> Handle | None:
    """The record as the blocks have it; None: they have nothing of it."""
    held = {}
    for cidr, block in ledger.blocks.items():
        for allocation in block.allocations:
            if allocation.handle == name:
                held[str(cidr.address(allocation.ordinal))] = (allocation, allocation.borrower or block.node)
    if not held:
        return None
    sequences = {address: allocation.sequence for address, (allocation, _) in held.items()}
    if remembered is not None and dict(zip(remembered.addresses, remembered.sequences, strict=True)) == sequences:
        return remembered
    node = next(iter(held.values()))[1] or NodeName("")
    return Handle(
        handle=name,
        node=node,
        namespace=remembered.namespace if remembered is not None else "",
        pod=remembered.pod if remembered is not None else "",
        use=remembered.use if remembered is not None else _use(name, node),
        addresses=tuple(held),
        sequences=tuple(sequences.values()),
        assigned=remembered.assigned if remembered is not None else 0.0,
    )


def _use(handle: HandleId, node: NodeName) -> str:
    """What the addresses of a handle are for, as far as its name tells."""
    if node == LOAD_BALANCER:
        return "loadbalancer"
    if tunnel_kind(handle, node) is not None:
        return "tunnel"
    if handle.startswith(f"warm.{node}."):
        return "warm"
    return "floating" if handle.endswith(".floating") else "workload"
