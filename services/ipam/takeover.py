"""Addresses pass from one handle to another of the same node: what a node kept warm becomes a pod's.

    warm.n1.7: 10.0.0.5  --takes_over-->  k8s-pod-network.c0ffee: 10.0.0.5       one batch: block, both handles

By then the pod may long be running with the address: the node gave it while the bus was away. So nothing is asked
again that was asked when the address was given to the node, neither which pools serve the pod nor who may have more.
Where the warm handle holds nothing any more (somebody thought it forgotten), the named addresses are taken if they are
free, like any requested by name.
"""

from __future__ import annotations

from bus_schemas.ids import HandleId
from bus_schemas.ipam import Assigned, AssignRequest, Handle, Refused
from services.ipam.cidr import Cidr, parse_address
from services.ipam.draft import Draft
from services.ipam.release import Behind


def take_over(draft: Draft, request: AssignRequest, warm: Handle) -> Assigned | Refused | Behind:
    """In the draft, `request.handle` holds what `warm` held, and `warm` holds nothing."""
    owner = f"handle {warm.handle} holds {', '.join(warm.addresses)}"
    if warm.node != request.node:
        return Refused(reason=f"{owner} on node {warm.node}, not on {request.node}: it cannot pass to another node")
    try:
        named = {str(parse_address(text)) for text in request.addresses}
    except ValueError as error:
        return Refused(reason=str(error))
    families = {parse_address(text).family for text in warm.addresses}
    if (named and named != set(warm.addresses)) or not families.issuperset(request.families):
        return Refused(reason=f"{owner}, which is not what is to be taken over")
    found: list[tuple[Cidr, int]] = []
    for text, sequence in zip(warm.addresses, warm.sequences, strict=True):
        address = parse_address(text)
        cidr = draft.block_at(address)
        if cidr is None or draft.block(cidr) is None:
            return Behind(warm.handle, text, None)
        ordinal = address.number - cidr.first
        if not draft.open(cidr).holds(ordinal, warm.handle, sequence):
            return Behind(warm.handle, text, cidr)
        found.append((cidr, ordinal))
    sequences = tuple(draft.open(cidr).pass_on(ordinal, request.handle).sequence for cidr, ordinal in found)
    draft.set_handle(warm.handle, None)
    draft.set_handle(request.handle, handle_for(request, warm.addresses, sequences, draft.now))
    who = f"{request.namespace}/{request.pod}" if request.pod else request.handle
    draft.tell(
        "assigned",
        f"{who} on node {request.node} has {' and '.join(warm.addresses)}, which the node kept ready.",
        node=request.node,
        object=who,
        handle=request.handle,
        addresses=",".join(warm.addresses),
    )
    return Assigned(addresses=warm.addresses)


def still_unknown(draft: Draft, request: AssignRequest, warm: HandleId) -> Behind | None:
    """A named address is given to the handle that is taken over, whose record is yet to be read here."""
    for text in request.addresses:
        try:
            address = parse_address(text)
        except ValueError:
            return None
        cidr = draft.block_at(address)
        if cidr is None or draft.block(cidr) is None:
            continue
        given = draft.open(cidr).at(address.number - cidr.first)
        if given is not None and given.handle == warm:
            return Behind(warm, text, cidr)
    return None


def handle_for(request: AssignRequest, addresses: tuple[str, ...], sequences: tuple[int, ...], now: float) -> Handle:
    """The record of what a request was given; `now` is Unix time in seconds."""
    return Handle(
        handle=request.handle,
        node=request.node,
        namespace=request.namespace,
        pod=request.pod,
        use=request.use,
        addresses=addresses,
        sequences=sequences,
        assigned=now,
    )
