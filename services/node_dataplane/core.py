"""What this node's kernel should look like, from facts alone. Pure.

    Route ----------------------------+
    Node (own), settings,           | |
    interfaces (the kernel's) --> whereabouts: uplinks, subnets
                                    +-+--> rows of routes, peers of tunnels         -> fabric
    Speaker (own) ------------------+----> which rows are spare, because BIRD brings the same
    IPPool, FelixConfiguration -----+----> tunnel devices, their addresses, MTU of pods
    Node (all), Route, IPPool, Felix ----> node rules (masquerading, known nodes)   -> the policy table

`apply` notes a fact, `flush` returns what changed since the last flush. A route is converted again only when it or the
node's own standpoint changed, so one changed block costs one conversion whatever the size of the cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import NamedTuple, TypeVar

from bus_schemas.bgp import Speaker
from bus_schemas.ids import NodeName
from bus_schemas.resources import FelixConfiguration, IPPool, Node
from bus_schemas.resources.bgp import ClusterRoutes
from bus_schemas.routes import Route
from bus_schemas.subjects import BGP, BGP_MESH, DESIRED, NODE_ADDRESSES, ROUTE, Fact
from services.node_dataplane import ipip, mtu, tunnel, wireguard
from services.node_dataplane.autodetection import Asked, Reach
from services.node_dataplane.felix import setting
from services.node_dataplane.ipip import IpipSpec
from services.node_dataplane.lingering import Lingering
from services.node_dataplane.mtu import PodMtu, Term
from services.node_dataplane.routes import Conversion, Destination, Peer, Row, Standpoint, convert, destination
from services.node_dataplane.tunnel import TunnelSpec
from services.node_dataplane.uplink import Interface
from services.node_dataplane.whereabouts import FAMILIES, FEW, Whereabouts
from services.node_dataplane.wireguard import Allowed, WireguardPeer, WireguardSpec

V = TypeVar("V")

PLAIN_BY_BIRD: tuple[ClusterRoutes, ...] = ("Enabled", "EnabledNoEncapOnly")
"""Under these, BIRD brings the routes between nodes that need no tunnel."""

Spec = TunnelSpec | IpipSpec | WireguardSpec
Peers = frozenset[Peer] | frozenset[WireguardPeer]


@dataclass(frozen=True)
class Surroundings:
    """What the node's own rules depend on."""

    pools: tuple[IPPool, ...]
    """All of them, by name."""
    node_addresses: tuple[str, ...]
    """Of every node, plain, ascending."""
    own_addresses: tuple[str, ...]
    tunnels: tuple[TunnelSpec, ...]
    """VXLAN's."""
    ipip: bool
    wireguard_ports: tuple[int, ...]
    """On which the node takes WireGuard packets."""
    configurations: tuple[tuple[str, FelixConfiguration], ...]
    """Those that apply here, the strongest first."""


class Vteps(NamedTuple):
    """Own tunnel addresses of one kind that the node must hold."""

    families: frozenset[int]
    pools: tuple[IPPool, ...]
    """That they may be of."""


@dataclass
class Desired:
    rows: dict[Destination, Row | None] = field(default_factory=dict)
    """Changed destinations only; None: no route."""
    tunnels: dict[str, Spec | None] = field(default_factory=dict)
    """By device, all that there may be."""
    peers: dict[str, Peers] = field(default_factory=dict)
    """By device, of those that have peers."""
    vteps: dict[str, Vteps] = field(default_factory=dict)
    """By kind of tunnel."""
    surroundings: Surroundings | None = None
    """None: as before."""
    problems: tuple[str, ...] = ()


class NodeCore:
    def __init__(self, node: NodeName, settings: Mapping[int, Asked] | None = None) -> None:
        """`settings`: by family, what the agent's settings ask for while the Node resource says nothing."""
        self._node = node
        self.whereabouts = Whereabouts(node, settings)
        self.mtu = PodMtu(mtu.FALLBACK, (), ())
        """Of pods that start, as of the last flush."""
        self._routes: dict[str, Route] = {}
        self._pools: dict[str, IPPool] = {}
        self._configurations: dict[str, FelixConfiguration] = {}
        self._nodes: dict[str, Node] = {}
        self._speaker: Speaker | None = None
        self._vteps: dict[str, tuple[str, ...]] = {}
        self._keyed: frozenset[int] = frozenset()

        self._converted: dict[str, Conversion] = {}
        self._by_destination: dict[Destination, set[str]] = {}
        self._peers: dict[int, Counter[Peer]] = {family: Counter() for family in FAMILIES}
        self._secured: dict[str, dict[bytes, dict[str, Conversion]]] = {d: {} for d in wireguard.DEVICES.values()}
        """By WireGuard device and key, what is sent to that peer."""
        self._wireguard_peers: dict[str, dict[bytes, WireguardPeer]] = {d: {} for d in wireguard.DEVICES.values()}
        self._bare: Counter[NodeName] = Counter()
        """Nodes that are sent to without encryption, though we encrypt; by how many routes."""
        self._dirty: set[str] = set()
        self._faulty: dict[str, str] = {}
        self._waiting: dict[str, NodeName] = {}
        """Routes that are to go through a tunnel of which an end is not known yet, and whose nodes they lead to."""
        self._refused: dict[str, str] = {}
        """Pools that cannot be, by name; what was known of them before stays."""
        self._standpoints: dict[int, Standpoint] = {}
        self._lingering = Lingering()
        self._surroundings: Surroundings | None = None
        self._stale = True
        """Something that the surroundings depend on changed."""
        self._owners: Counter[str] = Counter()
        """How many routes name each node address; the surroundings care for which, not for how many."""
        self._problems: tuple[str, ...] = ()

    # --- facts

    def apply(self, fact: Fact) -> None:
        if fact.family is ROUTE:
            self._apply_route(fact.key[0], fact.value)
            return
        if fact.family is BGP_MESH:
            return
        self._stale = True
        if fact.family is BGP:
            self._speaker = fact.value
        elif fact.family is DESIRED[IPPool]:
            self._apply_pool(fact.key[1], fact.value)
        elif fact.family is DESIRED[FelixConfiguration]:
            _store(self._configurations, fact.key[1], fact.value)
        elif fact.family is DESIRED[Node]:
            _store(self._nodes, fact.key[1], fact.value)
        elif fact.family is NODE_ADDRESSES:
            self.whereabouts.set_said(fact.key[0], fact.value)

    def _apply_pool(self, name: str, pool: IPPool | None) -> None:
        self._refused.pop(name, None)
        if pool is not None:
            try:
                ip_network(pool.spec.cidr)
            except ValueError as error:
                self._refused[name] = str(error)
                return
        _store(self._pools, name, pool)

    def _apply_route(self, cidr: str, route: Route | None) -> None:
        before = self._routes.get(cidr)
        was = "" if before is None else _plain(before.address)
        now = "" if route is None else _plain(route.address)
        if was != now:
            self._owners[was] -= 1
            self._owners[now] += 1
            self._stale = self._stale or self._owners[now] == 1 or not self._owners[was]
        _store(self._routes, cidr, route)
        self._dirty.add(cidr)

    def set_interfaces(self, interfaces: Sequence[Interface]) -> bool:
        """The kernel's devices; whether that is news."""
        news = self.whereabouts.set_interfaces(interfaces)
        self._stale = self._stale or news
        return news

    def set_reach(self, family: int, reach: Reach) -> bool:
        """From where the kernel sends to the target of `can-reach`; whether that is news."""
        news = self.whereabouts.set_reach(family, reach)
        self._stale = self._stale or news
        return news

    @property
    def due(self) -> float | None:
        """When to look again though no fact came, as Unix time; None: never."""
        return min((at for at in (self.whereabouts.due, self._lingering.due) if at is not None), default=None)

    def look_again(self) -> None:
        """The time has come that `due` named."""
        self._stale = True

    def set_vteps(self, kind: str, addresses: Sequence[str]) -> None:
        """Our own addresses of one kind of tunnel, as the address service gave them."""
        self._vteps[kind] = tuple(addresses)
        self._stale = True

    def set_keyed(self, families: frozenset[int]) -> bool:
        """The families whose WireGuard device is there and has its key; whether that is news. Before, nothing is sent
        over it: a kernel without WireGuard shall not cut the node off."""
        if self._keyed == families:
            return False
        self._keyed = families
        self._stale = True
        return True

    # --- questions

    @property
    def pools(self) -> list[IPPool]:
        return [self._pools[name] for name in sorted(self._pools)]

    @property
    def labels(self) -> dict[str, str]:
        """Of our Node resource."""
        own = self._nodes.get(self._node)
        return own.metadata.labels if own is not None else {}

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        """Of our Node resource."""
        own = self._nodes.get(self._node)
        return own.spec.pod_cidrs if own is not None else ()

    @property
    def surroundings(self) -> Surroundings | None:
        """As of the last flush."""
        return self._surroundings

    def pod_mtu(self) -> int:
        """As of the last flush."""
        return self.mtu.mtu

    def _reckon(self) -> PodMtu:
        """What fits through every path a pod's packet may take: the uplink, or the tunnel of an enabled pool."""
        under = self.whereabouts.underlay
        terms = mtu.plain_terms(under, self.whereabouts.uplinks)
        for family in sorted(tunnel.families(self.pools, enabled=True)):
            if vxlan := self._tunnel(family):
                terms.append(self._term(f"VXLAN over IPv{family}", vxlan, family, tunnel.OVERHEAD[family], "vxlanMTU"))
        if ipip.wanted(self.pools, enabled=True) and (spec := self._ipip()):
            terms.append(self._term("IP in IP", spec, 4, ipip.OVERHEAD, "ipipMTU"))
        for family in FAMILIES:
            if secured := self._wireguard(family):
                field = "wireguardMTU" if family == 4 else "wireguardMTUV6"
                terms.append(
                    self._term(f"WireGuard over IPv{family}", secured, family, wireguard.OVERHEAD[family], field)
                )
        return mtu.of_pods(under, terms)

    def _term(self, what: str, spec: Spec, family: int, overhead: int, field: str) -> Term:
        return mtu.tunnel_term(what, spec.mtu, self.whereabouts.underlay.of(family), overhead, field)

    @property
    def configured(self) -> dict[str, str]:
        """What FelixConfiguration says about MTUs and checksums."""
        fields = {
            "mtu_iface_pattern": "mtuIfacePattern",
            "vxlan_mtu": "vxlanMTU",
            "ipip_mtu": "ipipMTU",
            "wireguard_mtu": "wireguardMTU",
            "wireguard_mtu_v6": "wireguardMTUV6",
            "feature_detect_override": "featureDetectOverride",
        }
        said = {name: setting(self._configurations, self._node, field) for field, name in fields.items()}
        return {name: str(value) for name, value in said.items() if value}

    @property
    def registered(self) -> bool:
        """There is a Node resource of ours."""
        return self._node in self._nodes

    def uplinks(self, family: int) -> tuple[str, ...]:
        """Names of the devices that lead to the other nodes in one family."""
        return (self.whereabouts.uplinks[family].device,) if family in self.whereabouts.uplinks else ()

    # --- output

    def flush(self, now: float = 0.0) -> Desired:
        """`now`: Unix time in seconds."""
        news = None
        if self._stale:
            self._stale = False
            self._look_around(now)
            self.mtu = self._reckon()
            surroundings = self._surround()
            news = surroundings if surroundings != self._surroundings else None
            self._surroundings = surroundings
        changed: set[Destination] = set()
        for cidr in self._dirty:
            changed |= self._convert(cidr)
        self._dirty.clear()
        faults = [f"route {cidr}: {reason}" for cidr, reason in sorted(self._faulty.items())]
        faults += [f"IPPool/{name}: {reason}" for name, reason in sorted(self._refused.items())]
        faults += tunnel.faults(self._configurations, self._node)
        return Desired(
            rows={where: self._row(where) for where in changed},
            tunnels=self._tunnels(),
            peers={
                **{tunnel.DEVICES[family]: frozenset(self._peers[family]) for family in FAMILIES},
                **{device: frozenset(peers.values()) for device, peers in self._wireguard_peers.items()},
            },
            vteps=self._wanted_vteps(),
            surroundings=news,
            problems=(*self._problems, *self.mtu.problems, *faults, *self._unencrypted(), *self._unfinished()),
        )

    def _tunnels(self) -> dict[str, Spec | None]:
        return {
            **{tunnel.DEVICES[family]: self._tunnel(family) for family in FAMILIES},
            ipip.DEVICE: self._ipip(),
            **{wireguard.DEVICES[family]: self._wireguard(family) for family in FAMILIES},
        }

    def _wanted_vteps(self) -> dict[str, Vteps]:
        pools = [pool for pool in self.pools if not pool.spec.disabled]
        # The address of a tunnel that lingers stays, too, whatever pool it is of: without, the routes over it would go.
        there = {pool.family for pool in pools}
        lingering = (self._lingering.vxlan - tunnel.families(self.pools)) & there
        ipip_lingers = self._lingering.ipip and not ipip.wanted(self.pools) and 4 in there
        families = {
            "vxlan": tunnel.families(pools) | lingering,
            "ipip": frozenset({4} if ipip.wanted(pools) or ipip_lingers else ()),
            "wireguard": frozenset(f for f in FAMILIES if self._wireguard(f)) & there,
        }
        of = {
            "vxlan": [pool for pool in pools if pool.spec.vxlan_mode != "Never" or pool.family in lingering],
            "ipip": [pool for pool in pools if pool.spec.ipip_mode != "Never" or (ipip_lingers and pool.family == 4)],
            "wireguard": pools,
        }
        return {kind: Vteps(families[kind] & frozenset(self.whereabouts.uplinks), tuple(of[kind])) for kind in families}

    def _unencrypted(self) -> list[str]:
        if not self._bare:
            return []
        named, more = sorted(self._bare)[:FEW], len(self._bare) - FEW
        nodes = ", ".join(named) + (f" and {more} more" if more > 0 else "")
        return [f"WireGuard: {nodes} has no key, so its pods are reached without encryption"]

    def _unfinished(self) -> list[str]:
        if not self._waiting:
            return []
        nodes = sorted(set(self._waiting.values()))
        named = ", ".join(nodes[:FEW]) + (f" and {len(nodes) - FEW} more" if len(nodes) > FEW else "")
        blocks = "1 block" if len(self._waiting) == 1 else f"{len(self._waiting)} blocks"
        return [f"the way to {blocks} of {named} waits for a tunnel address; where there was another way, it stays"]

    def _look_around(self, now: float) -> None:
        """Uplinks and standpoints; every route is converted again where they changed."""
        pattern = setting(self._configurations, self._node, "mtu_iface_pattern")
        self._problems = tuple(self.whereabouts.settle(self._nodes, pattern, now))
        standpoints: dict[int, Standpoint] = {}
        self._lingering.settle(self._devices_of_pools(), now)
        for family, found in self.whereabouts.uplinks.items():
            encrypts = wireguard.enabled(self._configurations, self._node, family) and family in self._keyed
            standpoints[family] = Standpoint(
                found.device,
                found.network,
                tunnel.DEVICES[family] if family in self._lingering.vxlan else "",
                ipip=ipip.DEVICE if family == 4 and self._lingering.ipip else "",
                wireguard=wireguard.DEVICES[family] if encrypts else "",
                yields=self._speaker is not None and self._speaker.cluster_routes in PLAIN_BY_BIRD,
            )
        if standpoints != self._standpoints:
            self._standpoints = standpoints
            self._dirty.update(self._routes)

    def _devices_of_pools(self) -> frozenset[str]:
        """Tunnel devices that a pool wants."""
        devices = {tunnel.DEVICES[family] for family in tunnel.families(self._pools.values())}
        return frozenset(devices | ({ipip.DEVICE} if ipip.wanted(self._pools.values()) else set()))

    def _convert(self, cidr: str) -> set[Destination]:
        """Replace one route's conversion; the destinations that it concerned before and concerns now."""
        touched = set()
        before = self._converted.pop(cidr, None)
        self._faulty.pop(cidr, None)
        self._waiting.pop(cidr, None)
        if before is not None:
            touched.add(before.destination)
            self._by_destination[before.destination].discard(cidr)
            if not self._by_destination[before.destination]:
                del self._by_destination[before.destination]
            self._count(cidr, before, -1)
        route = self._routes.get(cidr)
        if route is not None:
            family = 6 if ":" in route.cidr else 4
            try:
                now = convert(route, self._node, self._standpoints.get(family))
                if route.cidr != cidr and now.destination != destination(cidr):
                    raise ValueError(f"the record says {route.cidr}")
            except ValueError as error:
                self._faulty[cidr] = str(error)
            else:
                if now.waits:
                    self._waiting[cidr] = now.node
                    if before is not None and before.row is not None and _same_owner(before, now):
                        now = before  # Until there is a new way, the old one stays.
                touched.add(now.destination)
                self._converted[cidr] = now
                self._by_destination.setdefault(now.destination, set()).add(cidr)
                self._count(cidr, now, 1)
        return touched

    def _count(self, cidr: str, conversion: Conversion, by: int) -> None:
        if conversion.peer is not None:
            peers = self._peers[4 if len(conversion.peer.vtep) == 4 else 6]
            peers[conversion.peer] += by
            if not peers[conversion.peer]:
                del peers[conversion.peer]
        if conversion.bare:
            self._bare[conversion.node] += by
            if not self._bare[conversion.node]:
                del self._bare[conversion.node]
        if conversion.secured is not None:
            self._secure(cidr, conversion, wanted=by > 0)

    def _secure(self, cidr: str, conversion: Conversion, *, wanted: bool) -> None:
        secured = conversion.secured
        assert secured is not None
        device = wireguard.DEVICES[4 if len(secured.endpoint) == 4 else 6]
        sent = self._secured[device].setdefault(secured.key, {})
        if wanted:
            sent[cidr] = conversion
        else:
            sent.pop(cidr, None)
        if not sent:
            del self._secured[device][secured.key]
            self._wireguard_peers[device].pop(secured.key, None)
            return
        ends = min((c.secured.endpoint, c.secured.port) for c in sent.values() if c.secured is not None)
        allowed = frozenset(Allowed(*c.destination) for c in sent.values())
        self._wireguard_peers[device][secured.key] = WireguardPeer(secured.key, *ends, allowed)

    def _row(self, where: Destination) -> Row | None:
        keys = self._by_destination.get(where)
        return self._converted[min(keys)].row if keys else None

    def _tunnel(self, family: int) -> TunnelSpec | None:
        uplink = self.whereabouts.uplinks.get(family)
        if uplink is None or family not in self._lingering.vxlan:
            return None
        return tunnel.spec(
            self._node,
            uplink.network,
            uplink.device,
            self.whereabouts.underlay.of(family),
            self._configurations,
            self._own("vxlan"),
        )

    def _ipip(self) -> IpipSpec | None:
        uplink = self.whereabouts.uplinks.get(4)
        if uplink is None or not self._lingering.ipip:
            return None
        return ipip.spec(self._node, self.whereabouts.underlay.of(4), self._configurations, self._own("ipip"))

    def _wireguard(self, family: int) -> WireguardSpec | None:
        uplink = self.whereabouts.uplinks.get(family)
        if uplink is None or not wireguard.enabled(self._configurations, self._node, family):
            return None
        return wireguard.spec(
            self._node, family, self.whereabouts.underlay.of(family), self._configurations, self._own("wireguard")
        )

    def _own(self, kind: str) -> tuple[str, ...]:
        return self._vteps.get(kind, ())

    def _surround(self) -> Surroundings:
        addresses = {address for address, count in self._owners.items() if address and count}
        for node in self._nodes.values():
            addresses.update(_plain(a) for a in (node.address(4), node.address(6)) if a)
        addresses.update(self.whereabouts.said())
        own = {str(uplink.network.ip) for uplink in self.whereabouts.uplinks.values()}
        specs = (self._tunnel(family) for family in FAMILIES)
        names = (f"node.{self._node}", "default")
        secured = (self._wireguard(family) for family in FAMILIES)
        vteps = {address for addresses in self._vteps.values() for address in addresses}
        return Surroundings(
            pools=tuple(self.pools),
            node_addresses=tuple(sorted(filter(_is_address, addresses | own))),
            own_addresses=tuple(sorted(own | vteps)),
            tunnels=tuple(spec for spec in specs if spec is not None),
            ipip=self._ipip() is not None,
            wireguard_ports=tuple(spec.port for spec in secured if spec is not None),
            configurations=tuple((n, self._configurations[n]) for n in names if n in self._configurations),
        )


def _same_owner(one: Conversion, other: Conversion) -> bool:
    return (one.destination, one.node, one.owner) == (other.destination, other.node, other.owner)


def _plain(address: str) -> str:
    return address.partition("/")[0]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _store(table: dict[str, V], key: str, value: V | None) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
