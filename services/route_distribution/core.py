"""The pure heart of route distribution: facts about blocks, nodes and pools in, changed routes out.

    Node  --- address, known at all ---+
    WireguardKeys --- public keys -----+
    Block --- owner, borrowers --------+--> settle overlaps --> one Route a block, one a borrowed address
          \\-- tunnel addresses (vtep) -+
    IPPool -- encapsulation -----------+

Every fact marks the blocks that it can matter to; `flush` makes those anew and gives the routes that differ from
what it gave before. What a block asks for and cannot have is a `Withheld`: the route is absent, and this says why.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple, TypeVar

from bus_schemas.ids import BlockCidr, NodeName
from bus_schemas.ipam import Allocation, Block, of_pod_cidr, tunnel_handle
from bus_schemas.resources import IPPool, Node
from bus_schemas.routes import Encapsulation, Route, Tunnel, WireguardKeys, vtep_mac_of
from bus_schemas.subjects import BLOCK, DESIRED, WIREGUARD_KEYS, Fact, Family
from services.route_distribution.claims import Claims, Network, Span, settle

NODE = DESIRED[Node]
POOL = DESIRED[IPPool]

READS: tuple[Family[Any], ...] = (NODE, POOL, BLOCK, WIREGUARD_KEYS)

K = TypeVar("K")
V = TypeVar("V")

_TUNNEL_HANDLE_PREFIX = tunnel_handle(NodeName(""))


class Withheld(NamedTuple):
    """Why routes are missing, or are not what was asked for. Equal for all blocks with the same trouble."""

    what: str
    """`contested`, `malformed`, `orphaned`, or `missing` of what a BGPPeer names."""
    object: str
    message: str


@dataclass(frozen=True)
class Changes:
    """What differs from the last flush."""

    routes: dict[str, Route | None] = field(default_factory=dict)
    """By destination; None: there is to be none any more."""
    raised: tuple[Withheld, ...] = ()
    cleared: tuple[Withheld, ...] = ()


class _Block(NamedTuple):
    """A block as it was last told, read once."""

    block: Block
    network: Network

    @property
    def span(self) -> Span:
        return Span.of(self.network)

    def address(self, allocation: Allocation) -> str | None:
        if 0 <= allocation.ordinal < self.network.num_addresses:
            return str(self.network.network_address + allocation.ordinal)
        return None

    @property
    def nodes(self) -> set[NodeName]:
        """Everybody to whom a route of this block may lead."""
        borrowers = {a.borrower for a in self.block.allocations if a.borrower is not None}
        return borrowers if self.block.node is None else borrowers | {self.block.node}

    def tunnels(self) -> Iterator[tuple[tuple[NodeName, int], str]]:
        """The addresses of VXLAN tunnels in this block: ((node, family), address)."""
        for allocation in self.block.allocations:
            if allocation.handle.startswith(_TUNNEL_HANDLE_PREFIX):
                address = self.address(allocation)
                if address is not None:
                    node = NodeName(allocation.handle.removeprefix(_TUNNEL_HANDLE_PREFIX))
                    yield (node, self.network.version), address


class _Pool(NamedTuple):
    """What routes depend on in a pool."""

    name: str
    network: Network
    tunnel: Tunnel
    encapsulation: Encapsulation

    @property
    def span(self) -> Span:
        return Span.of(self.network)


class _Addresses(NamedTuple):
    """What routes depend on in a node."""

    v4: str
    v6: str


class Core:
    def __init__(self) -> None:
        self._blocks: dict[BlockCidr, _Block] = {}
        self._by_span: dict[Span, BlockCidr] = {}
        self._claims = Claims()
        self._of_node: defaultdict[NodeName, set[BlockCidr]] = defaultdict(set)
        """Blocks with a route to the node: its own, and those it borrows from."""
        self._of_pool: defaultdict[str, set[BlockCidr]] = defaultdict(set)
        self._nodes: dict[NodeName, _Addresses] = {}
        self._pools: dict[str, _Pool] = {}
        self._keys: dict[NodeName, WireguardKeys] = {}
        self._vteps: defaultdict[tuple[NodeName, int], set[str]] = defaultdict(set)

        self._unreadable: dict[tuple[str, str], Withheld] = {}
        """Facts that cannot be used, by (family, name)."""
        self._dirty: set[BlockCidr] = set()
        self._reopened: set[Span] = set()
        """Where a claim was: whatever is inside may have won a route."""
        self._routes: dict[BlockCidr, dict[str, Route]] = {}
        """What the last flush made of each block."""
        self._troubles: dict[BlockCidr, tuple[Withheld, ...]] = {}
        self._told: set[Withheld] = set()
        self._counted: Counter[Withheld] = Counter()

    def apply(self, fact: Fact) -> None:
        """One key's current value or absence."""
        if fact.family == BLOCK:
            self._apply_block(BlockCidr(fact.key[0]), fact.value)
        elif fact.family == NODE:
            self._apply_node(NodeName(fact.key[1]), fact.value)
        elif fact.family == POOL:
            self._apply_pool(fact.key[1], fact.value)
        elif fact.family == WIREGUARD_KEYS:
            self._apply_keys(NodeName(fact.key[0]), fact.value)

    def flush(self) -> Changes:
        """The routes that changed since the last flush, and the troubles that came and went."""
        affected = self._affected()
        before: dict[str, Route] = {}
        after: dict[str, Route] = {}
        lost = self._lost(affected)
        for cidr in affected:
            before.update(self._routes.pop(cidr, {}))
            self._counted.subtract(self._troubles.pop(cidr, ()))
            if cidr in self._blocks:
                routes, troubles = self._routes_of(self._blocks[cidr], lost.get(cidr))
                if routes:
                    self._routes[cidr] = routes
                    after.update(routes)
                if troubles:
                    self._troubles[cidr] = troubles
                    self._counted.update(troubles)
        self._dirty.clear()
        self._reopened.clear()

        changed: dict[str, Route | None] = {cidr: None for cidr in before if cidr not in after}
        changed.update((cidr, route) for cidr, route in after.items() if before.get(cidr) != route)
        self._counted = +self._counted
        troubles_now = {*self._counted, *self._unreadable.values()}
        raised, cleared = troubles_now - self._told, self._told - troubles_now
        self._told = troubles_now
        return Changes(routes=changed, raised=tuple(sorted(raised)), cleared=tuple(sorted(cleared)))

    # --- facts

    def _apply_block(self, cidr: BlockCidr, block: Block | None) -> None:
        known = self._blocks.pop(cidr, None)
        read = self._read_block(cidr, block) if block is not None else None
        if known is not None:
            self._forget_block(cidr, known)
        if block is not None and read is None:
            self._unreadable["block", cidr] = Withheld("malformed", cidr, f"block {cidr} does not describe itself")
        else:
            self._unreadable.pop(("block", cidr), None)
        if read is not None:
            self._learn_block(cidr, read)
        before = set(known.tunnels()) if known is not None else set()
        after = set(read.tunnels()) if read is not None else set()
        for (node, _), _ in before ^ after:
            self._dirty |= self._of_node.get(node, set())

    @staticmethod
    def _read_block(cidr: BlockCidr, block: Block) -> _Block | None:
        network = _network(cidr)
        if network is None or block.cidr != cidr or str(network) != cidr:
            return None
        return _Block(block, network)

    def _forget_block(self, cidr: BlockCidr, known: _Block) -> None:
        self._dirty.add(cidr)
        self._reopened.add(known.span)
        self._claims.discard(known.span)
        del self._by_span[known.span]
        _drop(self._of_pool, known.block.pool, cidr)
        for node in known.nodes:
            _drop(self._of_node, node, cidr)
        for vtep, address in known.tunnels():
            _drop(self._vteps, vtep, address)

    def _learn_block(self, cidr: BlockCidr, read: _Block) -> None:
        self._dirty.add(cidr)
        self._blocks[cidr] = read
        self._claims.add(read.span)
        self._by_span[read.span] = cidr
        self._of_pool[read.block.pool].add(cidr)
        for node in read.nodes:
            self._of_node[node].add(cidr)
        for vtep, address in read.tunnels():
            self._vteps[vtep].add(address)

    def _apply_node(self, name: NodeName, node: Node | None) -> None:
        known = self._nodes.pop(name, None)
        addresses = _Addresses(node.address(4), node.address(6)) if node is not None else None
        if addresses is not None:
            self._nodes[name] = addresses
        if addresses != known:
            self._dirty |= self._of_node.get(name, set())

    def _apply_keys(self, name: NodeName, keys: WireguardKeys | None) -> None:
        known = self._keys.pop(name, None)
        if keys is not None:
            self._keys[name] = keys
        if keys != known:
            self._dirty |= self._of_node.get(name, set())

    def _apply_pool(self, name: str, pool: IPPool | None) -> None:
        known = self._pools.pop(name, None)
        network = _network(pool.spec.cidr) if pool is not None else None
        read = None
        if pool is not None and network is not None:
            read = self._pools[name] = _Pool(name, network, *_tunnel(pool))
        if pool is not None and network is None:
            self._unreadable["pool", name] = Withheld("malformed", name, f"the CIDR of pool {name} is not a network")
        else:
            self._unreadable.pop(("pool", name), None)
        if read != known:
            self._dirty |= self._of_pool.get(name, set())
            for state in (known, read):
                if state is not None:
                    self._dirty.update(self._by_span[span] for span in self._claims.within(state.span))

    # --- routes

    def _affected(self) -> set[BlockCidr]:
        """The marked blocks and everything that shares their extents."""
        spans = {self._blocks[cidr].span for cidr in self._dirty if cidr in self._blocks} | self._reopened
        extents = {self._claims.extent(span) for span in spans}
        return self._dirty | {self._by_span[span] for extent in extents for span in self._claims.within(extent)}

    def _lost(self, affected: Iterable[BlockCidr]) -> dict[BlockCidr, BlockCidr]:
        """Blocks that overlap an older one -> that one. Blocks that lead to nobody claim nothing."""
        claims: defaultdict[Span, list[tuple[float, Span]]] = defaultdict(list)
        for cidr in affected:
            known = self._blocks.get(cidr)
            if known is not None and any(node in self._nodes for node in known.nodes):
                claims[self._claims.extent(known.span)].append((known.block.claimed, known.span))
        return {
            self._by_span[loser]: self._by_span[winner]
            for overlapping in claims.values()
            if len(overlapping) > 1
            for loser, winner in settle(overlapping).items()
        }

    def _routes_of(self, known: _Block, winner: BlockCidr | None) -> tuple[dict[str, Route], tuple[Withheld, ...]]:
        cidr = known.block.cidr
        if winner is not None:
            return {}, (
                Withheld("contested", cidr, f"block {cidr} overlaps the older block {winner}: it has no route"),
            )
        pool = self._pool_of(known)
        routes: dict[str, Route] = {}
        owner = known.block.node
        if owner is not None and owner in self._nodes:
            routes[cidr] = self._route(known, cidr, owner, pool, borrowed=False)
        for allocation in known.block.allocations:
            borrower = allocation.borrower
            address = known.address(allocation)
            if (
                address is not None
                and borrower is not None
                and borrower != known.block.node
                and borrower in self._nodes
            ):
                single = f"{address}/{known.network.max_prefixlen}"
                routes[single] = self._route(known, single, borrower, pool, borrowed=True)
        if pool is None and routes and not of_pod_cidr(known.block.pool):
            gone = known.block.pool
            return routes, (Withheld("orphaned", gone, f"pool {gone} is gone: its blocks are routed without a tunnel"),)
        return routes, ()

    def _route(self, known: _Block, cidr: str, node: NodeName, pool: _Pool | None, *, borrowed: bool) -> Route:
        addresses = self._nodes[node]
        family = known.network.version
        tunnel, encapsulation = (Tunnel.NONE, Encapsulation.NEVER) if pool is None else pool[2:]
        vxlan = tunnel is Tunnel.VXLAN
        keys = self._keys.get(node)
        return Route(
            cidr=cidr,
            node=node,
            pool=pool.name if pool is not None else "",
            address=addresses.v4 if family == 4 else addresses.v6,
            tunnel=tunnel,
            encapsulation=encapsulation,
            vtep=self._vtep(node, family) if vxlan else "",
            vtep_mac=vtep_mac_of(node) if vxlan else "",
            borrowed=borrowed,
            wireguard=None if keys is None else keys.ipv4 if family == 4 else keys.ipv6,
        )

    def _vtep(self, node: NodeName, family: int) -> str:
        """The node's tunnel address; were there several, the lowest, so that everybody agrees."""
        return min(self._vteps.get((node, family), ()), key=ip_address, default="")

    def _pool_of(self, known: _Block) -> _Pool | None:
        """The pool that the block names; where that is gone or elsewhere now, the narrowest one around it.

        A block of a node's own pod CIDR names none: an IPPool around it says how it is reached (as in Calico), and
        where there is none it is routed plainly, which is what whoever gave the nodes their ranges sees to."""
        named = self._pools.get(known.block.pool)
        if named is not None and named.span.holds(known.span):
            return named
        around = [pool for pool in self._pools.values() if pool.span.holds(known.span)]
        return min(around, key=lambda pool: (-pool.span.prefix, pool.name), default=None)


def _tunnel(pool: IPPool) -> tuple[Tunnel, Encapsulation]:
    """IP in IP carries IPv4 alone."""
    if pool.spec.vxlan_mode != "Never":
        return Tunnel.VXLAN, Encapsulation(pool.spec.vxlan_mode)
    if pool.spec.ipip_mode != "Never" and pool.family == 4:
        return Tunnel.IPIP, Encapsulation(pool.spec.ipip_mode)
    return Tunnel.NONE, Encapsulation.NEVER


def _network(cidr: str) -> Network | None:
    try:
        return ip_network(cidr, strict=False)
    except ValueError:
        return None


def _drop(index: defaultdict[K, set[V]], key: K, member: V) -> None:
    members = index[key]
    members.discard(member)
    if not members:
        del index[key]
