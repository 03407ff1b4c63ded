"""Pools: which of them may serve a request, and in which order a node tries a pool's blocks.

    request -> serving(...)  -> pools, each of them or the reason why it may not serve
    pool, node -> candidates -> every block of the pool once, the node's own starting point first

A pool without a mistake becomes a `Pool`; one with a mistake stays out and is named (`MalformedPool`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from bus_schemas import selectors
from bus_schemas.ids import NodeName
from bus_schemas.ipam import AssignRequest, pod_cidr_pool, tunnel_kind
from bus_schemas.reserved import Reserved
from bus_schemas.resources import IPPool, Node
from bus_schemas.selectors import Selector
from services.ipam.block import BLOCK_PREFIXES
from services.ipam.cidr import Cidr, parse
from services.ipam.ledger import Ledger

ALLOWED_USE = {
    "workload": "Workload",
    "warm": "Workload",
    "floating": "Workload",
    "tunnel": "Tunnel",
    "loadbalancer": "LoadBalancer",
}
"""AssignRequest.use -> the entry of IPPool.spec.allowedUses that it needs."""

ALL = selectors.parse("")

GOLDEN = 0x9E3779B1
"""2**32 divided by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4)."""

Labels = Mapping[str, str]


class MalformedPool(ValueError):
    """The pool cannot be worked with; the text says why."""


@dataclass(frozen=True)
class Pool:
    """An IPPool, read once; or one of a node's own pod CIDRs."""

    name: str
    cidr: Cidr
    block_prefix: int
    disabled: bool = False
    automatic: bool = True
    tunnels: frozenset[str] = frozenset()
    """Kinds of tunnel (`bus_schemas.ipam.TUNNEL_HANDLES`) through which its pods are reached somewhere: a tunnel's own
    address may come from it."""
    uses: frozenset[str] = frozenset({"Workload"})
    node_selector: Selector = ALL
    namespace_selector: Selector = ALL
    node: NodeName | None = None
    """Whose pod CIDR it is; None: it is an IPPool."""
    misfit: str = ""
    """Why no block can be cut from it although it is a network."""

    @property
    def family(self) -> int:
        return self.cidr.family

    @property
    def blocks(self) -> int:
        """How many blocks it can be cut into."""
        return int(1 << (self.block_prefix - self.cidr.prefix))

    def block_at(self, index: int) -> Cidr:
        size = self.cidr.size // self.blocks
        return Cidr(self.family, self.cidr.first + index * size, self.block_prefix)

    def cut_as(self, pools: Iterable[Pool]) -> Pool:
        """With blocks as large as those of the pools that it overlaps."""
        there = [pool for pool in pools if pool.cidr.holds(self.cidr) or self.cidr.holds(pool.cidr)]
        if not there:
            return self
        finest = max(there, key=lambda pool: (pool.block_prefix, pool.name))
        misfit = ""
        if finest.block_prefix < self.cidr.prefix:
            misfit = f"is smaller than one block of {finest}, which is a /{finest.block_prefix}"
        return replace(self, block_prefix=max(finest.block_prefix, self.cidr.prefix), misfit=misfit)

    def __str__(self) -> str:
        if self.node is not None:
            return f"pod CIDR {self.cidr} of node {self.node}"
        return f"IPPool {self.name} ({self.cidr})"


def read(resource: IPPool) -> Pool:
    """Raises MalformedPool."""
    spec = resource.spec
    try:
        cidr = parse(spec.cidr)
        node_selector = selectors.parse(spec.node_selector)
        namespace_selector = selectors.parse(spec.namespace_selector)
    except ValueError as error:
        raise MalformedPool(str(error)) from error
    prefix = resource.block_size
    if prefix not in BLOCK_PREFIXES[cidr.family]:
        legal = BLOCK_PREFIXES[cidr.family]
        raise MalformedPool(f"blockSize /{prefix} is not between /{legal[0]} and /{legal[-1]}")
    if prefix < cidr.prefix:
        raise MalformedPool(f"a block of /{prefix} does not fit into {cidr}")
    return Pool(
        name=resource.metadata.name,
        cidr=cidr,
        block_prefix=prefix,
        disabled=spec.disabled,
        automatic=spec.assignment_mode == "Automatic",
        tunnels=frozenset(
            kind for kind, mode in (("vxlan", spec.vxlan_mode), ("ipip", spec.ipip_mode)) if mode != "Never"
        ),
        uses=frozenset(spec.allowed_uses),
        node_selector=node_selector,
        namespace_selector=namespace_selector,
    )


def read_pod_cidrs(resource: Node) -> tuple[Pool, ...]:
    """The node's own ranges, for requests with `from_pod_cidr`. Raises MalformedPool."""
    node = NodeName(resource.metadata.name)
    ranges = []
    for text in resource.spec.pod_cidrs:
        try:
            cidr = parse(text)
        except ValueError as error:
            raise MalformedPool(f"podCIDRs of node {node}: {error}") from error
        prefix = max(cidr.prefix, POD_CIDR_BLOCKS[cidr.family])
        ranges.append(Pool(name=pod_cidr_pool(node), cidr=cidr, block_prefix=prefix, node=node))
    return tuple(ranges)


POD_CIDR_BLOCKS = {4: 26, 6: 122}
"""By family, the prefix length of the blocks that a pod CIDR is cut into where there is no IPPool; a smaller one is a
block by itself."""


def denial(pool: Pool, request: AssignRequest, *, node: Labels, namespace: Labels | None) -> str | None:
    """Why a pool may not serve a request, or None when it may. `namespace`: the labels of the request's Namespace, None
    when it has none.

    A pool that is asked for by name or CIDR need only be enabled and allow the use, as in Calico.
    """
    if pool.disabled:
        return "is disabled"
    if pool.misfit:
        return pool.misfit
    if ALLOWED_USE[request.use] not in pool.uses:
        if pool.node is not None:
            return f"is for pods, not for the use {request.use}"
        return f"has no {ALLOWED_USE[request.use]} in allowedUses"
    if request.pools or request.addresses:
        return None
    if not pool.automatic:
        return "assignmentMode is Manual"
    if request.use == "tunnel" and not _tunnelled(pool, request):
        return "has no tunnel"
    if not pool.node_selector.matches(node):
        return f"nodeSelector {pool.node_selector.canonical} does not select node {request.node}"
    if not pool.namespace_selector.is_all and (namespace is None or not pool.namespace_selector.matches(namespace)):
        return f"namespaceSelector {pool.namespace_selector.canonical} does not select namespace {request.namespace!r}"
    return None


def _tunnelled(pool: Pool, request: AssignRequest) -> bool:
    """Whether the pool has the tunnel that the handle is of: of WireGuard every pool has."""
    kind = tunnel_kind(request.handle, request.node)
    return kind == "wireguard" or (bool(pool.tunnels) if kind is None else kind in pool.tunnels)


def wanted(pools: Mapping[str, Pool], names: tuple[str, ...]) -> tuple[list[Pool], list[str]]:
    """The pools that a request may look at, in the order to try them, and what it named that is no pool."""
    if not names:
        return [pools[name] for name in sorted(pools)], []
    by_cidr = {str(pool.cidr): pool for pool in pools.values()}
    found: dict[str, Pool] = {}
    unknown: list[str] = []
    for name in names:
        pool = pools.get(name) or by_cidr.get(_canonical(name))
        if pool is None:
            unknown.append(name)
        else:
            found[pool.name] = pool
    return list(found.values()), unknown


def misnamed(pools: Mapping[str, Pool], request: AssignRequest) -> str:
    """The first pool that was named in the list of the other family; empty: none."""
    for name, family in zip(request.pools, request.pools_of, strict=False):
        found, _ = wanted(pools, (name,))
        for pool in found:
            if pool.family != family:
                return f"{pool} is named in ipv{family}pools (ipv{family}_pools), and is of IPv{pool.family}"
    return ""


def _canonical(text: str) -> str:
    try:
        return parse(text).text
    except ValueError:
        return text


def candidates(pool: Pool, node: NodeName, reserved: Reserved) -> Iterator[Cidr]:
    """Every block of the pool that is not reserved whole, lazily: from a place that the node's name decides to the end,
    then from the start, so that nodes that start together rarely meet."""
    # FNV-1 gives names that differ in their last letter neighbouring values; Fibonacci hashing drives them apart.
    start = (fnv32(node.encode()) * GOLDEN & 0xFFFFFFFF) * pool.blocks >> 32
    yield from _unreserved(pool, start, pool.blocks, reserved)
    yield from _unreserved(pool, 0, start, reserved)


def _unreserved(pool: Pool, index: int, until: int, reserved: Reserved) -> Iterator[Cidr]:
    size = pool.cidr.size // pool.blocks
    while index < until:
        cidr = pool.block_at(index)
        end = reserved.end(cidr.family, cidr.first, cidr.last) if reserved else None
        if end is None:
            yield cidr
            index += 1
        else:
            index = (end + 1 - pool.cidr.first) // size


def full(pool: Pool, ledger: Ledger, reserved: Reserved) -> bool:
    """Whether the pool is known to hold no free block, without looking at every one of them."""
    there = ledger.count(pool.cidr.first, pool.cidr.last, pool.family)
    size = pool.cidr.size // pool.blocks
    for first, last in reserved.within(pool.family, pool.cidr.first, pool.cidr.last):
        begin = -(-(first - pool.cidr.first) // size) * size
        whole = (last + 1 - pool.cidr.first - begin) // size
        if whole > 0:
            begin += pool.cidr.first
            there += whole - ledger.count(begin, begin + whole * size - 1, pool.family)
    return there >= pool.blocks and all(cidr.prefix == pool.block_prefix for cidr in ledger.within(pool.cidr))


def fnv32(data: bytes) -> int:
    """FNV-1, 32 bits (http://www.isthe.com/chongo/tech/comp/fnv/)."""
    value = 0x811C9DC5
    for byte in data:
        value = value * 0x01000193 & 0xFFFFFFFF ^ byte
    return value
