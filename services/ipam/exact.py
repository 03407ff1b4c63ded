"""Addresses that a request names: each from the block that holds it, which is claimed if nobody has it.

As in Calico, who names an address may have it whether or not its pool serves the node and the namespace by choice, and
although it is reserved. The pool must be enabled and allow the use. He may have it, too, while it cools down: who names
an address knows whose it was, and a pod that comes back under its fixed address need not wait (Calico makes it wait).
"""

from __future__ import annotations

from bus_schemas.ids import HandleId
from bus_schemas.ipam import AssignRequest, Busy, Refused
from services.ipam import reasons
from services.ipam.cidr import Address, parse_address
from services.ipam.desired import Desired
from services.ipam.draft import Draft
from services.ipam.limits import Limits
from services.ipam.plan import Claim, Plan, Source, Take
from services.ipam.pools import Pool, denial, wanted

MAX_ADDRESSES = 32
"""Addresses that one request may ask for by name."""


def by_address(draft: Draft, desired: Desired, limits: Limits, request: AssignRequest) -> list[Plan]:
    """A plan for each requested address."""
    if len(request.addresses) > MAX_ADDRESSES:
        return [Refused(reason=f"{len(request.addresses)} addresses are asked for, at most {MAX_ADDRESSES} are given")]
    try:
        addresses = list(dict.fromkeys(parse_address(text) for text in request.addresses))
    except ValueError as error:
        return [Refused(reason=str(error))]
    return [_exactly(draft, desired, limits, request, address) for address in addresses]


def _exactly(draft: Draft, desired: Desired, limits: Limits, request: AssignRequest, address: Address) -> Plan:
    found = _pool_of(desired, request, address)
    if isinstance(found, Refused):
        return found
    pool = found
    cidr = draft.block_at(address)
    if cidr is None:
        return _of_new_block(draft, limits, request, pool, address)
    block = draft.block(cidr)
    if block is None and draft.changed(cidr):
        return Busy(reason=f"block {cidr} of {address} is being given back: ask again")
    if block is None:
        return Refused(reason=f"block {cidr} of {address} cannot be worked with: see `tortie ipam check`")
    ordinal = address.number - cidr.first
    holder = draft.open(cidr).at(ordinal)
    if holder is not None:
        return Refused(reason=_in_use(draft, address, holder.handle))
    if block.node == request.node:
        return Take(cidr, Source.OWN, pool.name, ordinal)
    if block.node is None:
        return Take(cidr, Source.ADOPT, pool.name, ordinal)
    if limits.strict_affinity:
        return Refused(
            reason=f"{address} is in block {cidr} of node {block.node}, and "
            + ("nothing is borrowed there" if limits.exclusive else "strict affinity is on (strictAffinity)")
        )
    return Take(cidr, Source.BORROW, pool.name, ordinal)


def _pool_of(desired: Desired, request: AssignRequest, address: Address) -> Pool | Refused:
    """The pool that may give the address to the request."""
    if request.from_pod_cidr:
        ranges = desired.pod_cidrs(request.node)
        own = next((pool for pool in ranges if pool.cidr.holds(address)), None)
        if own is None:
            said = ", ".join(str(pool.cidr) for pool in ranges) or "none"
            return Refused(reason=f"{address} is in no podCIDR of node {request.node} ({said})")
        pool = own
    else:
        holder = desired.pool_of(address)
        if holder is None:
            return Refused(reason=f"{address} is in no IPPool: add one that holds it, or ask for another address")
        if request.pools and holder not in wanted(desired.pools, request.pools)[0]:
            return Refused(reason=f"{address} is in {holder}, not in {', '.join(request.pools)}")
        pool = holder
    labels, namespace = desired.labels(request.node) or {}, desired.namespace(request.namespace)
    no = denial(pool, request, node=labels, namespace=namespace)
    return pool if no is None else Refused(reason=f"{address} is in {pool}, which {no}")


def _in_use(draft: Draft, address: Address, handle: HandleId) -> str:
    holder = draft.ledger.handles.get(handle)
    who = f" ({holder.namespace}/{holder.pod} on node {holder.node})" if holder is not None and holder.pod else ""
    return f"{address} is in use by handle {handle}{who}"


def _of_new_block(draft: Draft, limits: Limits, request: AssignRequest, pool: Pool, address: Address) -> Plan:
    cidr = pool.cidr.around(address, pool.block_prefix)
    if draft.occupied(cidr):
        return Refused(reason=f"block {cidr} of {address} overlaps blocks of another size")
    if not limits.auto_allocate_blocks:
        return Refused(reason=f"block {cidr} of {address} is nobody's, and {reasons.NO_NEW_BLOCKS}")
    if cidr not in draft.promises and draft.affinity(request.node, cidr) is not None:
        return Take(cidr, Source.CREATE, pool.name, address.number - cidr.first)
    owned = [own for own in draft.owned(request.node) if own.family == pool.family]
    if limits.max_blocks_per_node and len(owned) >= limits.max_blocks_per_node:
        return reasons.limit_reached(draft, request.node, limits, [pool])
    return Claim(cidr)
