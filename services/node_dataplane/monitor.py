"""Hears what others do to the node's network, so that the self-check looks at once and not only in its turn: a filter
over rtnetlink notifications, and the socket they arrive on.

What we delete ourselves is heard, too; the check then finds nothing and has cost a few reads.
"""

from __future__ import annotations

import errno

from services.node_dataplane.links import PREFIX
from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NETLINK_ROUTE, NetlinkSocket
from services.node_dataplane.nft.link_groups import is_pods
from services.node_dataplane.tunnel_devices import NAMES

_GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400
"""Links, neighbours, IPv4 addresses and routes, IPv6 addresses and routes."""


class Monitor:
    def __init__(self) -> None:
        self._socket = NetlinkSocket(NETLINK_ROUTE, groups=_GROUPS)
        self._tunnels: set[int] = set()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> bool:
        """Read what has arrived; whether any of it may concern what is ours. An overrun may."""
        concerns = False
        try:
            for type_, body in self._socket.notifications():
                concerns = self._concerns(type_, bytes(body)) or concerns
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return True
        return concerns

    def _concerns(self, type_: int, body: bytes) -> bool:
        if type_ == rtnl.RTM_DELROUTE:
            return readback.route(body).protocol == rtnl.PROTOCOL
        if type_ == rtnl.RTM_DELNEIGH:
            return readback.neighbour(body).device in self._tunnels
        if type_ in (rtnl.RTM_NEWADDR, rtnl.RTM_DELADDR):
            return True
        if type_ in (rtnl.RTM_NEWLINK, rtnl.RTM_DELLINK) and body[0] == rtnl.AF_UNSPEC:
            link = readback.link(body)
            if link.name in NAMES:
                self._tunnels.add(link.device)
                return True
            # A pod's link announces every step of its making; only its end is of interest, and that it left its group.
            left = not is_pods(link.group)
            return type_ == rtnl.RTM_DELLINK or left or not link.name.startswith(PREFIX)
        return False
