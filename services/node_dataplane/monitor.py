"""Hears what others do to the node's network, so that it is mended at once and not only in the self-check's turn: a
filter over rtnetlink notifications, and the socket they arrive on.

    a route, a neighbour, a forwarding entry, a tunnel, a pod's link  -> Heard, which names it: mended by itself
    anything else that may concern us                                 -> Heard.concerns: the self-check reads back

The kernel says by whose request it acted, so that what we do ourselves is not taken for somebody else's doing. Where it
does not say so (links), the look finds nothing and has cost a few reads.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.node_dataplane.links import PREFIX
from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.framing import NLM_F_APPEND, Announcement
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.nft.link_groups import is_pods
from services.node_dataplane.routes import Destination
from services.node_dataplane.tunnel_devices import NAMES

_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400
"""Links, neighbours, IPv4 addresses and routes, IPv6 addresses and routes."""


@dataclass
class Heard:
    """What may have been broken, gathered over any number of notifications."""

    routes: dict[tuple[Destination, int], readback.Route | None] = field(default_factory=dict)
    """By destination and metric: a route of ours is gone (None), or somebody's was put in its place or before it."""
    entries: dict[tuple[int, bytes], bytes | None] = field(default_factory=dict)
    """Neighbours (address) and forwarding entries (MAC) by device, with what they now lead to; None: they are gone."""
    tunnels: set[str] = field(default_factory=set)
    fallen: set[str] = field(default_factory=set)
    """Pods' links that are down."""
    risen: set[str] = field(default_factory=set)
    """Other devices that were down, with which the kernel drops routes without a word."""
    concerns: bool = False
    """Something else: everything is to be looked at. An overrun is that, too."""

    @property
    def names_something(self) -> bool:
        return bool(self.routes or self.entries or self.tunnels or self.fallen or self.risen)


class Monitor:
    def __init__(self, own: Iterable[int] = ()) -> None:
        """`own`: the netlink ports from which we ask for changes ourselves."""
        self._own = frozenset(own)
        self._socket = NetlinkSocket(NETLINK_ROUTE, groups=_GROUPS)
        self._tunnels: dict[int, str] = {}
        self._down: set[int] = set()
        with NetlinkSocket(NETLINK_ROUTE) as reader:
            for _, body in reader.dump(rtnl.links_dump()):
                self._learn(readback.link(body))

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self, heard: Heard) -> None:
        """Add what has arrived."""
        try:
            for told in self._socket.announcements():
                self._hear(told, heard)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            heard.concerns = True

    def _hear(self, told: Announcement, heard: Heard) -> None:
        body = bytes(told.body)
        match told.type:
            case rtnl.RTM_DELROUTE | rtnl.RTM_NEWROUTE if told.port not in self._own:
                self._hear_route(told, readback.route(body), heard)
            case rtnl.RTM_DELNEIGH | rtnl.RTM_NEWNEIGH if told.port not in self._own:
                self._hear_neighbour(told.type, body, heard)
            case rtnl.RTM_NEWADDR | rtnl.RTM_DELADDR:
                heard.concerns = True
                device = readback.address(body).device
                if device in self._tunnels and told.port not in self._own:
                    heard.tunnels.add(self._tunnels[device])
            case rtnl.RTM_NEWLINK | rtnl.RTM_DELLINK if body[0] == rtnl.AF_UNSPEC:
                self._hear_link(told.type, readback.link(body), heard)

    @staticmethod
    def _hear_route(told: Announcement, row: readback.Route, heard: Heard) -> None:
        if row.table != rtnl.RT_TABLE_MAIN:
            return
        where = ((row.destination, row.prefix), row.metric)
        if told.type == rtnl.RTM_DELROUTE:
            if row.protocol == rtnl.PROTOCOL:
                heard.routes.setdefault(where, None)
        elif row.protocol != rtnl.PROTOCOL and not (len(row.destination) == 4 and told.flags & NLM_F_APPEND):
            # An IPv4 route that was appended is behind ours; one of IPv6 would share packets with it.
            heard.routes[where] = row

    def _hear_neighbour(self, type_: int, body: bytes, heard: Heard) -> None:
        row = readback.neighbour(body)
        bridge = body[0] == rtnl.AF_BRIDGE
        if row.device in self._tunnels:
            key, value = (row.mac, row.packed) if bridge else (row.packed, row.mac)
            heard.entries[row.device, key] = value if type_ == rtnl.RTM_NEWNEIGH else None
            heard.concerns = True  # Also what somebody added to a device of ours.
        elif type_ == rtnl.RTM_DELNEIGH and len(row.packed) == 16 and not bridge:
            heard.entries[row.device, row.packed] = None

    def _hear_link(self, type_: int, link: readback.Link, heard: Heard) -> None:
        was_down = link.device in self._down
        self._learn(link)
        if type_ == rtnl.RTM_DELLINK:
            self._down.discard(link.device)
            self._tunnels.pop(link.device, None)
        if link.name in NAMES:
            heard.tunnels.add(link.name)
        elif link.name.startswith(PREFIX):
            if type_ == rtnl.RTM_NEWLINK and not link.up:
                heard.fallen.add(link.name)
        elif was_down and link.up:
            heard.risen.add(link.name)
        # A pod's link announces every step of its making; only its end is of interest, and that it left its group.
        left = not is_pods(link.group)
        if type_ == rtnl.RTM_DELLINK or left or not link.name.startswith(PREFIX):
            heard.concerns = True

    def _learn(self, link: readback.Link) -> None:
        if link.name in NAMES:
            self._tunnels[link.device] = link.name
        if link.up:
            self._down.discard(link.device)
        else:
            self._down.add(link.device)
