"""Things that happened, for people and programs that subscribe. Never state: nobody's correctness depends on one.

`happenings` lists every event there is. Severity and advice are filled in from there when an event is sent, so that
whoever reads one message needs no table beside it.
"""

from __future__ import annotations

from typing import Literal

from bus_schemas.codec import Message
from bus_schemas.ids import NodeName

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")
"""The harmless first."""


class Event(Message, tag="event/1", frozen=True, kw_only=True):
    time: float
    """When it happened: Unix time in seconds."""
    domain: str
    """What it is about: `ipam`, `pod`, `policy`, `route`, `bgp`, `node`, `kube`."""
    what: str
    """Past tense, snake case: `repaired`, `assigned`, `exhausted` ... Domain and what together name the event."""
    severity: Severity = "info"
    """`info` is for the record, `warning` wants to be looked at, `error`: something does not work now."""
    node: NodeName | None = None
    """The node where it happened; None: to the cluster."""
    object: str = ""
    """What it happened to: a pod `ns/name`, a policy `Kind/ns/name`, a route's CIDR, a table ... Empty: several things,
    and `detail.count` says how many."""
    message: str
    """One sentence for a person."""
    advice: str = ""
    """What a person can do about it; empty: nothing needs to be done."""
    detail: dict[str, str] = {}
    """The same for programs; which keys an event has is in its entry here. `count`: how many times it happened, or to
    how many things, where one message stands for several."""
