"""Address blocks as they lie on the bus, the two requests that change them, and what nodes say they hold.

The block is the unit of compare-and-swap. A block, the handle records of the addresses in it and its affinity record
change in one atomic batch, so none of them can disagree with another.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256

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


class Cooling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An address that was released a moment ago and rests before it is somebody else's."""

    ordinal: int
    released: float
    """Unix time in seconds."""


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
    cooling: tuple[Cooling, ...] = ()
    """Those of `free` that are not given yet, by time of release (IPAMConfiguration.spec.ipCooldownSeconds). An address
    that rested long enough may still stand here until the block's next change."""
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
    """One of `USES`."""
    addresses: tuple[str, ...] = ()
    sequences: tuple[int, ...] = ()
    """The Allocation.sequence of each address, in the same order."""
    assigned: float = 0.0
    """Unix time in seconds of the first address."""


# --- rpc.ipam.assign


USES = ("workload", "tunnel", "loadbalancer", "floating", "warm")
"""What an address is for. `floating`: it is translated to a pod's own (one more address of the pod, by name).
`warm`: a node keeps it assigned ahead, for the next pod there; it counts as a workload's when pools are chosen."""


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
    pools_of: tuple[int, ...] = ()
    """For each of `pools`, the family that it was named for (`ipv4pools`: 4, `ipv6pools`: 6); empty: whatever it is."""
    takes_over: HandleId | None = None
    """Exactly the addresses that this handle of the same node holds (a warm one) pass to `handle`, in one write. When
    that handle holds nothing any more, `addresses` must name what it held: they are assigned if they are free."""
    from_pod_cidr: bool = False
    """Out of the node's own `spec.podCIDRs` instead of an IPPool (host-local with `usePodCidr`)."""
    max_blocks_per_node: int | None = None
    """A lower limit than the configured one, for this request."""


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
    sequence: int | None = None
    """With `address` (and `handle`): only if it is still the one that was given at this Allocation.sequence; what was
    given anew since is left alone and is no fault. A report of `tortie ipam check` names it."""


class Released(Message, tag="released/1", frozen=True, kw_only=True):
    """What was held and is free now; nothing held is a success with no addresses."""

    addresses: tuple[str, ...] = ()


ReleaseReply = Released | Refused | Busy


def tunnel_handle(node: NodeName, kind: str = "vxlan") -> HandleId:
    """The handle of a node's addresses of one kind of tunnel, of IPv4 and of IPv6, as Calico names it."""
    return HandleId(f"{kind}-tunnel-addr-{node}")


TUNNEL_HANDLES = {
    "vxlan": ("vxlan-tunnel-addr-", "vxlan-v6-tunnel-addr-"),
    "ipip": ("ipip-tunnel-addr-",),
    "wireguard": ("wireguard-tunnel-addr-", "wireguard-v6-tunnel-addr-"),
}
"""By kind of tunnel, what the handles of its addresses begin with; the name of the node follows. Calico gives IPv6 a
handle of its own; here one request can have both families, so `tunnel_handle` alone is enough."""


def tunnel_handles(node: NodeName) -> tuple[HandleId, ...]:
    """Every handle under which a node may have tunnel addresses."""
    return tuple(HandleId(prefix + node) for prefixes in TUNNEL_HANDLES.values() for prefix in prefixes)


def tunnel_kind(handle: HandleId, node: NodeName) -> str | None:
    """A key of TUNNEL_HANDLES; None: none of the node's tunnels has this handle."""
    for kind, prefixes in TUNNEL_HANDLES.items():
        if any(handle == prefix + node for prefix in prefixes):
            return kind
    return None


LOAD_BALANCER = NodeName("virtual:load-balancer")
"""The node in whose name Services have their addresses (Calico's virtual host): no node can be called so, and no route
leads there."""


_POD_CIDR = "podcidr-"


def pod_cidr_pool(node: NodeName) -> str:
    """What the pool of a block is called that was cut from the node's own `spec.podCIDRs`."""
    return _POD_CIDR + node


def of_pod_cidr(pool: str) -> bool:
    """Whether a block's pool is a node's own range, and no IPPool."""
    return pool.startswith(_POD_CIDR)


def load_balancer_handle(namespace: str, service: str) -> HandleId:
    """The handle of the addresses of a Service of type LoadBalancer: Calico's `lb-` and a digest of its name."""
    return HandleId("lb-" + sha256(f"{namespace}/{service}".encode()).hexdigest()[:40])


# --- what a node says it holds, and what the address service makes of it


class Held(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    handle: HandleId
    addresses: tuple[str, ...]
    use: str = "warm"


class Holding(Message, tag="holding/1", frozen=True, kw_only=True):
    """What a node's agent holds beside its endpoints, and its word that all of these are on the bus. Written by the
    agent, after its endpoints. Its absence means nothing (silence never deletes)."""

    node: NodeName
    epoch: str = ""
    """The `Epoch.id` under which everything was said: a bus that lost its memory asks with a new one."""
    held: tuple[Held, ...] = ()
    """Tunnel and warm addresses, and those of pods whose endpoint is not announced yet."""
    blocks: tuple[BlockCidr, ...] = ()
    """The blocks that the node has as its own, as far as it knows."""
    complete: bool = True
    """False: a placeholder, whose sequence the word that follows is swapped on. Nothing is said yet."""


class Epoch(Message, tag="epoch/1", frozen=True, kw_only=True):
    """One life of the address records. A bus without one is new or was wiped. Written by ipam."""

    id: str
    state: str
    """`recovering`: addresses are being read back from the agents, none is given; `ready`."""
    began: float
    """Unix time in seconds."""
    missing: tuple[NodeName, ...] = ()
    """Nodes that have not said yet what they hold."""
    first: bool = False
    """The bus was new: nobody holds anything from before, and no older node is awaited."""


class Candidate(Message, tag="candidate/1", frozen=True, kw_only=True):
    """A handle that looks forgotten, before anything is done about it. Written by the ipam that collects."""

    handle: HandleId
    node: NodeName
    namespace: str = ""
    pod: str = ""
    addresses: tuple[str, ...] = ()
    sequences: tuple[int, ...] = ()
    """Of the handle as it was seen: given anew, it is another candidate."""
    reason: str
    """Why it is one, and what it waits for, in words."""
    since: float
    """Unix time in seconds of the first observation that counts."""
    observations: int = 1
    """Looks that count: the node's word was current. Counted up to as many as it takes."""
    due: float
    """Unix time in seconds before which nothing is released."""


class ServiceAddresses(Message, tag="service_addresses/1", frozen=True, kw_only=True):
    """The addresses of a Service of type LoadBalancer, or why it has none. Written by ipam."""

    namespace: str
    service: str
    addresses: tuple[str, ...] = ()
    reason: str = ""
