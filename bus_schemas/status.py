"""Who is alive, and who leads. Messages with a time to live: silence is death."""

from __future__ import annotations

from bus_schemas.codec import Message
from bus_schemas.ids import NodeName

STATUS_INTERVAL_S = 5.0
STATUS_TTL_S = 20.0

MODE, POLICY_ONLY = "mode", "policy only"
"""In the `detail` of an agent that has nothing but policy."""


class Status(Message, tag="status/1", frozen=True, kw_only=True):
    component: str
    instance: str
    """The replica, or the node's name for an agent."""
    node: NodeName | None = None
    version: str = ""
    started: float
    """Unix time in seconds."""
    ready: bool
    causes: tuple[str, ...] = ()
    """Why it is not ready, or what it had to set aside, one sentence each."""
    detail: dict[str, str] = {}


class Lease(Message, tag="lease/1", frozen=True, kw_only=True):
    """Who writes for a service with several replicas. Held by compare-and-swap on the key's sequence."""

    service: str
    holder: str
    until: float
    """Unix time in seconds; the message's own time to live ends then too."""
