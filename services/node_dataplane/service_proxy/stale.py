"""Connections that no longer lead where their service does. Pure.

The kernel remembers a connection of UDP as long as packets come, and sends them where the first one went: to an
endpoint that is gone, or, when the service was not known yet, to nowhere. So its memory of them is taken away, as
kube-proxy does. TCP and SCTP end by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from bus_schemas.protocols import UDP
from services.node_dataplane.netlink.conntrack import Tracked
from services.node_dataplane.service_proxy.core import Frontend, Target
from services.node_dataplane.service_proxy.endpoints import Backend


def concerned(frontends: Iterable[Frontend]) -> frozenset[Frontend]:
    """Those whose connections can be stale."""
    return frozenset(frontend for frontend in frontends if frontend.protocol == UDP)


def stale(connections: Iterable[Tracked], targets: Mapping[Frontend, Target | None]) -> Iterator[Tracked]:
    """`targets`: of the frontends that changed, as they are in the kernel now."""
    for connection in connections:
        frontend = Frontend(connection.asked, connection.protocol, connection.asked_port)
        if connection.protocol == UDP and frontend in targets and not _leads(connection, targets[frontend]):
            yield connection


def _leads(connection: Tracked, target: Target | None) -> bool:
    there = Backend(connection.destination, connection.port)
    if target is None:
        return there == (connection.asked, connection.asked_port)  # It was never a service's.
    if target.closed or target.sources == ():
        return False
    return there in (target.pool.here if target.scope == "local" else target.pool.backends)
