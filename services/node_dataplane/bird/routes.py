"""Whether the kernel holds routes of a BIRD: then a new one waits for its peers' word before it takes any away."""

from __future__ import annotations

from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NetlinkSocket

PROTOCOL = 12
"""RTPROT_BIRD of linux/rtnetlink.h."""


def left_by_bird(socket: NetlinkSocket) -> bool:
    """Raises OSError."""
    return any(
        readback.route(body).protocol == PROTOCOL
        for family in (rtnl.AF_INET, rtnl.AF_INET6)
        for _, body in socket.dump(rtnl.routes_dump(family, PROTOCOL))
    )
