"""Routes that changed on the bus, as events. Pure.

It is told what was written, over what: a route that a restarted replica derives again is no news, one that somebody had
deleted and that is written again is.
"""

from __future__ import annotations

from bus_schemas.events import Event
from bus_schemas.routes import Encapsulation, Route, Tunnel


def changed(cidr: str, before: Route | None, after: Route | None, time: float) -> Event | None:
    """One route, written over another or none; None: whoever reads it does as before. `time`: Unix time in seconds."""
    if before == after:
        return None
    route = after or before
    assert route is not None
    change = "added" if before is None else "removed" if after is None else "changed"
    detail = {"change": change, "node": route.node, "tunnel": route.tunnel.value}
    if before is not None and after is not None and before.node != after.node:
        detail["before"] = before.node
    match change:
        case "added":
            message = f"{cidr} leads to {route.node} now, {_way(route)}."
        case "removed":
            message = f"{cidr} leads nowhere any more; it led to {route.node}."
        case _ if "before" in detail:
            message = f"{cidr} leads to {route.node} now, {_way(route)}; it led to {detail['before']}."
        case _:
            message = f"{cidr} leads to {route.node} as before, but {_way(route)} now."
    return Event(time=time, domain="route", what="changed", object=cidr, message=message, detail=detail)


def _way(route: Route) -> str:
    by = f"by {route.address.partition('/')[0]}" if route.address else "whose address is not known yet"
    if route.wireguard is not None:
        by += ", encrypted between nodes that can"
    if route.tunnel is Tunnel.NONE or route.encapsulation is Encapsulation.NEVER:
        return by
    where = " across subnets" if route.encapsulation is Encapsulation.CROSS_SUBNET else ""
    return f"{by}, through {route.tunnel.value}{where}"
