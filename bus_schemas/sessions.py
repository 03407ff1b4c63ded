"""How a node's BGP sessions stand, as its BIRD says. The message has a time to live: silence is no sign of health."""

from __future__ import annotations

import msgspec

from bus_schemas.bgp import Origin
from bus_schemas.codec import Message
from bus_schemas.ids import NodeName

SESSIONS_INTERVAL_S = 20.0
SESSIONS_TTL_S = 60.0


class SessionState(msgspec.Struct, frozen=True, kw_only=True):
    protocol: str
    """Its name in BIRD."""
    neighbour: str
    port: int = 0
    """0: 179."""
    remote_as: int = 0
    origin: Origin
    state: str
    """BIRD's word for the protocol: `up`, `start`, `down` ..."""
    since: float = 0.0
    """Unix time in seconds at which it came into that state; 0: not known."""
    established: bool = False
    info: str = ""
    """`Established`, or the state of the BGP machine and the last error."""
    imported: int = 0
    """Routes that came by it."""
    exported: int = 0
    """Routes that went by it."""

    @property
    def family(self) -> int:
        return 6 if ":" in self.neighbour else 4


class Sessions(Message, tag="sessions/1", frozen=True, kw_only=True):
    """No message: nothing is heard of the node's BGP, which it may not have."""

    node: NodeName
    running: bool
    """BIRD answers."""
    version: str = ""
    since: float = 0.0
    """Unix time in seconds at which this life of BIRD began; 0: not known."""
    fault: str = ""
    """What is wrong with BIRD or with its configuration; empty: nothing."""
    sessions: tuple[SessionState, ...] = ()
