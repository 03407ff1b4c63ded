"""Address blocks as they lie on the bus, and the two requests that change them.

The block is the unit of compare-and-swap. A block, the handle records of the addresses in it and its affinity record
change in one atomic batch, so none of them can disagree with another.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bus_schemas.codec import Message
from bus_schemas.ids import BlockCidr, HandleId, NodeName


class Allocation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    ordinal: int
    """The offset of the address from the start of the block."""
    handle: HandleId
    sequence: int
    """The block's sequence when the address was given: a release that names another one is too late and void."""
    borrower: NodeName | None = None
    """The node that uses the address, where it is not the block's own."""


class Block(Message, tag="block/1", frozen=True, kw_only=True):
    """One claimed block of a pool."""

    cidr: BlockCidr
    pool: str
    """Name of the IPPool that the block was cut from."""
    node: NodeName | None
    """The node whose block this is; None: nobody's (its node left while addresses were still in use)."""
    sequence: int = 0
    """Grows by one with every change of the block."""
    allocations: tuple[Allocation, ...] = ()
    """By ascending ordinal."""
    free: tuple[int, ...] = ()
    """Free ordinals, longest free first: the next address is the first of them."""
    claimed: float = 0.0
    """Unix time in seconds when the node claimed the block."""


class AffinityState(StrEnum):
    PENDING = "pending"
    """The node intends to own the block; the block may not exist yet."""
    CONFIRMED = "confirmed"
    PENDING_DELETION = "pendingDeletion"


class Affinity(Message, tag="affinity/1", frozen=True, kw_only=True):
    node: NodeName
    cidr: BlockCidr
    state: AffinityState


class Handle(Message, tag="handle/1", frozen=True, kw_only=True):
    """Everything held under one handle: what makes assign and release idempotent, whichever replica answers."""

    handle: HandleId
    node: NodeName
    namespace: str = ""
    pod: str = ""
    use: str = "workload"
    """`workload` or `tunnel`."""
    addresses: tuple[str, ...] = ()
    sequences: tuple[int, ...] = ()
    """The Allocation.sequence of each address, in the same order."""


# --- rpc.ipam.assign


class AssignRequest(Message, tag="assign/1", frozen=True, kw_only=True):
    node: NodeName
    handle: HandleId
    families: tuple[int, ...] = ()
    """4, 6, or both: one address of each, all or nothing. Empty: one of every family that has an eligible pool."""
    namespace: str = ""
    pod: str = ""
    use: str = "workload"
    addresses: tuple[str, ...] = ()
    """Exactly these (plain addresses) instead of any."""
    pools: tuple[str, ...] = ()
    """Pool names or CIDRs to choose from, in order; empty: every enabled pool whose selectors match."""


class Assigned(Message, tag="assigned/1", frozen=True, kw_only=True):
    addresses: tuple[str, ...]
    repeated: bool = False
    """The handle already held them: nothing was written."""


class PoolExhausted(Message, tag="pool_exhausted/1", frozen=True, kw_only=True):
    """No address could be had. `reason` names the pools and says what to do."""

    pools: tuple[str, ...]
    reason: str


class Refused(Message, tag="refused/1", frozen=True, kw_only=True):
    """The request cannot be met as it stands (unknown pool, address in use, unknown node ...)."""

    reason: str


class Busy(Message, tag="busy/1", frozen=True, kw_only=True):
    """Too many conflicts, or the service has not yet read its state: ask again."""

    reason: str


AssignReply = Assigned | PoolExhausted | Refused | Busy


# --- rpc.ipam.release


class ReleaseRequest(Message, tag="release/1", frozen=True, kw_only=True):
    """By handle (all of it), or by address (`tortie ipam release`)."""

    handle: HandleId | None = None
    address: str | None = None
    node: NodeName | None = None


class Released(Message, tag="released/1", frozen=True, kw_only=True):
    """What was held and is free now; nothing held is a success with no addresses."""

    addresses: tuple[str, ...] = ()


ReleaseReply = Released | Refused | Busy


def tunnel_handle(node: NodeName) -> HandleId:
    """The handle of a node's VXLAN tunnel address, as Calico names it."""
    return HandleId(f"vxlan-tunnel-addr-{node}")
