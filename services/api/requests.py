"""What is asked of the desired state, and what is decided about it. Pure values.

Apply, Put, Delete, Split --Core.decide--> Planned(writes, one result an object) | Refused(faults)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bus_schemas.manifests import Fault, Read
from bus_schemas.resources import Resource
from services.api.kinds import Kind


class Stored(NamedTuple):
    resource: Resource
    sequence: int


@dataclass(frozen=True)
class Write:
    kind: Kind
    key: tuple[str, str]
    resource: Resource | None
    """None: the object is to be deleted."""
    expected: int
    """The sequence that this was decided upon; 0: the object did not exist."""


@dataclass(frozen=True)
class Result:
    """What becomes of one object."""

    kind: Kind
    key: tuple[str, str]
    outcome: Literal["created", "configured", "unchanged", "deleted", "missing"]
    """`missing`: it was to be deleted, and was not there."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    results: tuple[Result, ...]
    """In the order of the request."""
    writes: tuple[Write, ...] = ()
    """In the order of KINDS; removals in the reverse order."""


@dataclass(frozen=True)
class Refused:
    reason: Literal["invalid", "missing", "conflict", "too_large"]
    error: str
    faults: tuple[Fault, ...] = ()


Decision = Planned | Refused


@dataclass(frozen=True)
class Stamp:
    """What a new object is given."""

    time: str
    """RFC 3339."""
    uids: Iterator[str]


@dataclass(frozen=True)
class Apply:
    """Create or replace every object, or none."""

    documents: Sequence[Read]


@dataclass(frozen=True)
class Put:
    """Create or replace one object, if it still is as the writer knew it."""

    kind: Kind
    key: tuple[str, str]
    document: Read
    only_if: int | None = None
    """The sequence that it must have; 0: it must not exist; None: whatever it is."""


@dataclass(frozen=True)
class Delete:
    targets: Sequence[tuple[Kind, tuple[str, str]]]
    missing_ok: bool = False
    only_if: int | None = None


@dataclass(frozen=True)
class Split:
    """Replace a pool by `count` pools of equal size that are the same otherwise."""

    pool: str
    count: int


Request = Apply | Put | Delete | Split
