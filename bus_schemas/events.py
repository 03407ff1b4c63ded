"""Things that happened, for people and programs that subscribe. Never state: nobody's correctness depends on one."""

from __future__ import annotations

from bus_schemas.codec import Message
from bus_schemas.ids import NodeName


class Event(Message, tag="event/1", frozen=True, kw_only=True):
    time: float
    """Unix time in seconds."""
    domain: str
    """`ipam`, `route`, `bgp`, `policy`, `node`, `bus`, `kube`."""
    what: str
    """Past tense, snake case: `repaired`, `assigned`, `exhausted` ..."""
    node: NodeName | None = None
    object: str = ""
    """What it happened to: a pod `ns/name`, a route's CIDR, a table ..."""
    message: str
    """One sentence for a person."""
    detail: dict[str, str] = {}
