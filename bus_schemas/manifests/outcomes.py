"""What reading a manifest comes to: a resource, or the faults that stand against it. Values, not exceptions."""

from __future__ import annotations

from dataclasses import dataclass

from bus_schemas.resources import Resource


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one document."""

    document: int
    """Counted from 0, as the documents (and the items of lists) stand in the text."""
    path: str
    """Where in the object: `spec.ingress[0].source.nets[1]`; empty: the object as a whole."""
    reason: str
    line: int = 0
    """Where the document begins in the text, counted from 1; 0: not known."""
    source: str = ""
    """What the text was called: a file's name, `stdin`."""

    def __str__(self) -> str:
        where = (
            f"{self.source}:{self.line}: " if self.source and self.line else f"{self.source}: " if self.source else ""
        )
        return f"{where}{self.path}: {self.reason}" if self.path else f"{where}{self.reason}"


@dataclass(frozen=True, slots=True)
class Accepted:
    resource: Resource
    warnings: tuple[str, ...] = ()
    """What was read but has no effect here, one sentence each, beginning with the path."""
    document: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    faults: tuple[Fault, ...]
    """At least one."""
    document: int = 0
    display: str = ""
    """What the document said it is: `NetworkPolicy/default/web`; empty when not even that could be read."""


Read = Accepted | Rejected
