"""Why there is no address, in words that say which pools, how full they are, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bus_schemas.ids import NodeName
from bus_schemas.ipam import PoolExhausted
from services.ipam.cidr import Cidr
from services.ipam.draft import Draft
from services.ipam.pools import Pool

USAGE = "`tortie ipam show` lists usage"


def nobody_serves(
    node: NodeName, pools: Sequence[Pool], denials: Mapping[str, str | None], family: int | None
) -> PoolExhausted:
    """No pool (of the family) may serve the request."""
    what = "no address" if family is None else f"no IPv{family} address"
    considered = [pool for pool in pools if family is None or pool.family == family]
    why = [f"IPPool {pool} {denials[pool.name]}" for pool in considered if denials[pool.name] is not None]
    there_is = "; ".join(why) if why else "there is no IPPool" if family is None else f"there is no IPv{family} IPPool"
    return PoolExhausted(
        pools=tuple(pool.name for pool in considered),
        reason=f"{what} for node {node}: {there_is}. Add an IPPool that serves it, or change one of these.",
    )


def exhausted(draft: Draft, node: NodeName, pools: Sequence[Pool], *, strict: bool) -> PoolExhausted:
    """Every address of the pools is given, or is in a block of somebody else and must not be borrowed."""
    used = "; ".join(_usage(draft, pool) for pool in pools)
    borrow = " and strict affinity forbids to borrow from other nodes' blocks" if strict else ""
    return PoolExhausted(
        pools=tuple(pool.name for pool in pools),
        reason=f"no IPv{pools[0].family} address for node {node}: {used}{borrow}. "
        f"Add an IPPool or a larger CIDR; {USAGE}.",
    )


def limit_reached(node: NodeName, family: int, limit: int, pools: Sequence[Pool]) -> PoolExhausted:
    """The node's blocks are full and it may not have more."""
    names = ", ".join(str(pool) for pool in pools)
    return PoolExhausted(
        pools=tuple(pool.name for pool in pools),
        reason=f"no IPv{family} address for node {node} in IPPool {names}: its blocks are full and it has {limit} of "
        f"them, the most that TORTIE_MAX_BLOCKS_PER_NODE={limit} allows. Raise that limit or use an IPPool with "
        f"larger blocks (blockSize); {USAGE}.",
    )


def _usage(draft: Draft, pool: Pool) -> str:
    ledger = draft.ledger
    inside: list[Cidr] = list(ledger.within(pool.cidr))
    used = sum(cidr.size - draft.free(cidr) for cidr in inside)
    return f"IPPool {pool}: {used} of {pool.cidr.size} addresses in use, {len(inside)} of {pool.blocks} blocks claimed"
