"""Any address of a family for a node, out of the pools that may serve it: from what costs nobody anything to what costs
others.

    own block, own claim under way, block that this request's fellows claim
      -- the node has as many blocks as it may: no
    block that it left behind, free block, nobody's block, other node's empty block, one address of other node's block
      -- none of them: no, and why
"""

from __future__ import annotations

from collections.abc import Callable

from bus_schemas.ids import NodeName
from bus_schemas.ipam import Block, Busy, PoolExhausted
from bus_schemas.reserved import Reserved
from services.ipam import reasons
from services.ipam.cidr import Cidr
from services.ipam.draft import Draft
from services.ipam.limits import Limits
from services.ipam.plan import Claim, Source, Take
from services.ipam.pools import Pool, candidates, fnv32, full


class Search:
    """One address of one family for a node, out of pools that may serve it."""

    def __init__(self, draft: Draft, limits: Limits, node: NodeName, pools: list[Pool]) -> None:
        self._draft = draft
        self._limits = limits
        self._node = node
        self._pools = pools
        self._family = pools[0].family
        self._owned = [cidr for cidr in draft.owned(node) if cidr.family == self._family]

    @property
    def _reserved(self) -> Reserved:
        return self._draft.withholding.reserved

    def plan(self) -> Take | Claim | PoolExhausted | Busy:
        known = self._draft.exhausted.get(self._subject) if self._draft.exhausted else None
        if known is not None:
            return known
        for step in self._steps:
            outcome = step()
            if isinstance(outcome, PoolExhausted | Busy):
                self._draft.exhausted[self._subject] = outcome
            if outcome is not None:
                return outcome
        raise AssertionError("the last step always has an outcome")

    @property
    def _subject(self) -> object:
        return self._node, self._limits, tuple(pool.cidr for pool in self._pools)

    @property
    def _steps(self) -> tuple[Callable[[], Take | Claim | PoolExhausted | Busy | None], ...]:
        """In the order in which they are tried."""
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
        if not self._limits.auto_allocate_blocks:
            return None
        claims = sorted(self._draft.ledger.claims.get(self._node, ()))
        for pool in self._pools:
            for cidr in claims:
                if not pool.cidr.holds(cidr) or cidr.prefix != pool.block_prefix or self._draft.occupied(cidr):
                    continue
                if self._reserved.end(cidr.family, cidr.first, cidr.last) is not None:
                    continue
                if self._draft.affinity(self._node, cidr) is not None:
                    return Take(cidr, Source.CREATE, pool.name)
        return None

    def _promised_block(self) -> Claim | None:
        for cidr, promise in self._draft.promises.items():
            if promise.node == self._node and promise.left and self._pool_of(cidr) is not None:
                return Claim(cidr)
        return None

    def _limit(self) -> PoolExhausted | Busy | None:
        limit = self._limits.max_blocks_per_node
        promised = [c for c, p in self._draft.promises.items() if p.node == self._node and c.family == self._family]
        if limit and len(self._owned) + len(promised) >= limit:
            return reasons.limit_reached(self._draft, self._node, self._limits, self._pools)
        return None

    def _block_left_behind(self) -> Take | None:
        """A block that this very node left, with its addresses still in it."""
        return self._adoptable(lambda block: any(a.borrower == self._node for a in block.allocations))

    def _nobodys_block(self) -> Take | None:
        return self._adoptable(lambda block: True)

    def _adoptable(self, suits: Callable[[Block], bool]) -> Take | None:
        ownerless = self._draft.ownerless()
        for pool in self._pools:
            for cidr in ownerless:
                block = self._draft.block(cidr) if pool.cidr.holds(cidr) else None
                if block is not None and self._draft.free(cidr) and suits(block):
                    return Take(cidr, Source.ADOPT, pool.name)
        return None

    def _free_block(self) -> Claim | None:
        """A block that nobody has; one that somebody else is about to claim only if there is no other."""
        if not self._limits.auto_allocate_blocks:
            return None
        ledger = self._draft.ledger
        for pool in self._pools:
            if full(pool, ledger, self._reserved):
                continue
            contested: Cidr | None = None
            for cidr in candidates(pool, self._node, self._reserved):
                if self._draft.occupied(cidr) or cidr in self._draft.promises:
                    continue
                if cidr not in self._draft.under_way and ledger.claimants.get(cidr, set()) <= {self._node}:
                    return Claim(cidr)
                contested = contested or cidr
            if contested is not None:
                return Claim(contested)
        return None

    def _others_empty_block(self) -> Claim | None:
        """The oldest empty block of another node, of one that has more of them if possible."""
        if not self._limits.auto_allocate_blocks:
            return None
        found: list[tuple[bool, float, Cidr, NodeName]] = []
        for pool in self._pools:
            for cidr, block in self._draft.blocks_within(pool.cidr):
                if block.node is None or block.node == self._node or not self._draft.unused(cidr):
                    continue
                if cidr.prefix != pool.block_prefix or cidr in self._draft.promises or not self._draft.free(cidr):
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

    def _exhausted(self) -> PoolExhausted | Busy:
        return reasons.exhausted(self._draft, self._node, self._limits, self._pools)
