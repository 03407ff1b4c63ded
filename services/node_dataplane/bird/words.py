"""What the node says of its BGP sessions to people: health, events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bus_schemas.bgp import Origin
from bus_schemas.sessions import SessionState

TYPES: Mapping[Origin, str] = {
    Origin.MESH: "node-to-node mesh",
    Origin.NODE: "node specific",
    Origin.GLOBAL: "global",
    Origin.LOCAL: "pod of this node",
}
MOST = 5
"""Peers that a sentence names."""


class Told(NamedTuple):
    """An event."""

    what: str
    object: str
    message: str
    detail: dict[str, str]


def changes(before: Sequence[SessionState], after: Sequence[SessionState]) -> list[Told]:
    """Sessions that were established or lost from one look to the next. One that was lost and came back between
    the two is told as both. Sessions that are not wanted any more are not lost."""
    known = {session.protocol: session for session in before}
    told = []
    for session in after:
        was = known.get(session.protocol)
        up = was is not None and was.established
        again = up and session.established and was is not None and session.since > was.since + 1
        if up and (again or not session.established):
            told.append(
                _told("lost", session, f"is lost: {session.info or session.state}" if not again else "was lost")
            )
        if session.established and (again or not up):
            told.append(_told("established", session, "is established"))
    return told


def _told(what: str, session: SessionState, became: str) -> Told:
    kind = TYPES[session.origin]
    message = f"The BGP session with {session.neighbour} (AS {session.remote_as}, {kind}) {became}."
    return Told(what, session.neighbour, message, {"type": kind, "remote_as": str(session.remote_as)})


def trouble(sessions: Iterable[SessionState]) -> str:
    """One sentence about the sessions that are not established; empty: all are."""
    down = [s for s in sessions if not s.established]
    named = [f"{s.neighbour} ({TYPES[s.origin]}): {s.info or s.state}" for s in down[:MOST]]
    more = [f"and {len(down) - MOST} more"] if len(down) > MOST else []
    return "not established: " + "; ".join([*named, *more]) if down else ""
