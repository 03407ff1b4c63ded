"""What a node found out about itself and why, for people: its addresses, its MTU, the checksums of its tunnels.

Nothing is decided by it. The message has a time to live; the same is kept on the node as a file (`tortie node explain`
reads it there without the bus or the api).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from bus_schemas.codec import Message
from bus_schemas.ids import NodeName

FACTS_INTERVAL_S = 20.0
FACTS_TTL_S = 60.0
FACTS_FILE = "node-facts.json"
"""In the agent's state directory: a NodeFacts as JSON."""

Verdict = Literal["chosen", "possible", "skipped"]


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class CandidateFact(_Part, frozen=True, kw_only=True):
    device: str
    address: str = ""
    """With its subnet; empty: the device has none of the family."""
    verdict: Verdict
    reason: str


class AddressFact(_Part, frozen=True, kw_only=True):
    family: int
    address: str = ""
    """In force, with its subnet; empty: none."""
    device: str = ""
    mtu: int = 0
    """Of the device."""
    since: float = 0.0
    """Unix time in seconds."""
    method: str
    """In the words of the settings."""
    source: str
    """Who said so."""
    problem: str = ""
    candidates: tuple[CandidateFact, ...] = ()


class MtuTerm(_Part, frozen=True, kw_only=True):
    """One way that a pod's packet may take."""

    what: str
    mtu: int
    how: str
    """The arithmetic, or who said it."""


class MtuFact(_Part, frozen=True, kw_only=True):
    pods: int
    """Of pods that start now."""
    uplink: str = ""
    """Where the uplink's MTU comes from."""
    terms: tuple[MtuTerm, ...] = ()
    problems: tuple[str, ...] = ()
    cni: int = 0
    """What the CNI configuration of the last pod asked for in its place; 0: nothing."""


class OffloadFact(_Part, frozen=True, kw_only=True):
    """Transmit checksum offload of one tunnel device."""

    device: str
    on: bool | None
    """As read back from the kernel; None: it could not be read."""
    wanted: bool
    reason: str
    evidence: Literal["set", "measured", "presumed"]
    """`set`: by the operator. `measured`: tried out on this machine. `presumed`: by kernel's and driver's names."""
    check: str = ""
    """What the trial on this machine showed, or why there was none."""


class NodeFacts(Message, tag="nodefacts/1", frozen=True, kw_only=True, rename="camel"):
    node: NodeName
    time: float
    """Unix time in seconds at which this became so."""
    addresses: tuple[AddressFact, ...] = ()
    mtu: MtuFact
    offload: tuple[OffloadFact, ...] = ()
    configured: dict[str, str] = {}
    """What settings and resources say about it."""
