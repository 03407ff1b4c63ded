"""Where an address comes from: one request, a plan for each family, then all of the plans or none.

    request --held?--> Assigned(repeated)
            --takes over?--> Assigned
            --plan---> one Take a family                -> Assigned
                       a Claim among them               -> Waiting: claim first, ask again when that is written
                       a reply among them               -> that reply, and the draft is untouched

A node claims a block in two phases. First its affinity is written as pending (a Claim): anybody who comes later can see
the intent and finish or clear it. Then the block, the confirmed affinity, the allocations and their handles are written
as one atomic batch (a Take of kind CREATE); the block's key must not exist, so of two nodes that want it one wins.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from bus_schemas.ids import NodeName
from bus_schemas.ipam import USES, AffinityState, Assigned, AssignReply, AssignRequest, Handle, Refused
from services.ipam import reasons
from services.ipam.cidr import parse_address
from services.ipam.desired import Desired
from services.ipam.draft import Draft, Promise
from services.ipam.exact import by_address
from services.ipam.limits import Limits
from services.ipam.plan import Claim, Plan, Source, Take
from services.ipam.pools import Pool, denial, misnamed, wanted
from services.ipam.release import Behind
from services.ipam.search import Search
from services.ipam.takeover import handle_for, still_unknown, take_over

MAX_HANDLE = 512
"""Bytes of a handle: it is part of a subject, and a server hangs up on whoever writes to one that is too long."""


class Waiting(NamedTuple):
    """No answer yet: the draft's writes come first."""


def assign(draft: Draft, desired: Desired, limits: Limits, request: AssignRequest) -> AssignReply | Waiting | Behind:
    """Answers a request in the draft, as far as it can."""
    if not 0 < len(request.handle.encode()) <= MAX_HANDLE:
        return Refused(reason=f"a handle has 1 to {MAX_HANDLE} bytes, not {len(request.handle.encode())}")
    held = draft.handle(request.handle)
    if held is not None:
        return _repeated(held, request)
    if request.use not in USES:
        return Refused(reason=f"use {request.use!r} is none of {', '.join(USES)}")
    if request.takes_over is not None:
        warm = draft.handle(request.takes_over)
        if warm is not None:
            return take_over(draft, request, warm)
        if not request.addresses:
            return Refused(reason=f"handle {request.takes_over} holds nothing to take over, and no address is named")
        if (behind := still_unknown(draft, request, request.takes_over)) is not None:
            return behind
    if request.use == "floating" and not request.addresses:
        return Refused(reason="a floating address is asked for by name")
    if desired.labels(request.node) is None:
        return Refused(reason=f"unknown node {request.node}: it has no Node resource")
    limits = limits.for_request(request)
    plans = by_address(draft, desired, limits, request) if request.addresses else _any(draft, desired, limits, request)
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
    unnamed: list[Pool] = []
    if request.from_pod_cidr:
        pools = list(desired.pod_cidrs(request.node))
    else:
        pools, unknown = wanted(desired.pools, request.pools)
        if unknown:
            return [Refused(reason=reasons.unknown_pools(unknown, desired))]
        if mistaken := misnamed(desired.pools, request):
            return [Refused(reason=mistaken)]
        # Who names pools of one family chose nothing for the other.
        left = set(request.families).difference(pool.family for pool in pools)
        unnamed = [pool for _, pool in sorted(desired.pools.items()) if request.pools and pool.family in left]
    labels, namespace = desired.labels(request.node) or {}, desired.namespace(request.namespace)
    choice = msgspec.structs.replace(request, pools=()) if unnamed else request
    denials = [(pool, denial(pool, request, node=labels, namespace=namespace)) for pool in pools]
    denials += [(pool, denial(pool, choice, node=labels, namespace=namespace)) for pool in unnamed]
    serving = [pool for pool, no in denials if no is None]
    families = tuple(dict.fromkeys(request.families)) or tuple(sorted({pool.family for pool in serving}))
    if not families:
        return [reasons.nobody_serves(request, denials, None)]
    plans: list[Plan] = []
    for family in families:
        of_family = [pool for pool in serving if pool.family == family]
        if of_family:
            plans.append(Search(draft, limits, request.node, of_family).plan())
        else:
            plans.append(reasons.nobody_serves(request, denials, family))
    return plans


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
    draft.set_handle(request.handle, handle_for(request, tuple(addresses), tuple(sequences), draft.now))
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
