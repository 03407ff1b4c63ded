"""How addresses come back: by handle, or one address by name.

What is not held is released already: a repeated or a late release is a success that changes nothing. So is one that
names another sequence than that at which the address was given last. A block keeps to its node when its last address
comes back; nobody's block then goes, as soon as that address has cooled down.

A handle and its blocks change in one batch, so they agree on the bus. Where they do not agree here, the ledger is
`Behind` on one of them, and nothing may be concluded until it has caught up.
"""

from __future__ import annotations

from typing import NamedTuple

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Handle, Refused, Released, ReleaseReply, ReleaseRequest
from services.ipam.cidr import Cidr, parse_address
from services.ipam.draft import Draft


class Behind(NamedTuple):
    """A handle says that it holds an address, and the block that is known here does not."""

    handle: HandleId
    address: str
    block: Cidr | None
    """None: no block is known there."""

    @property
    def reason(self) -> str:
        return f"handle {self.handle} holds {self.address}, and its block is not known to agree: see `tortie ipam show`"


def release(draft: Draft, request: ReleaseRequest) -> ReleaseReply | Behind:
    """Answers a request in the draft."""
    if request.address is not None:
        return _one(draft, request.address, request)
    if request.handle is None:
        return Refused(reason="neither a handle nor an address is named")
    held = draft.handle(request.handle)
    if held is None:
        return Released()
    return _foreign(held, request) or release_all(draft, held)


def release_all(draft: Draft, held: Handle) -> Released | Behind:
    """Everything under a handle."""
    return _free(draft, held, held.addresses)


def handle_of(draft: Draft, request: ReleaseRequest) -> HandleId | None:
    """Whose addresses a request is about. Raises ValueError when the address is none."""
    if request.address is None:
        return request.handle
    address = parse_address(request.address)
    cidr = draft.block_at(address)
    if cidr is None or draft.block(cidr) is None:
        return None
    allocation = draft.open(cidr).at(address.number - cidr.first)
    return None if allocation is None else allocation.handle


def _one(draft: Draft, text: str, request: ReleaseRequest) -> ReleaseReply | Behind:
    try:
        handle = handle_of(draft, request)
        address = str(parse_address(text))
    except ValueError as error:
        return Refused(reason=str(error))
    if handle is None or (request.handle is not None and request.handle != handle):
        return Released()
    held = draft.handle(handle)
    if held is None or address not in held.addresses:
        return Behind(handle, address, draft.block_at(parse_address(text)))
    if request.sequence is not None and request.sequence != held.sequences[held.addresses.index(address)]:
        return Released()
    return _foreign(held, request) or _free(draft, held, (address,))


def _foreign(held: Handle, request: ReleaseRequest) -> Refused | None:
    """A node speaks for itself alone."""
    node: NodeName | None = request.node
    if node is None or node == held.node:
        return None
    return Refused(reason=f"handle {held.handle} is node {held.node}'s, not {node}'s")


def _free(draft: Draft, held: Handle, addresses: tuple[str, ...]) -> Released | Behind:
    found: list[tuple[Cidr, int, int]] = []
    for text, sequence in zip(held.addresses, held.sequences, strict=False):
        if text not in addresses:
            continue
        address = parse_address(text)
        cidr = draft.block_at(address)
        if cidr is None or draft.block(cidr) is None:
            return Behind(held.handle, text, None)
        ordinal = address.number - cidr.first
        if not draft.open(cidr).holds(ordinal, held.handle, sequence):
            return Behind(held.handle, text, cidr)
        found.append((cidr, ordinal, sequence))
    for cidr, ordinal, sequence in found:
        block = draft.open(cidr)
        block.release(ordinal, held.handle, sequence)
        if block.node is None and block.unused:
            draft.remove(cidr)
            draft.tell("removed", "Nobody's block is empty and goes.", node=None, object=cidr.text)
    left = [
        (text, sequence)
        for text, sequence in zip(held.addresses, held.sequences, strict=False)
        if text not in addresses
    ]
    draft.set_handle(held.handle, _with(held, left))
    draft.exhausted.clear()
    who = f"{held.namespace}/{held.pod}" if held.pod else held.handle
    freed = tuple(text for text in held.addresses if text in addresses)
    draft.tell(
        "released",
        f"{who} on node {held.node} gave back {' and '.join(freed)}.",
        node=held.node,
        object=who,
        handle=held.handle,
        addresses=",".join(freed),
    )
    return Released(addresses=freed)


def _with(held: Handle, left: list[tuple[str, int]]) -> Handle | None:
    if not left:
        return None
    return Handle(
        handle=held.handle,
        node=held.node,
        namespace=held.namespace,
        pod=held.pod,
        use=held.use,
        addresses=tuple(text for text, _ in left),
        sequences=tuple(sequence for _, sequence in left),
        assigned=held.assigned,
    )
