"""What the other mode left on the node: links, tunnels and routes that nobody tends any more."""

from __future__ import annotations

from services.node_dataplane.links import NAME
from services.node_dataplane.netlink import readback, rtnl
from services.node_dataplane.netlink.wire import NetlinkSocket
from services.node_dataplane.tunnel_devices import NAMES

FEW = 5


def of_other_mode(socket: NetlinkSocket) -> str:
    """One sentence; empty: nothing. Raises NetlinkError."""
    links = [readback.link(body).name for _, body in socket.dump(rtnl.links_dump())]
    found = sorted(name for name in links if NAME.fullmatch(name) or name in NAMES)
    routes = sum(len(socket.dump(rtnl.routes_dump(family))) for family in (rtnl.AF_INET, rtnl.AF_INET6))
    parts = (
        [", ".join(found[:FEW]) + (f" and {len(found) - FEW} more links" if len(found) > FEW else "")] if found else []
    )
    parts += [f"{routes} routes"] if routes else []
    if not parts:
        return ""
    return f"{' and '.join(parts)} of the agent that made pods' links: stop those pods, then `tortie node cleanup`"
