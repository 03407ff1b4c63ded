"""Why there is no address, in words that say which pools, how full they are, what stands in the way, and what to do.

Pools that seem free and give nothing are the complaint of every operator. So a reason counts what is there: addresses
in use, reserved, cooling down, free in other nodes' blocks; it names the limit that was met and the resource that
raises it. Where an address cools down that the node can have in a moment, the answer is to ask again (`Busy`): a pod
that is restarted in a full pool waits a second or two and does not fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil

from bus_schemas.ids import NodeName
from bus_schemas.ipam import LOAD_BALANCER, AssignRequest, Busy, PoolExhausted
from services.ipam.cidr import Cidr
from services.ipam.desired import Desired
from services.ipam.draft import Draft
from services.ipam.limits import BY_REQUEST, BY_SETTING, Limits
from services.ipam.pools import Pool

USAGE = "`tortie ipam show` lists usage"
NO_NEW_BLOCKS = "autoAllocateBlocks is false in IPAMConfiguration default, so no node claims a further block"
WORTH_WAITING_S = 5.0
"""Whoever asks is told to ask again when an address has cooled down within this time; else that there is none."""
NODES_SHOWN = 3
"""Of the nodes in whose blocks addresses are free, the richest are named."""


def unknown_pools(names: Iterable[str], desired: Desired) -> str:
    """Pools that a request names, and there are none such."""
    malformed = [f"; IPPool {name} cannot be used: {fault}" for name, fault in sorted(desired.malformed_pools.items())]
    there = ", ".join(f"{pool.name} ({pool.cidr})" for _, pool in sorted(desired.pools.items())) or "none"
    return f"no IPPool is called or covers exactly {', '.join(names)}; there are: {there}{''.join(malformed)}"


def _whom(node: NodeName) -> str:
    return "Services of type LoadBalancer" if node == LOAD_BALANCER else f"node {node}"


def nobody_serves(
    request: AssignRequest, denials: Sequence[tuple[Pool, str | None]], family: int | None
) -> PoolExhausted:
    """No pool (of the family) may serve the request; `denials` are all that were looked at."""
    kind = "" if family is None else f" IPv{family}"
    considered = [(pool, no) for pool, no in denials if family is None or pool.family == family]
    why = "; ".join(f"{pool} {no}" for pool, no in considered if no is not None)
    what = f"no{kind} address for {_whom(request.node)}"
    if request.from_pod_cidr:
        return PoolExhausted(
            pools=(),
            reason=f"{what}: {why or f'its spec.podCIDRs has no{kind} range'}. Have the cluster give the node one "
            "(kube-controller-manager --allocate-node-cidrs), or write it into the Node.",
        )
    cure = "Add an IPPool that serves it, or change one of these."
    told = f"{why}. {cure}" if why else f"there is no{kind} IPPool: add one."
    return PoolExhausted(pools=tuple(pool.name for pool, _ in considered), reason=f"{what}: {told}")


def exhausted(draft: Draft, node: NodeName, limits: Limits, pools: Sequence[Pool]) -> PoolExhausted | Busy:
    """Every address of the pools is given, withheld, or in a block that is not for this node."""
    usages = [_usage(draft, pool.cidr, node, strict=limits.strict_affinity) for pool in pools]
    used = "; ".join(_told(pool, usage, draft, limits) for pool, usage in zip(pools, usages, strict=True))
    if _soon([released for usage in usages for released in usage.coming], draft, limits):
        return Busy(reason=f"no IPv{pools[0].family} address for {_whom(node)} yet: {used}")
    why, advice = _remedies(pools, usages, limits)
    return PoolExhausted(
        pools=tuple(pool.name for pool in pools),
        reason=f"no IPv{pools[0].family} address for {_whom(node)}: {used}{why}. {'; '.join((*advice, USAGE))}.",
    )


def limit_reached(draft: Draft, node: NodeName, limits: Limits, pools: Sequence[Pool]) -> PoolExhausted | Busy:
    """The node's blocks have nothing left and it may not have more."""
    names, limit = " and ".join(map(str, pools)), limits.max_blocks_per_node
    own = [c for c in draft.owned(node) if any(pool.cidr.holds(c) for pool in pools)]
    released = [when for cidr in own for when in draft.cooling(cidr)]
    cooling = _cooling(released, draft, limits)
    if _soon(released, draft, limits):
        return Busy(reason=f"no IPv{pools[0].family} address for {_whom(node)} yet in {names}: {cooling}")
    rest = f" ({cooling})" if cooling else ""
    if limits.max_blocks_by == BY_REQUEST:
        advice = "Raise that limit where the request comes from (the CNI configuration)"
    else:
        advice = "Raise maxBlocksPerHost of IPAMConfiguration default (`tortie ipam configure --max-blocks-per-host`)"
    if limits.max_blocks_by == BY_SETTING:
        advice += " or that setting"
    return PoolExhausted(
        pools=tuple(pool.name for pool in pools),
        reason=f"no IPv{pools[0].family} address for {_whom(node)} in {names}: it has {limit} "
        f"block{'s' * (limit != 1)}, the most that {limits.max_blocks_by}={limit} allows, and nothing is left in those "
        f"of them that lie there{rest}. "
        f"{advice}, or use an IPPool with larger blocks (blockSize); {USAGE}.",
    )


@dataclass
class _Usage:
    """What became of the addresses of a pool."""

    blocks: int = 0
    used: int = 0
    cooling: list[float] = field(default_factory=list)
    """When they were released, Unix time in seconds."""
    coming: list[float] = field(default_factory=list)
    """Those of them that this node can have then."""
    elsewhere: Counter[str] = field(default_factory=Counter)
    """Free addresses in blocks of other nodes."""


def _usage(draft: Draft, pool: Cidr, node: NodeName, *, strict: bool) -> _Usage:
    usage = _Usage()
    for cidr in draft.ledger.within(pool):
        usage.blocks += 1
        block = draft.block(cidr)
        if block is None:
            usage.used += cidr.size
            continue
        usage.used += draft.given(cidr)
        cooling = draft.cooling(cidr)
        usage.cooling += cooling
        if not strict or block.node in (None, node):
            usage.coming += cooling
        elif free := draft.free(cidr):
            usage.elsewhere[str(block.node)] += free
    return usage


def _told(pool: Pool, usage: _Usage, draft: Draft, limits: Limits) -> str:
    parts = [f"{usage.used} of {pool.cidr.size} addresses in use, {usage.blocks} of {pool.blocks} blocks claimed"]
    spans = draft.withholding.reserved.within(pool.family, pool.cidr.first, pool.cidr.last)
    if reserved := sum(last - first + 1 for first, last in spans):
        parts.append(f"{reserved} reserved (IPReservation)")
    if cooling := _cooling(usage.cooling, draft, limits):
        parts.append(cooling)
    if usage.elsewhere:
        nodes = [f"{free} of {node}" for node, free in usage.elsewhere.most_common(NODES_SHOWN)]
        more = ", ..." if len(usage.elsewhere) > NODES_SHOWN else ""
        parts.append(f"{usage.elsewhere.total()} free in blocks of other nodes ({', '.join(nodes)}{more})")
    return f"{pool}: {', '.join(parts)}"


def _cooling(released: Sequence[float], draft: Draft, limits: Limits) -> str:
    """How many addresses cool down, and how soon there is one; empty: none do."""
    if not released:
        return ""
    first = max(1, ceil(min(released) + limits.cooldown_s - draft.now))
    return f"{len(released)} cooling down after their release (ipCooldownSeconds; the first is free in {first} s)"


def _soon(released: Sequence[float], draft: Draft, limits: Limits) -> bool:
    return bool(released) and min(released) + limits.cooldown_s - draft.now <= WORTH_WAITING_S


def _remedies(pools: Sequence[Pool], usages: Sequence[_Usage], limits: Limits) -> tuple[str, list[str]]:
    """What else stands in the way, and what to do."""
    why = ""
    advice: list[str] = []
    elsewhere = any(usage.elsewhere for usage in usages)
    if limits.exclusive:
        if elsewhere:
            why = "; nothing is borrowed there"
        own = pools[0].node is not None
        advice.append("Give the node a larger podCIDR or one more" if own else "Add an IPPool or a larger CIDR")
    else:
        if not limits.auto_allocate_blocks:
            why += f"; {NO_NEW_BLOCKS}"
            advice.append("Set autoAllocateBlocks: true there")
        if limits.strict_affinity and elsewhere:
            why += "; strict affinity forbids to borrow from other nodes' blocks"
            advice.append("Allow it (strictAffinity: false in IPAMConfiguration default), or use a smaller blockSize")
        advice.append("Add an IPPool or a larger CIDR")
    if any(usage.cooling for usage in usages):
        advice.append("or wait, or lower ipCooldownSeconds of IPAMConfiguration default")
    return why, advice
