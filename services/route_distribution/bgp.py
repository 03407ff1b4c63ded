"""Who speaks BGP with whom: one record for each node, and the members of the mesh.

    BGPConfiguration --- settings of each node ---+
    Node --- end (address, AS, cluster) ----------+--> Speaker of a node
    BGPPeer --- local and remote nodes -----------+
    BGPFilter, IPPool, routes (blocks) -----------+
    Service, EndpointSlice -- addresses by node --+
    Node, settings -------------------------------+--> MeshMember of a node

A change marks the nodes whose records it can matter to. For each BGPPeer it is known which nodes are local and which
are remote to it, so a node that changes marks itself and the other side of the BGPPeers that it is in; in the mesh it
changes its own MeshMember alone. What everybody's record holds (pools, `default`) marks everybody.

BGP is on while there is a BGPConfiguration `default` or a BGPPeer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha1
from ipaddress import ip_address, ip_network
from typing import Any, Literal

from bus_schemas.bgp import Filter, MeshMember, PoolExport, Session, Speaker, ordered
from bus_schemas.ids import NodeName
from bus_schemas.resources import BGPConfiguration, BGPFilter, BGPPeer, IPPool, Node
from bus_schemas.resources.bgp import BGPConfigurationSpec, BGPFilterSpec
from bus_schemas.routes import Route
from bus_schemas.subjects import DESIRED, Fact, Family
from services.route_distribution.bgp_peers import NodeEnd, Peering
from services.route_distribution.bgp_settings import DEFAULT, OF_NODE, NodeBgpSettings, readable, settings_of
from services.route_distribution.core import Withheld
from services.route_distribution.service_addresses import EVERY_NODE, ServiceAnnouncements, ranges_of
from services.route_distribution.service_addresses import READS as OF_SERVICES

NODE = DESIRED[Node]
POOL = DESIRED[IPPool]
CONFIGURATION = DESIRED[BGPConfiguration]
PEER = DESIRED[BGPPeer]
FILTER = DESIRED[BGPFilter]

READS: tuple[Family[Any], ...] = (NODE, POOL, CONFIGURATION, PEER, FILTER, *OF_SERVICES)

NO_SERVICES = "node.kubernetes.io/exclude-from-external-load-balancers"
"""A node with this label announces nothing of services."""


@dataclass(frozen=True)
class Changes:
    """What differs from the last flush. None: there is to be none any more."""

    speakers: dict[NodeName, Speaker | None] = field(default_factory=dict)
    members: dict[NodeName, MeshMember | None] = field(default_factory=dict)
    raised: tuple[Withheld, ...] = ()
    cleared: tuple[Withheld, ...] = ()


class BgpCore:
    def __init__(self) -> None:
        self._nodes: dict[NodeName, Node] = {}
        self._ends: dict[NodeName, NodeEnd] = {}
        self._configurations: dict[str, BGPConfigurationSpec] = {}
        self._pools: dict[str, PoolExport] = {}
        self._filters: dict[str, BGPFilterSpec] = {}
        self._peerings: dict[str, Peering] = {}
        self._local: defaultdict[str, set[NodeName]] = defaultdict(set)
        """By BGPPeer."""
        self._remote: defaultdict[str, set[NodeName]] = defaultdict(set)
        self._peers_of: defaultdict[NodeName, set[str]] = defaultdict(set)
        """The BGPPeers that a node is local or remote to."""
        self._blocks: defaultdict[NodeName, dict[str, bool]] = defaultdict(dict)
        """Destinations that lead to the node, and whether they are borrowed addresses."""
        self._owner: dict[str, NodeName] = {}
        self._services = ServiceAnnouncements()

        self._exports: tuple[PoolExport, ...] = ()
        self._settings: dict[str, NodeBgpSettings] = {}
        """By name of a node with a configuration of its own; empty: all others."""
        self._all_dirty = False
        self._dirty: set[NodeName] = set()
        self._speakers: dict[NodeName, Speaker] = {}
        self._members: dict[NodeName, MeshMember] = {}
        self._told: set[Withheld] = set()

    def apply(self, fact: Fact) -> None:
        """One key's current value or absence."""
        if fact.family == NODE:
            self._apply_node(NodeName(fact.key[1]), fact.value)
        elif fact.family == POOL:
            self._apply_pool(fact.key[1], fact.value)
        elif fact.family == CONFIGURATION:
            self._apply_configuration(fact.key[1], fact.value)
        elif fact.family == PEER:
            self._apply_peer(fact.key[1], fact.value)
        elif fact.family == FILTER:
            self._apply_filter(fact.key[1], fact.value)
        elif fact.family in OF_SERVICES:
            self._announce(self._services.apply(fact))

    def apply_route(self, cidr: str, route: Route | None) -> None:
        """A route that counts: how this service settled who has the block or the address."""
        before = self._owner.pop(cidr, None)
        if before is not None:
            del self._blocks[before][cidr]
            if not self._blocks[before]:
                del self._blocks[before]
            self._dirty.add(before)
        if route is not None:
            self._owner[cidr] = route.node
            self._blocks[route.node][cidr] = route.borrowed
            self._dirty.add(route.node)

    def flush(self) -> Changes:
        """The records that changed since the last flush."""
        if self._all_dirty:
            self._dirty.update(self._nodes, self._speakers, self._members)
            self._exports = tuple(self._pools[name] for name in sorted(self._pools, key=self._place))
        speakers: dict[NodeName, Speaker | None] = {}
        members: dict[NodeName, MeshMember | None] = {}
        for name in self._dirty:
            speaker = self.speaker(name)
            if speaker is not None and not _is_needed(speaker):
                speaker = None
            _note(self._speakers, speakers, name, speaker)
            _note(self._members, members, name, self._member(name))
        self._all_dirty = False
        self._dirty.clear()
        troubles = set(self._troubles())
        raised, cleared = troubles - self._told, self._told - troubles
        self._told = troubles
        return Changes(speakers, members, tuple(sorted(raised)), tuple(sorted(cleared)))

    def _troubles(self) -> Iterator[Withheld]:
        """A filter that does not exist refuses nothing, as in Calico; but that is said."""
        for peering in self._peerings.values():
            for name in peering.options.filters:
                if name not in self._filters:
                    what = (
                        f"BGPPeer {peering.name} names the BGPFilter {name}, which does not exist: it refuses nothing"
                    )
                    yield Withheld("missing", f"{peering.name}/{name}", what)

    def speaker(self, name: NodeName) -> Speaker | None:
        """The whole record of a node, even of one without sessions; None: BGP is off, or it has no address."""
        end = self._ends.get(name)
        if end is None or not self._is_on or not (end.address4 or end.address6):
            return None
        node, settings = self._nodes[name], self._settings_of(name)
        sessions = ordered(self._sessions(end))
        workloads = [self._peerings[peer].workloads() for peer in self._named(name) if self._has_workloads(peer, name)]
        filters = {one for session in sessions for one in session.options.filters}
        filters.update(one for workload in workloads for one in workload.options.filters)
        destinations = self._blocks.get(name, {})
        return Speaker(
            node=name,
            as_number=end.as_number,
            router_id=_router_id(end),
            address4=node.address(4),
            address6=node.address(6),
            cluster_id=end.cluster_id,
            listen_port=settings.listen_port,
            bind_node_address=settings.bind_node_address,
            log_level=settings.log_level,
            sessions=sessions,
            mesh=settings.mesh if self._meshed(end) else None,
            workloads=tuple(workloads),
            filters=tuple(Filter(name=one, rules=self._filters[one]) for one in sorted(filters & self._filters.keys())),
            blocks=_sorted(cidr for cidr, borrowed in destinations.items() if not borrowed),
            singles=_sorted(cidr for cidr, borrowed in destinations.items() if borrowed),
            services=() if NO_SERVICES in node.metadata.labels else (*settings.services, *self._singles_of(name)),
            pools=self._exports,
            advertisements=settings.advertisements,
            cluster_routes=settings.cluster_routes,
            priority4=settings.priority4,
            priority6=settings.priority6,
            ignored_interfaces=settings.ignored_interfaces,
            workload_address4=settings.workload_address4,
            workload_address6=settings.workload_address6,
        )

    # --- facts

    def _apply_node(self, name: NodeName, node: Node | None) -> None:
        known = self._nodes.pop(name, None)
        if node is not None:
            self._nodes[name] = node
        if (known and (known.metadata.labels, known.spec)) != (node and (node.metadata.labels, node.spec)):
            self._place_node(name)

    def _place_node(self, name: NodeName) -> None:
        """What others know of the node, and the BGPPeers that it is in."""
        node = self._nodes.get(name)
        before = self._ends.pop(name, None)
        if node is not None:
            self._ends[name] = self._end(node)
        changed = before != self._ends.get(name)
        for peering in self._peerings.values():
            self._place_in(peering, name, ends_changed=changed)
        self._dirty.add(name)

    def _place_in(self, peering: Peering, name: NodeName, *, ends_changed: bool) -> None:
        local, remote = self._local[peering.name], self._remote[peering.name]
        end, was_local, was_remote = self._ends.get(name), name in local, name in remote
        labels = self._nodes[name].metadata.labels if end is not None else {}
        is_local = end is not None and peering.is_local(name, labels)
        is_remote = end is not None and peering.is_remote(end, labels)
        if is_local != was_local or is_remote != was_remote:
            (local.add if is_local else local.discard)(name)
            (remote.add if is_remote else remote.discard)(name)
            ends_changed = True
        if is_local or is_remote:
            self._peers_of[name].add(peering.name)
        elif peering.name in self._peers_of[name]:
            self._peers_of[name].discard(peering.name)
        if ends_changed and (was_remote or is_remote):
            self._dirty |= local
        if ends_changed and (was_local or is_local):
            self._dirty |= remote

    def _end(self, node: Node) -> NodeEnd:
        bgp, settings = node.spec.bgp, self._settings_of(NodeName(node.metadata.name))
        return NodeEnd(
            name=NodeName(node.metadata.name),
            address4=node.address(4).partition("/")[0],
            address6=node.address(6).partition("/")[0],
            as_number=(bgp.as_number if bgp is not None else None) or settings.as_number,
            cluster_id=bgp.route_reflector_cluster_id if bgp is not None else "",
            port=settings.listen_port,
        )

    def _apply_configuration(self, name: str, configuration: BGPConfiguration | None) -> None:
        known = self._configurations.pop(name, None)
        if configuration is not None:
            self._configurations[name] = configuration.spec
        if known == self._configurations.get(name) or (name != DEFAULT and not name.startswith(OF_NODE)):
            return
        self._settings.clear()
        if name == DEFAULT:
            self._services.apply_ranges(ranges_of(self._configurations.get(DEFAULT)))
            for node in self._nodes:
                self._place_node(node)
            self._all_dirty = True
        elif (of := NodeName(name.removeprefix(OF_NODE))) in self._nodes:
            self._place_node(of)

    def _apply_peer(self, name: str, peer: BGPPeer | None) -> None:
        known = self._peerings.pop(name, None)
        if known is not None and peer is not None and known.peer.spec == peer.spec:
            self._peerings[name] = known
            return
        if (len(self._peerings) == 0) and DEFAULT not in self._configurations:
            self._all_dirty = True  # BGP goes on, or off
        self._dirty |= self._local.pop(name, set()) | self._remote.pop(name, set())
        if peer is None:
            for names in self._peers_of.values():
                names.discard(name)
            return
        peering = self._peerings[name] = Peering(peer)
        for node in self._nodes:
            self._place_in(peering, node, ends_changed=True)
        self._dirty |= self._local[name] | self._remote[name]

    def _apply_filter(self, name: str, found: BGPFilter | None) -> None:
        known = self._filters.pop(name, None)
        if found is not None:
            self._filters[name] = found.spec
        if known != self._filters.get(name):
            for peering in self._peerings.values():
                if name in peering.options.filters:
                    self._dirty |= self._local[peering.name] | self._remote[peering.name]

    def _apply_pool(self, name: str, pool: IPPool | None) -> None:
        known = self._pools.pop(name, None)
        export = None if pool is None else _export(pool)
        if export is not None:
            self._pools[name] = export
        self._all_dirty |= known != export

    def _announce(self, nodes: set[NodeName]) -> None:
        """Addresses of services came or went there."""
        self._all_dirty |= EVERY_NODE in nodes
        self._dirty |= nodes - {EVERY_NODE}

    # --- records

    def _singles_of(self, name: NodeName) -> tuple[str, ...]:
        return _sorted(iter(self._services.of(name)))

    @property
    def _is_on(self) -> bool:
        return DEFAULT in self._configurations or bool(self._peerings)

    def _settings_of(self, name: NodeName) -> NodeBgpSettings:
        own = self._configurations.get(OF_NODE + name)
        key = "" if own is None else name
        if key not in self._settings:
            self._settings[key] = settings_of(self._configurations.get(DEFAULT), own)
        return self._settings[key]

    def _meshed(self, end: NodeEnd) -> bool:
        settings = self._settings_of(end.name)
        return self._is_on and settings.mesh is not None and not end.cluster_id

    def _member(self, name: NodeName) -> MeshMember | None:
        end = self._ends.get(name)
        if end is None or not (end.address4 or end.address6) or not self._meshed(end):
            return None
        return MeshMember(
            node=name, as_number=end.as_number, address4=end.address4, address6=end.address6, port=end.port
        )

    def _named(self, name: NodeName) -> list[str]:
        return sorted(self._peers_of.get(name, ()))

    def _has_workloads(self, peer: str, name: NodeName) -> bool:
        return self._peerings[peer].of_workloads and name in self._local[peer]

    def _sessions(self, end: NodeEnd) -> Iterator[Session]:
        default_as = self._settings_of(end.name).as_number
        for name in self._named(end.name):
            peering, local, remote = self._peerings[name], self._local[name], self._remote[name]
            if peering.of_workloads:
                continue
            if end.name in local:
                yield from peering.forward(end, self._ends_of(remote), default_as)
            if end.name in remote and peering.reversed:
                both = local & remote if end.name in local and peering.is_by_selector else set()
                yield from peering.backward(end, self._ends_of(local - both))

    def _ends_of(self, names: set[NodeName]) -> Iterator[NodeEnd]:
        return (self._ends[name] for name in sorted(names))

    def _place(self, pool: str) -> tuple[int, bytes, str]:
        network = ip_network(self._pools[pool].cidr)
        return (network.version, network.network_address.packed, pool)


def _is_needed(speaker: Speaker) -> bool:
    return bool(speaker.sessions or speaker.workloads) or speaker.mesh is not None


def _note(
    known: dict[NodeName, Any], changed: dict[NodeName, Any], name: NodeName, value: Speaker | MeshMember | None
) -> None:
    if known.get(name) == value:
        return
    changed[name] = value
    if value is None:
        del known[name]
    else:
        known[name] = value


def _export(pool: IPPool) -> PoolExport | None:
    """None: it has no CIDR that can be read, which `core` tells."""
    network = readable(pool.spec.cidr)
    if network is None:
        return None
    encapsulation: Literal["none", "ipip", "vxlan"] = "none"
    if pool.spec.ipip_mode != "Never":
        encapsulation = "ipip"
    elif pool.spec.vxlan_mode != "Never":
        encapsulation = "vxlan"
    mode = pool.spec.ipip_mode if encapsulation == "ipip" else pool.spec.vxlan_mode
    return PoolExport(
        cidr=str(network), encapsulation=encapsulation, mode=mode, exported=not pool.spec.disable_bgp_export
    )


def _sorted(cidrs: Iterator[str]) -> tuple[str, ...]:
    found = sorted(
        (ip_network(cidr) for cidr in cidrs), key=lambda n: (n.version, n.network_address.packed, n.prefixlen)
    )
    return tuple(map(str, found))


def _router_id(end: NodeEnd) -> str:
    """The node's IPv4 address; of a node without one four bytes of its name's hash."""
    if end.address4:
        return end.address4
    digest = sha1(end.name.encode(), usedforsecurity=False).digest()
    return str(ip_address(bytes([digest[0] % 223 + 1, *digest[1:4]])))
