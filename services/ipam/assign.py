"""Where an address comes from: one request, a plan for each family, then all of the plans or none.

    request --held?--> Assigned(repeated)
            --plan---> one Take a family                -> Assigned
                       a Claim among them               -> Waiting: claim first, ask again when that is written
                       a reply among them               -> that reply, and the draft is untouched

A node claims a block in two phases. First its affinity is written as pending (a Claim): anybody who comes later can see
the intent and finish or clear it. Then the block, the confirmed affinity, the allocations and their handles are written
as one atomic batch (a Take of kind CREATE); the block's key must not exist, so of two nodes that want it one wins.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from bus_schemas.ids import NodeName
from bus_schemas.ipam import AffinityState, Assigned, AssignReply, AssignRequest, Block, Handle, PoolExhausted, Refused
from services.ipam import reasons
from services.ipam.cidr import Address, Cidr, parse_address
from services.ipam.desired import Desired
from services.ipam.draft import Draft, Promise
from services.ipam.pools import USES, Pool, candidates, denial, fnv32, wanted

MAX_ADDRESSES = 32
"""Addresses that one request may ask for by name."""


class Limits(NamedTuple):
    """What the allocator may do. See `settings.Settings`."""

    strict_affinity: bool = False
    max_blocks_per_node: int = 20
    """Of one family; 0: no limit."""
    reclaim_after_s: float = 60.0


class Waiting(NamedTuple):
    """No answer yet: the draft's writes come first."""


class Source(Enum):
    OWN = auto()
    CREATE = auto()
    ADOPT = auto()
    BORROW = auto()


class Take(NamedTuple):
    """One address out of a block; `ordinal` None: the one that was free longest."""

    cidr: Cidr
    source: Source
    pool: str
    ordinal: int | None = None


class Claim(NamedTuple):
    """The node's intent to have a block; `evicted` is the node whose empty block it is now."""

    cidr: Cidr
    evicted: NodeName | None = None


Plan = Take | Claim | PoolExhausted | Refused


def assign(draft: Draft, desired: Desired, limits: Limits, request: AssignRequest) -> AssignReply | Waiting:
    """Answers a request in the draft, as far as it can."""
    held = draft.handle(request.handle)
    if held is not None:
        return _repeated(held, request)
    if request.use not in USES:
        return Refused(reason=f"use {request.use!r} is none of {', '.join(USES)}")
    if request.node not in desired.nodes:
        return Refused(reason=f"unknown node {request.node}: it has no Node resource")
    plans = _by_address(draft, desired, limits, request) if request.addresses else _any(draft, desired, limits, request)
    takes: list[Take] = []
    claims: list[Claim] = []
    for plan in plans:
        match plan:
            case Take():
                takes.append(plan)
            case Claim():
                claims.append(plan)
            case _:
                return plan
    if claims:
        for claim in claims:
            _claim(draft, request.node, claim)
        return Waiting()
    return _take_all(draft, request, takes)


def _repeated(held: Handle, request: AssignRequest) -> Assigned | Refused:
    """The answer that the handle got before, where it answers this request too."""
    owner = f"handle {held.handle} holds {', '.join(held.addresses)} on node {held.node}"
    if held.node != request.node:
        return Refused(reason=f"{owner}, not on {request.node}")
    addresses = {parse_address(text) for text in held.addresses}
    try:
        requested = {parse_address(text) for text in request.addresses}
    except ValueError as error:
        return Refused(reason=str(error))
    if not requested <= addresses or not set(request.families) <= {address.family for address in addresses}:
        return Refused(reason=f"{owner}, which is not what is asked for now: release it first")
    return Assigned(addresses=held.addresses, repeated=True)


def _any(draft: Draft, desired: Desired, limits: Limits, request: AssignRequest) -> list[Plan]:
    """One plan for each family."""
    if not set(request.families) <= {4, 6}:
        return [Refused(reason=f"families {request.families} are not among 4 and 6")]
    pools, unknown = wanted(desired.pools, request.pools)
    if unknown:
        return [Refused(reason=f"no IPPool is called or covers exactly {', '.join(unknown)}")]
    labels, namespace = desired.nodes[request.node], desired.namespace(request.namespace)
    denials = {pool.name: denial(pool, request, node=labels, namespace=namespace) for pool in pools}
    serving = [pool for pool in pools if denials[pool.name] is None]
    families = tuple(dict.fromkeys(request.families)) or tuple(sorted({pool.family for pool in serving}))
    if not families:
        return [reasons.nobody_serves(request.node, pools, denials, None)]
    plans: list[Plan] = []
    for family in families:
        of_family = [pool for pool in serving if pool.family == family]
        if of_family:
            plans.append(_Search(draft, limits, request.node, of_family).plan())
        else:
            plans.append(reasons.nobody_serves(request.node, pools, denials, family))
    return plans


class _Search:
    """One address of one family for a node, out of pools that may serve it."""

    def __init__(self, draft: Draft, limits: Limits, node: NodeName, pools: list[Pool]) -> None:
        self._draft = draft
        self._limits = limits
        self._node = node
        self._pools = pools
        self._family = pools[0].family
        self._owned = [cidr for cidr in draft.owned(node) if cidr.family == self._family]

    def plan(self) -> Take | Claim | PoolExhausted:
        subject = (self._node, tuple(pool.name for pool in self._pools))
        known = self._draft.exhausted.get(subject)
        if known is not None:
            return known
        for step in self._steps:
            outcome = step()
            if isinstance(outcome, PoolExhausted):
                self._draft.exhausted[subject] = outcome
            if outcome is not None:
                return outcome
        raise AssertionError("the last step always has an outcome")

    @property
    def _steps(self) -> tuple[Callable[[], Take | Claim | PoolExhausted | None], ...]:
        """In the order in which they are tried: from what costs nobody anything to what costs others."""
        return (
            self._own_block,
            self._own_pending_block,
            self._promised_block,
            self._limit,
            self._block_left_behind,
            self._free_block,
            self._nobodys_block,
            self._others_empty_block,
            self._borrowed,
            self._exhausted,
        )

    def _pool_of(self, cidr: Cidr) -> Pool | None:
        return next((pool for pool in self._pools if pool.cidr.holds(cidr)), None)

    def _own_block(self) -> Take | None:
        for pool in self._pools:
            for cidr in self._owned:
                if pool.cidr.holds(cidr) and self._draft.free(cidr):
                    return Take(cidr, Source.OWN, pool.name)
        return None

    def _own_pending_block(self) -> Take | None:
        """The second phase of a claim, whoever made the first."""
        claims = sorted(self._draft.ledger.claims.get(self._node, ()))
        for pool in self._pools:
            for cidr in claims:
                if not pool.cidr.holds(cidr) or cidr.prefix != pool.block_prefix or self._draft.occupied(cidr):
                    continue
                if self._draft.affinity(self._node, cidr) is not None:
                    return Take(cidr, Source.CREATE, pool.name)
        return None

    def _promised_block(self) -> Claim | None:
        for cidr, promise in self._draft.promises.items():
            if promise.node == self._node and promise.left and self._pool_of(cidr) is not None:
                return Claim(cidr)
        return None

    def _limit(self) -> PoolExhausted | None:
        limit = self._limits.max_blocks_per_node
        promised = [c for c, p in self._draft.promises.items() if p.node == self._node and c.family == self._family]
        if limit and len(self._owned) + len(promised) >= limit:
            return reasons.limit_reached(self._node, self._family, limit, self._pools)
        return None

    def _block_left_behind(self) -> Take | None:
        """A block that this very node left, with its addresses still in it."""
        return self._adoptable(lambda block: any(a.borrower == self._node for a in block.allocations))

    def _nobodys_block(self) -> Take | None:
        return self._adoptable(lambda block: True)

    def _adoptable(self, suits: Callable[[Block], bool]) -> Take | None:
        for pool in self._pools:
            for cidr, block in self._draft.blocks_within(pool.cidr):
                if block.node is None and self._draft.free(cidr) and suits(block):
                    return Take(cidr, Source.ADOPT, pool.name)
        return None

    def _free_block(self) -> Claim | None:
        """A block that nobody has; one that somebody else is about to claim only if there is no other."""
        ledger = self._draft.ledger
        for pool in self._pools:
            if _full(self._draft, pool):
                continue
            contested: Cidr | None = None
            for cidr in candidates(pool, self._node):
                if self._draft.occupied(cidr) or cidr in self._draft.promises:
                    continue
                if ledger.claimants.get(cidr, set()) <= {self._node}:
                    return Claim(cidr)
                contested = contested or cidr
            if contested is not None:
                return Claim(contested)
        return None

    def _others_empty_block(self) -> Claim | None:
        """The oldest empty block of another node, of one that has more of them if possible."""
        found: list[tuple[bool, float, Cidr, NodeName]] = []
        for pool in self._pools:
            for cidr, block in self._draft.blocks_within(pool.cidr):
                if block.node is None or block.node == self._node or self._draft.free(cidr) < cidr.size:
                    continue
                if cidr.prefix != pool.block_prefix or cidr in self._draft.promises:
                    continue
                if self._draft.now - block.claimed >= self._limits.reclaim_after_s:
                    only = len(self._draft.ledger.owned.get(block.node, ())) == 1
                    found.append((only, block.claimed, cidr, block.node))
        if not found:
            return None
        _, _, cidr, owner = min(found)
        return Claim(cidr, evicted=owner)

    def _borrowed(self) -> Take | None:
        if self._limits.strict_affinity:
            return None
        lenders = [
            (cidr, pool.name)
            for pool in self._pools
            for cidr, _ in self._draft.blocks_within(pool.cidr)
            if self._draft.free(cidr)
        ]
        if not lenders:
            return None
        cidr, name = lenders[fnv32(self._node.encode()) % len(lenders)]
        return Take(cidr, Source.BORROW, name)

    def _exhausted(self) -> PoolExhausted:
        return reasons.exhausted(self._draft, self._node, self._pools, strict=self._limits.strict_affinity)


def _full(draft: Draft, pool: Pool) -> bool:
    """Whether the pool is known to hold no free block, without looking at every one of them."""
    ledger = draft.ledger
    return ledger.count(pool.cidr) >= pool.blocks and all(
        cidr.prefix == pool.block_prefix for cidr in ledger.within(pool.cidr)
    )


def _by_address(draft: Draft, desired: Desired, limits: Limits, request: AssignRequest) -> list[Plan]:
    """A plan for each requested address."""
    if len(request.addresses) > MAX_ADDRESSES:
        return [Refused(reason=f"{len(request.addresses)} addresses are asked for, at most {MAX_ADDRESSES} are given")]
    try:
        addresses = list(dict.fromkeys(parse_address(text) for text in request.addresses))
    except ValueError as error:
        return [Refused(reason=str(error))]
    return [_exactly(draft, desired, limits, request, address) for address in addresses]


def _exactly(draft: Draft, desired: Desired, limits: Limits, request: AssignRequest, address: Address) -> Plan:
    pool = desired.pool_of(address)
    if pool is None:
        return Refused(reason=f"{address} is in no IPPool")
    if request.pools and pool not in wanted(desired.pools, request.pools)[0]:
        return Refused(reason=f"{address} is in IPPool {pool}, not in {', '.join(request.pools)}")
    no = denial(pool, request, node=desired.nodes[request.node], namespace=desired.namespace(request.namespace))
    if no is not None:
        return Refused(reason=f"{address} is in IPPool {pool}, which {no}")
    cidr = draft.block_at(address)
    if cidr is None:
        return _exactly_of_new_block(draft, limits, request, pool, address)
    block = draft.block(cidr)
    if block is None:
        return Refused(reason=f"block {cidr} of {address} is going, or cannot be worked with")
    ordinal = address.number - cidr.first
    holder = draft.open(cidr).at(ordinal)
    if holder is not None:
        return Refused(reason=f"{address} is in use by handle {holder.handle}")
    if block.node == request.node:
        return Take(cidr, Source.OWN, pool.name, ordinal)
    if block.node is None:
        return Take(cidr, Source.ADOPT, pool.name, ordinal)
    if limits.strict_affinity:
        return Refused(reason=f"{address} is in block {cidr} of node {block.node}, and strict affinity is on")
    return Take(cidr, Source.BORROW, pool.name, ordinal)


def _exactly_of_new_block(draft: Draft, limits: Limits, request: AssignRequest, pool: Pool, address: Address) -> Plan:
    cidr = pool.cidr.around(address, pool.block_prefix)
    if draft.occupied(cidr):
        return Refused(reason=f"block {cidr} of {address} overlaps blocks of another size")
    if cidr not in draft.promises and draft.affinity(request.node, cidr) is not None:
        return Take(cidr, Source.CREATE, pool.name, address.number - cidr.first)
    owned = [own for own in draft.owned(request.node) if own.family == pool.family]
    if limits.max_blocks_per_node and len(owned) >= limits.max_blocks_per_node:
        return reasons.limit_reached(request.node, pool.family, limits.max_blocks_per_node, [pool])
    return Claim(cidr)


def _claim(draft: Draft, node: NodeName, claim: Claim) -> None:
    """The first phase; of a block that this draft claims already, one more address."""
    cidr = claim.cidr
    promise = draft.promises.get(cidr)
    if promise is None:
        promise = draft.promises[cidr] = Promise(node, cidr.size)
        draft.set_affinity(node, cidr, AffinityState.PENDING)
        if claim.evicted is not None:
            draft.remove(cidr)
            draft.set_affinity(claim.evicted, cidr, None)
            draft.tell(
                "reclaimed",
                f"Node {node} takes over the empty block {cidr} of node {claim.evicted}.",
                node=claim.evicted,
                object=cidr.text,
            )
    draft.promises[cidr] = promise._replace(left=max(0, promise.left - 1))


def _take_all(draft: Draft, request: AssignRequest, takes: list[Take]) -> Assigned:
    addresses: list[str] = []
    sequences: list[int] = []
    for take in takes:
        match take.source:
            case Source.CREATE if draft.block(take.cidr) is None:
                block = draft.create(take.cidr, take.pool, request.node)
                draft.tell("claimed", f"Node {request.node} claimed it.", node=request.node, object=take.cidr.text)
            case Source.ADOPT if draft.block(take.cidr) is not None and draft.open(take.cidr).node is None:
                block = draft.adopt(take.cidr, request.node)
                draft.tell("adopted", f"Node {request.node} took it over.", node=request.node, object=take.cidr.text)
            case _:
                block = draft.open(take.cidr)
        if block.node == request.node and draft.affinity(request.node, take.cidr) is not AffinityState.CONFIRMED:
            draft.set_affinity(request.node, take.cidr, AffinityState.CONFIRMED)
        borrower = None if block.node == request.node else request.node
        allocation = block.take(request.handle, borrower=borrower, ordinal=take.ordinal)
        addresses.append(str(take.cidr.address(allocation.ordinal)))
        sequences.append(allocation.sequence)
    handle = Handle(
        handle=request.handle,
        node=request.node,
        namespace=request.namespace,
        pod=request.pod,
        use=request.use,
        addresses=tuple(addresses),
        sequences=tuple(sequences),
    )
    draft.set_handle(request.handle, handle)
    who = f"{request.namespace}/{request.pod}" if request.pod else request.handle
    draft.tell(
        "assigned",
        f"{who} on node {request.node} has {' and '.join(addresses)}.",
        node=request.node,
        object=who,
        handle=request.handle,
        addresses=",".join(addresses),
    )
    return Assigned(addresses=tuple(addresses))
