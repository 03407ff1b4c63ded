"""Builders for the world of route distribution: nodes, pools and blocks as facts, and the core run over a telling."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bus_schemas.ids import BlockCidr, HandleId, NodeName
from bus_schemas.ipam import Allocation, Block, tunnel_handle
from bus_schemas.resources import IPPool, Metadata, Node
from bus_schemas.resources.core import NodeBgp, NodeSpec
from bus_schemas.resources.pools import IPPoolSpec
from bus_schemas.routes import Encapsulation, Route, Tunnel, WireguardEnd, WireguardKeys, vtep_mac_of
from bus_schemas.subjects import BLOCK, DESIRED, WIREGUARD_KEYS, Fact
from services.route_distribution.core import Core, Withheld
from services.route_distribution.summaries import Summaries
from tests.support.expanders import Batches


def node(name: str, v4: str = "", v6: str = "", labels: dict[str, str] | None = None) -> Fact:
    spec = NodeSpec(bgp=NodeBgp(ipv4_address=v4, ipv6_address=v6))
    resource = Node(metadata=Metadata(name=name, labels=labels or {}), spec=spec)
    return Fact(DESIRED[Node], resource.key, resource)


def pool(name: str, cidr: str, vxlan: str = "Never", ipip: str = "Never") -> Fact:
    spec = IPPoolSpec(cidr=cidr, vxlan_mode=vxlan, ipip_mode=ipip)  # type: ignore[arg-type]
    resource = IPPool(metadata=Metadata(name=name), spec=spec)
    return Fact(DESIRED[IPPool], resource.key, resource)


def block(
    cidr: str,
    owner: str | None,
    *,
    pool: str = "pool4",
    tunnels: Mapping[str, int] | None = None,
    lent: Mapping[str, int] | None = None,
    claimed: float = 1.0,
) -> Fact:
    """`tunnels` and `lent` say which ordinal is the tunnel address of, or is lent to, which node."""
    allocations = [
        Allocation(
            ordinal=ordinal,
            handle=tunnel_handle(NodeName(name)),
            sequence=1,
            borrower=None if name == owner else NodeName(name),
        )
        for name, ordinal in (tunnels or {}).items()
    ]
    allocations += [
        Allocation(ordinal=ordinal, handle=HandleId(f"cni.{name}-{ordinal}"), sequence=1, borrower=NodeName(name))
        for name, ordinal in (lent or {}).items()
    ]
    allocations.sort(key=lambda allocation: allocation.ordinal)
    value = Block(
        cidr=BlockCidr(cidr),
        pool=pool,
        node=NodeName(owner) if owner is not None else None,
        allocations=tuple(allocations),
        claimed=claimed,
    )
    return Fact(BLOCK, (cidr,), value)


def direct(cidr: str, owner: str, address: str, pool: str = "pool4", *, borrowed: bool = False) -> Route:
    return Route(cidr=cidr, node=NodeName(owner), pool=pool, address=address, borrowed=borrowed)


def through_ipip(route: Route, mode: str) -> Route:
    return msgspec.structs.replace(route, tunnel=Tunnel.IPIP, encapsulation=Encapsulation(mode))


def keys(name: str, ipv4: WireguardEnd | None, ipv6: WireguardEnd | None = None) -> Fact:
    return Fact(WIREGUARD_KEYS, (name,), WireguardKeys(node=NodeName(name), ipv4=ipv4, ipv6=ipv6))


def tunnelled(
    cidr: str, owner: str, address: str, vtep: str, mode: str, pool: str = "pool4", *, borrowed: bool = False
) -> Route:
    return Route(
        cidr=cidr,
        node=NodeName(owner),
        pool=pool,
        address=address,
        tunnel=Tunnel.VXLAN,
        encapsulation=Encapsulation(mode),
        vtep=vtep,
        vtep_mac=vtep_mac_of(owner),
        borrowed=borrowed,
    )


class Outcome:
    """A core that was told something, and the sum of everything it said: what a follower of its output holds."""

    def __init__(self, batches: Batches = ()) -> None:  # type: ignore[assignment]
        self.core = Core()
        self.routes: dict[str, Route] = {}
        self.withheld: set[Withheld] = set()
        self.summaries = Summaries()
        self.told: dict[str, Route] = {}
        """What stands on the bus for the routes."""
        self.writes: list[tuple[str, Route | None]] = []
        """What was written for the last telling, in a publication's order: removals last."""
        for batch in batches:
            self.tell(*batch)

    def tell(self, *facts: Fact) -> set[str]:
        """Applies and flushes; the destinations whose route changed."""
        for fact in facts:
            self.core.apply(fact)
        changes = self.core.flush()
        for cidr, route in changes.routes.items():
            if route is None:
                del self.routes[cidr]
            else:
                assert self.routes.get(cidr) != route, f"{cidr} was said again without a change"
                self.routes[cidr] = route
        told = self.summaries.update(changes.routes)
        self.writes = sorted(told.items(), key=lambda item: item[1] is None)
        for cidr, route in told.items():
            assert self.told.get(cidr) != route, f"{cidr} was told again without a change"
            if route is None:
                del self.told[cidr]
            else:
                self.told[cidr] = route
        assert len(self.summaries) == len(self.told)
        assert self.withheld.issuperset(changes.cleared)
        assert self.withheld.isdisjoint(changes.raised)
        self.withheld = (self.withheld - set(changes.cleared)) | set(changes.raised)
        return set(changes.routes)

    @property
    def troubles(self) -> set[tuple[str, str]]:
        return {(trouble.what, trouble.object) for trouble in self.withheld}
