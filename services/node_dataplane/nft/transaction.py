"""A change of the table as a value: an ordered list of commands that the kernel takes whole or not at all.

It prints as the exact nft script. A transaction that only adds and deletes elements can go to the kernel as raw netlink
(see `encode`), which is why elements are kept as bytes until somebody wants to read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from services.node_dataplane.nft.names import TABLE
from services.node_dataplane.nft.sets import SetKind


@dataclass(frozen=True)
class Statement:
    """Any one line of nft."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Elements:
    verb: Literal["add", "delete"]
    set: str
    kind: SetKind
    rows: tuple[tuple[bytes, str], ...]
    """(key, data); the data is empty in a set; in a map `goto <chain>`, a counter's name or `<address> . <port>`."""

    def __str__(self) -> str:
        spell = self.kind.spell
        if self.kind.mapped and self.verb == "add":
            quote = '"' if self.kind.counters else ""
            inner = ", ".join(f"{spell(key)} : {quote}{data}{quote}" for key, data in self.rows)
        else:
            inner = ", ".join(spell(key) for key, _ in self.rows)
        return f"{self.verb} element inet {TABLE} {self.set} {{ {inner} }}"


Command = Statement | Elements


@dataclass(frozen=True)
class Transaction:
    revision: int
    """The model's count of transactions; the driver remembers the last one that the kernel took."""
    commands: tuple[Command, ...]
    whole: bool = False
    """Replaces the table, whatever was there."""
    ahead: tuple[Command, ...] = ()
    """To be in the kernel before the commands are, since it switches to what is new in one step, but packets do not. It
    fills a new map with intervals last of all, microseconds after the rules that look into it; and a packet that is on
    its way at that moment can be led by a map to a new chain that is still empty for it. Either way what is denied
    would get through. So maps and chains go ahead, with whatever they need, and nobody is led to them yet."""
    behind: tuple[Command, ...] = ()
    """To leave the kernel after the commands are in it. A packet on its way through the old rules finds a map that went
    in the same transaction emptied, and the others with their new elements: what one no longer denies may be for a new
    rule to deny."""

    @cached_property
    def elements(self) -> Sequence[Elements] | None:
        """The commands, when all of them are elements that need no interval arithmetic; None otherwise."""
        found = [c for c in self.commands if isinstance(c, Elements) and not c.kind.interval]
        return found if len(found) == len(self.commands) and not (self.ahead or self.behind) else None

    @property
    def _all(self) -> tuple[Command, ...]:
        return (*self.ahead, *self.commands, *self.behind)

    @property
    def weight(self) -> int:
        """Statements and elements."""
        return sum(len(c.rows) if isinstance(c, Elements) else 1 for c in self._all)

    def lines(self) -> Iterator[str]:
        return map(str, self._all)

    def scripts(self) -> Iterator[str]:
        """What the kernel has to take, one after the other."""
        for commands in filter(None, (self.ahead, self.commands, self.behind)):
            yield "".join(f"{command}\n" for command in commands)

    def __str__(self) -> str:
        return "".join(self.scripts())
