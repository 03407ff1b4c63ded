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
    """A network device's name."""
    address: str = ""
    """With its subnet; empty: the device has none of the family."""
    verdict: Verdict
    """`chosen`, `possible` (another went before it) or `skipped`."""
    reason: str


class AddressFact(_Part, frozen=True, kw_only=True):
    family: int
    """4 or 6."""
    address: str = ""
    """In force, with its subnet; empty: none."""
    device: str = ""
    """Whose address it is; empty: not known."""
    mtu: int = 0
    """Of the device, in bytes."""
    since: float = 0.0
    """Unix time in seconds."""
    method: str
    """In the words of the settings."""
    source: str
    """Who said so."""
    problem: str = ""
    """What is wrong, one sentence; empty: nothing."""
    candidates: tuple[CandidateFact, ...] = ()
    """Every device that was looked at, in the order in which they were."""


class MtuTerm(_Part, frozen=True, kw_only=True):
    """One way that a pod's packet may take."""

    what: str
    """The way: plain, or a tunnel's device."""
    mtu: int
    """Of a pod's packet, in bytes."""
    how: str
    """The arithmetic, or who said it."""


class MtuFact(_Part, frozen=True, kw_only=True):
    pods: int
    """Of pods that start now, in bytes."""
    uplink: str = ""
    """Where the uplink's MTU comes from."""
    terms: tuple[MtuTerm, ...] = ()
    """The ways in use; the least counts."""
    problems: tuple[str, ...] = ()
    """What is wrong with what was configured, a sentence each."""
    cni: int = 0
    """What the CNI configuration of the last pod asked for in its place, in bytes; 0: nothing."""


class OffloadFact(_Part, frozen=True, kw_only=True):
    """Transmit checksum offload of one tunnel device."""

    device: str
    """The tunnel's device."""
    on: bool | None
    """As read back from the kernel; None: it could not be read."""
    wanted: bool
    """Whether it is to be on."""
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
    """The MTU of pods, and why."""
    offload: tuple[OffloadFact, ...] = ()
    """Checksum offload of the tunnels, and why."""
    configured: dict[str, str] = {}
    """What settings and resources say about it."""
