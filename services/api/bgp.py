"""What nodes say of their BGP sessions, as JSON values."""

from __future__ import annotations

from typing import Any

from bus_schemas.resources import Node
from bus_schemas.sessions import Sessions, SessionState
from services.api.core import Core

Json = dict[str, Any]


def known(core: Core, node: str) -> bool:
    return node in core.sessions or core.resource(Node, ("", node)) is not None


def bgp_of(core: Core, node: str) -> Json:
    """One node's. `running` null: nothing is heard of a BIRD there."""
    said = core.sessions.get(node)
    alive = any(status.node == node for status in core.statuses.values())
    if said is None:
        return {"node": node, "agent": alive, "running": None, "sessions": []}
    return {"node": node, "agent": alive, **_told(said)}


def bgp(core: Core) -> list[Json]:
    """Every node's, by name."""
    nodes = {stored.resource.metadata.name for stored in core.resources(Node)} | core.sessions.keys()
    return [bgp_of(core, node) for node in sorted(nodes)]


def _told(said: Sessions) -> Json:
    return {
        "running": said.running,
        "version": said.version,
        "since": said.since,
        "fault": said.fault,
        "sessions": [_session(session) for session in said.sessions],
    }


def _session(session: SessionState) -> Json:
    return {
        "peer": session.neighbour,
        "port": session.port or 179,
        "asNumber": session.remote_as,
        "family": session.family,
        "type": session.origin.value,
        "state": session.state,
        "since": session.since,
        "established": session.established,
        "info": session.info,
        "imported": session.imported,
        "exported": session.exported,
    }
