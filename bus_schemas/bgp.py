"""What a node's BGP speaker (BIRD) is to do: one record for each node that speaks BGP, and who is in the mesh.

    bgp.<node>         Speaker      everything about this node; only its own agent follows it
    bgp.mesh.<node>    MeshMember   a node that every other member has a session with; all agents follow all of them

The full mesh is what would make records large and every change of a node a change of all records. So it is told
once, one small message a node, as routes are; each agent joins it to its own record (`with_mesh`). What differs from
one end of a session to the other (who calls whom) is a function of the two members.

No password travels, only where it is (`Secret`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal

import msgspec
from msgspec.structs import replace

from bus_schemas.codec import Message
from bus_schemas.ids import NodeName
from bus_schemas.resources.bgp import BGPFilterSpec, ClusterRoutes

BGP_PORT = 179
DEFAULT_AS = 64512
NORMAL_PRIORITY = 1024
"""Metric of a pod's route unless a BGPConfiguration says otherwise; a lower one is preferred to other nodes' routes."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Origin(StrEnum):
    """Why there is a session; `tortie node status` prints it."""

    MESH = "mesh"
    GLOBAL = "global"
    """A BGPPeer for every node."""
    NODE = "node"
    """A BGPPeer for certain nodes."""
    LOCAL = "local"
    """A BGPPeer for pods of the node."""


class Secret(_Part, frozen=True, kw_only=True):
    name: str
    key: str


class SessionOptions(_Part, frozen=True, kw_only=True):
    """What the sessions of one BGPPeer (or of the mesh) have in common."""

    local_as: int = 0
    """0: the speaker's own."""
    source: bool = True
    """Connect from the node's own address of the session's family."""
    ttl_security: int = 0
    """Hops to the peer at most (RFC 5082); 0: multihop without that check."""
    next_hop: Literal["auto", "self", "keep"] = "auto"
    password: Secret | None = None
    keepalive_s: int = 0
    """0: BIRD's default."""
    restart_s: int = 0
    """How long the peer keeps our routes while we restart; 0: BIRD's default (120 s)."""
    allowed_own_as: int = 0
    """How often our own AS number may be in a received path."""
    filters: tuple[str, ...] = ()
    """Names of `Speaker.filters`, asked in this order, before our own."""


class Session(_Part, frozen=True, kw_only=True):
    neighbour: str
    """Plain address; its family is the session's."""
    remote_as: int
    origin: Origin
    port: int = 0
    """0: 179."""
    peer: str = ""
    """Name of the BGPPeer; of the mesh: the node."""
    passive: bool = False
    """Wait for the neighbour to connect: both ends know from the addresses which of them calls."""
    rr_client: bool = False
    """Reflect to it: the speaker is a route reflector and the neighbour is not one of its cluster."""
    via: str = ""
    """Gateway by which the neighbour is reached (`reachableBy`)."""
    options: SessionOptions = SessionOptions()

    @property
    def family(self) -> int:
        return 6 if ":" in self.neighbour else 4


class Workloads(_Part, frozen=True, kw_only=True):
    """Sessions with the node's own pods: the agent makes one for each address of a pod that the selector matches."""

    peer: str
    selector: str
    remote_as: int
    options: SessionOptions = SessionOptions()


class PoolExport(_Part, frozen=True, kw_only=True):
    """What the filters need to know of an address pool."""

    cidr: str
    encapsulation: Literal["none", "ipip", "vxlan"] = "none"
    mode: Literal["Always", "CrossSubnet", "Never"] = "Never"
    """When packets travel in the tunnel."""
    exported: bool = True
    """False: disableBGPExport."""


class Advertisement(_Part, frozen=True, kw_only=True):
    """Routes inside the CIDR carry these communities."""

    cidr: str
    communities: tuple[str, ...]
    """Values, `64512:100` or `64512:1:100`."""


class Filter(_Part, frozen=True, kw_only=True):
    name: str
    """Of the BGPFilter."""
    rules: BGPFilterSpec


class Mesh(_Part, frozen=True, kw_only=True):
    """The speaker is in the mesh."""

    options: SessionOptions = SessionOptions()


class Speaker(Message, tag="bgp/1", frozen=True, kw_only=True):
    """No message: the node needs no BGP."""

    node: NodeName
    as_number: int
    router_id: str
    """IPv4-shaped."""
    address4: str = ""
    """With the prefix length of the subnet; empty: the node has none, and no sessions of that family."""
    address6: str = ""
    cluster_id: str = ""
    """The speaker is a route reflector (RFC 4456)."""
    listen_port: int = 0
    """0: 179."""
    bind_node_address: bool = False
    """Listen on the node's addresses only."""
    log_level: str = "Info"
    """Calico's logSeverityScreen: None, Trace, Debug, Info, Warning, Error or Fatal."""
    sessions: tuple[Session, ...] = ()
    """By address, without those of the mesh."""
    mesh: Mesh | None = None
    workloads: tuple[Workloads, ...] = ()
    filters: tuple[Filter, ...] = ()
    """Those that sessions name, by name."""
    blocks: tuple[str, ...] = ()
    """The node's own blocks: announced whole, and nothing inside them."""
    singles: tuple[str, ...] = ()
    """Addresses that the node has borrowed from others' blocks (/32, /128)."""
    services: tuple[str, ...] = ()
    """Ranges of services that every node announces."""
    pools: tuple[PoolExport, ...] = ()
    advertisements: tuple[Advertisement, ...] = ()
    """The narrower ones first."""
    cluster_routes: ClusterRoutes = "EnabledNoEncapOnly"
    priority4: int = NORMAL_PRIORITY
    priority6: int = NORMAL_PRIORITY
    ignored_interfaces: tuple[str, ...] = ()
    workload_address4: str = ""
    """The node's end of the sessions with its own pods (localWorkloadPeeringIPV4); empty: not told."""
    workload_address6: str = ""

    def address(self, family: int) -> str:
        """Plain; empty where the node has none."""
        return (self.address4 if family == 4 else self.address6).partition("/")[0]

    def local_as(self, options: SessionOptions) -> int:
        return options.local_as or self.as_number


class MeshMember(Message, tag="bgp_mesh/1", frozen=True, kw_only=True):
    """A node that takes part in the full mesh. No message: there is no mesh, or the node is a route reflector."""

    node: NodeName
    as_number: int
    address4: str = ""
    """Plain addresses."""
    address6: str = ""
    port: int = 0
    """Where it listens; 0: 179."""


def with_mesh(speaker: Speaker, members: Iterable[MeshMember]) -> Speaker:
    """The whole record: with one session for each other member of the mesh and family that both have."""
    if speaker.mesh is None:
        return speaker
    options = speaker.mesh.options
    joined = [
        Session(
            neighbour=theirs,
            remote_as=member.as_number,
            origin=Origin.MESH,
            port=member.port,
            peer=member.node,
            passive=waits(ours, theirs),
            options=options,
        )
        for member in members
        if member.node != speaker.node
        for ours, theirs in (
            (speaker.address(4), member.address4),
            (speaker.address(6), member.address6),
        )
        if ours and theirs and ours != theirs
    ]
    return replace(speaker, sessions=ordered([*speaker.sessions, *joined]))


def with_workloads(speaker: Speaker, peered: Iterable[tuple[str, str]]) -> Speaker:
    """The record with a session for each (BGPPeer, address of a pod of the node that its selector matches). The pod
    calls."""
    workloads = {one.peer: one for one in speaker.workloads}
    joined = [
        Session(
            neighbour=address,
            remote_as=workloads[peer].remote_as,
            origin=Origin.LOCAL,
            peer=peer,
            passive=True,
            options=replace(workloads[peer].options, source=False),
        )
        for peer, address in peered
        if peer in workloads
    ]
    return replace(speaker, sessions=ordered([*speaker.sessions, *joined]))


def waits(ours: str, theirs: str) -> bool:
    """Two nodes of ours have one connection: the one with the lower address waits to be called."""
    return _packed(ours) < _packed(theirs)


def ordered(sessions: Iterable[Session]) -> tuple[Session, ...]:
    """One session for each neighbour and port, by family and address. A peer that somebody asked for goes before
    the mesh, one for certain nodes before one for all."""
    rank = {Origin.NODE: 0, Origin.GLOBAL: 1, Origin.LOCAL: 2, Origin.MESH: 3}
    chosen: dict[tuple[int, bytes, int], Session] = {}
    for session in sorted(sessions, key=lambda s: (rank[s.origin], s.peer)):
        key = (session.family, _packed(session.neighbour), session.port or BGP_PORT)
        chosen.setdefault(key, session)
    return tuple(chosen[key] for key in sorted(chosen))


@lru_cache(maxsize=1 << 15)
def _packed(address: str) -> bytes:
    """A reflector's or a mesh's sessions are put in order again for every change of one of them."""
    return ip_address(address).packed
