"""The requests for one kernel route of ours, and the name by which it is taken away again. Pure.

A route is taken away by all that tells it from another one of the same destination: scope, device, gateway, metric and
our protocol. So nobody else's goes, and none that was just put beside it.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from services.node_dataplane.netlink import rtnl
from services.node_dataplane.netlink.framing import NLM_F_ACK
from services.node_dataplane.routes import Destination

IPV6_METRIC = 1024
"""What the kernel gives an IPv6 route that asks for none."""


class Held(NamedTuple):
    """A route as the kernel has it. No device: a blackhole. `metric` 0: the kernel's own."""

    device: int
    gateway: bytes | None
    onlink: bool
    metric: int

    def ahead(self) -> Held:
        """The same with the next better metric, for IPv6."""
        return self._replace(metric=(self.metric or IPV6_METRIC) - 1)


def is_ipv6(destination: Destination) -> bool:
    return len(destination[0]) == 16


def put(destination: Destination, row: Held, presence: rtnl.Presence) -> bytes:
    """Not acknowledged."""
    packed, prefix = destination
    if len(packed) == 4 and prefix and row.device and row.gateway is not None and not row.metric:
        return rtnl.route_via(packed, prefix, row.device, row.gateway, onlink=row.onlink, presence=presence)
    return rtnl.route(
        *destination,
        index=row.device,
        gateway=row.gateway,
        onlink=row.onlink,
        blackhole=not row.device,
        metric=row.metric,
        presence=presence,
        acknowledge=False,
    )


def delete(destination: Destination, row: Held) -> bytes:
    """Not acknowledged. IPv4 routes that differ in `onlink` alone have one name."""
    return rtnl.route_delete(
        *destination,
        index=row.device,
        gateway=row.gateway,
        blackhole=not row.device,
        metric=row.metric or (IPV6_METRIC if is_ipv6(destination) else 0),
        exact=True,
        acknowledge=False,
    )


def acknowledged(request: bytes) -> bytes:
    flags = int.from_bytes(request[6:8], sys.byteorder) | NLM_F_ACK
    return request[:6] + flags.to_bytes(2, sys.byteorder) + request[8:]
