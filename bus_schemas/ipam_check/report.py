"""What a check comes to, in the shape in which it is printed, kept in a file and read again."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bus_schemas.ids import HandleId, NodeName

VERSION = 1
"""Of the report's shape; another one is refused."""


class Kind(StrEnum):
    """What is wrong. The value is the word in the report."""

    UNREADABLE = "unreadable"
    """A record that is no message of its family, or contradicts its own key."""
    REBUILDING = "records are being rebuilt"
    """The bus lost them, and not every node has said yet what it holds."""
    POOL_OVERLAP = "pool overlap"
    BLOCK_MALFORMED = "malformed block"
    BLOCK_OVERLAP = "block overlap"
    BLOCK_OUTSIDE = "block outside pools"
    BLOCK_SIZE = "block of another size"
    BLOCK_POOL = "block of another pool"
    BLOCK_UNCLAIMED = "block without affinity"
    BLOCK_NODE_GONE = "block of a node that is gone"
    BLOCK_IDLE = "block of nobody without addresses"
    AFFINITY_DANGLING = "affinity without block"
    HANDLE_MALFORMED = "malformed handle"
    HANDLE_ASTRAY = "handle without allocation"
    """A handle says that it has an address, and the block says otherwise."""
    HANDLE_MISSING = "allocation without handle"
    """A block gives an address to a handle that is not there or does not have it."""
    DUPLICATE = "address used twice"
    NOT_ALLOCATED = "in use but not allocated"
    OUTSIDE = "in use outside pools"
    OTHER_HANDLE = "allocated to another handle"
    OTHER_NODE = "allocated to another node"
    LEAKED = "allocated but not in use"
    RESERVED = "reserved and in use"
    DEPARTED = "held by a node that is gone"
    OWN_CHOICE = "not managed"
    """An address that a pod brought along (ipAddrsNoIpam), outside of every pool."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    kind: Kind
    object: str
    """The address, block, handle, pool or node that it is about."""
    text: str
    handle: HandleId = HandleId("")
    sequence: int = 0
    """With an address: the Allocation.sequence."""
    note: bool = False
    """Worth knowing, and no fault of the records."""

    @property
    def identity(self) -> tuple[str, str, str, int]:
        return self.kind, self.object, self.handle, self.sequence


class AddressState(StrEnum):
    IN_USE = "in use"
    UNKNOWN = "unknown"
    """Only its node could say whether it is used, and has not spoken yet."""
    SETTLING = "settling"
    """Given, or let go, a moment ago."""
    LEAKED = "leaked"
    NOT_ALLOCATED = "not allocated"
    """Used by somebody, given by nobody."""


class AddressRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One address that is given or used."""

    ip: str
    state: AddressState
    holder: str = ""
    """Who says that he uses it, in words."""
    node: NodeName = NodeName("")
    """Where it is used according to the block."""
    handle: HandleId = HandleId("")
    sequence: int = 0
    use: str = ""
    namespace: str = ""
    pod: str = ""
    block: str = ""
    pool: str = ""
    borrowed: bool = False
    why: str = ""
    """Why it is leaked."""
    since: float | None = None
    due: float | None = None
    """Of a candidate of the collector: Unix time in seconds of the first observation, and of the earliest release."""

    @property
    def given(self) -> bool:
        return bool(self.handle)

    @property
    def identity(self) -> tuple[str, str, int]:
        return self.ip, self.handle, self.sequence


class Busiest(msgspec.Struct, frozen=True, kw_only=True):
    node: NodeName
    addresses: int


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    blocks: int
    allocations: int
    affinities: int
    handles: int
    pools: int
    reservations: int
    nodes: int
    endpoints: int
    holdings: int
    """Nodes that have said what they hold beside their endpoints."""
    used: int
    """Addresses that somebody says he uses."""
    candidates: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = "IPAMReport"
    version: int = VERSION
    taken: float
    """Unix time in seconds."""
    counts: Counts
    busiest: tuple[Busiest, ...] = ()
    """The nodes with the most addresses."""
    median: float = 0.0
    """Addresses of the node in the middle."""
    problems: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()
    addresses: tuple[AddressRow, ...] = ()

    @property
    def clean(self) -> bool:
        return not self.problems

    def confirmed_by(self, later: Report) -> Report:
        """The later report, with those of its problems that this one saw already; the others may be a change that is
        under way."""
        seen = {finding.identity for finding in self.problems}
        leaked = {row.identity for row in self.addresses if row.state is AddressState.LEAKED}
        return msgspec.structs.replace(
            later,
            problems=tuple(finding for finding in later.problems if finding.identity in seen),
            addresses=tuple(
                msgspec.structs.replace(row, state=AddressState.SETTLING)
                if row.state is AddressState.LEAKED and row.identity not in leaked
                else row
                for row in later.addresses
            ),
        )
