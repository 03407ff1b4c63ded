"""The sessions that a BGPPeer gives a node.

    BGPPeer: local side (node, nodeSelector, all) x remote side (peerIP | peerSelector | the node's pods)

A session with a node of ours needs both ends to know of it. Where only one end is local to the BGPPeer, the other gets
it in reverse, unless `reversePeering` is Manual.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from ipaddress import ip_address

import msgspec

from bus_schemas import selectors
from bus_schemas.bgp import DEFAULT_AS, Origin, Session, SessionOptions, Workloads
from bus_schemas.ids import NodeName
from bus_schemas.resources import BGPPeer
from services.route_distribution.bgp_settings import secret, whole_seconds

_FAMILIES = (4, 6)
_NEXT_HOPS = {"Auto": "auto", "Self": "self", "Keep": "keep", None: "auto"}


class NodeEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What other nodes' sessions depend on in a node."""

    name: NodeName
    address4: str = ""
    """Plain."""
    address6: str = ""
    as_number: int = DEFAULT_AS
    cluster_id: str = ""
    port: int = 0
    """Where it listens; 0: 179."""

    def address(self, family: int) -> str:
        return self.address4 if family == 4 else self.address6


class Peering:
    """A BGPPeer, read once."""

    def __init__(self, peer: BGPPeer) -> None:
        spec = peer.spec
        self.peer = peer
        self.name = peer.metadata.name
        self.address, self.port = _plain(*spec.endpoint)
        self.reversed = spec.reverse_peering != "Manual"
        self.origin = Origin.NODE if spec.node or spec.node_selector else Origin.GLOBAL
        self._local = _selector(spec.node_selector) if spec.node_selector else None
        self._remote = _selector(spec.peer_selector) if spec.peer_selector else None
        self.options = SessionOptions(
            local_as=spec.local_as_number or 0,
            source=spec.source_address != "None",
            ttl_security=spec.ttl_security or 0,
            next_hop="keep" if spec.keep_original_next_hop else _NEXT_HOPS[spec.next_hop_mode],  # type: ignore[arg-type]
            password=secret(spec.password),
            keepalive_s=whole_seconds(spec.keepalive_time),
            restart_s=whole_seconds(spec.max_restart_time),
            allowed_own_as=spec.num_allowed_local_as_numbers or 0,
            filters=spec.filters,
        )

    @property
    def of_workloads(self) -> bool:
        return bool(self.peer.spec.local_workload_selector)

    def is_local(self, node: NodeName, labels: dict[str, str]) -> bool:
        """The node has the sessions."""
        spec = self.peer.spec
        if spec.node:
            return spec.node == node
        return self._local is None or self._local.matches(labels)

    def is_remote(self, end: NodeEnd, labels: dict[str, str]) -> bool:
        """The node is whom the sessions are with."""
        if self.of_workloads:
            return False
        if self._remote is not None:
            return self._remote.matches(labels)
        return bool(self.address) and self.address in (end.address4, end.address6)

    def forward(self, own: NodeEnd, ends: Iterable[NodeEnd], default_as: int) -> Iterator[Session]:
        """The sessions of a local node. `ends`: the nodes that are remote."""
        if self._remote is not None:
            for end in ends:
                yield from self._with(own, end, self.origin)
        elif self.address:
            yield from self._addressed(own, next(iter(ends), None), default_as)

    def backward(self, own: NodeEnd, ends: Iterable[NodeEnd]) -> Iterator[Session]:
        """The sessions of a remote node with the local nodes that it does not have them with itself."""
        for end in ends:
            yield from self._with(own, end, Origin.NODE)

    def workloads(self) -> Workloads:
        spec = self.peer.spec
        return Workloads(
            peer=self.name,
            selector=spec.local_workload_selector,
            remote_as=spec.as_number or DEFAULT_AS,
            options=self.options,
        )

    def _with(self, own: NodeEnd, end: NodeEnd, origin: Origin) -> Iterator[Session]:
        for family in _FAMILIES:
            ours, theirs = own.address(family), end.address(family)
            only = self.address and (":" in self.address) != (family == 6)
            if end.name != own.name and ours and theirs and ours != theirs and not only:
                yield Session(
                    neighbour=theirs,
                    remote_as=end.as_number,
                    origin=origin,
                    port=end.port,
                    peer=self.name,
                    rr_client=self._reflects(own, end.as_number, end.cluster_id),
                    options=self.options,
                )

    def _addressed(self, own: NodeEnd, end: NodeEnd | None, default_as: int) -> Iterator[Session]:
        """With the address that is given, which may be a node's (`end`)."""
        ours = own.address(6 if ":" in self.address else 4)
        if not ours or ours == self.address:
            return
        spec = self.peer.spec
        remote_as = spec.as_number or (default_as if end is None else end.as_number)
        yield Session(
            neighbour=self.address,
            remote_as=remote_as,
            origin=self.origin,
            port=self.port or (0 if end is None else end.port),
            peer=self.name,
            # two nodes for which one BGPPeer stands have one connection
            passive=end is not None and self.origin is Origin.GLOBAL and _higher(self.address, ours),
            rr_client=self._reflects(own, remote_as, "" if end is None else end.cluster_id),
            via=spec.reachable_by,
            options=self.options,
        )

    def _reflects(self, own: NodeEnd, remote_as: int, cluster_id: str) -> bool:
        """RFC 4456: to everybody in the AS but to reflectors of the same cluster."""
        local_as = self.options.local_as or own.as_number
        return bool(own.cluster_id) and remote_as == local_as and cluster_id != own.cluster_id

    @cached_property
    def is_by_selector(self) -> bool:
        return self._remote is not None


def _higher(theirs: str, ours: str) -> bool:
    return ip_address(theirs).packed > ip_address(ours).packed


def _plain(address: str, port: int) -> tuple[str, int]:
    """In the spelling of nodes' addresses; nothing of one that cannot be read, nor of one of a link: it does not say
    which, and BIRD refuses the whole configuration for it."""
    try:
        found = ip_address(address)
    except ValueError:
        return "", 0
    return ("", 0) if found.version == 6 and found.is_link_local else (str(found), port)


def _selector(text: str) -> selectors.Selector:
    """One that cannot be read selects nothing: it was refused at the door, and came by another."""
    try:
        return selectors.parse(text)
    except selectors.SelectorError:
        return selectors.negated(selectors.parse("all()"))
