"""Which life of the address records this replica knows, and whether addresses may be given in it. Pure.

    EPOCH --heard--> the records' life        begun: the life that our ledger was read in
                     none yet, or lost: closed
                     recovering:        closed, addresses are read back from the nodes
                     ready:             open
                     another than ours: closed, everything is to be read anew

An answer is worth something only in the life in which it was decided. So every answer is preceded by a direct read of
the epoch (`token` before, `heard` with what was read, `token` after): a replica that has not heard yet that the bus was
wiped may still write, but nobody is told.
"""

from __future__ import annotations

from bus_schemas.ipam import Epoch
from bus_schemas.subjects import Fact

READY = "ready"
RECOVERING = "recovering"
NAMED = 10
"""So many of the awaited nodes are named."""


class Life:
    def __init__(self) -> None:
        self.epoch: Epoch | None = None
        self.sequence = 0
        """Of the epoch's key."""
        self.ours = ""
        """The life that our ledger was read in; empty: none yet."""
        self._known: set[str] = set()
        """Every life that was ever heard of."""

    def heard(self, fact: Fact) -> None:
        """From the feed or a direct read, in any order. Nothing there at all: it was lost.

        Sequences tell old from new within one life of the stream. One that was made anew counts from 1 again, so a life
        of the records that was never heard of is news whatever its sequence."""
        if fact.value is None and not fact.sequence:
            self.epoch, self.sequence = None, 0
        elif fact.sequence >= self.sequence or (fact.value is not None and fact.value.id not in self._known):
            self.epoch, self.sequence = fact.value, fact.sequence
            if fact.value is not None:
                self._known.add(fact.value.id)
                self.ours = self.ours or fact.value.id

    def begin_anew(self) -> None:
        """The ledger is empty, and is read in the present life."""
        self.ours = "" if self.epoch is None else self.epoch.id

    @property
    def is_anew(self) -> bool:
        """The records have begun another life than the one we know."""
        return self.epoch is not None and self.epoch.id != self.ours

    @property
    def token(self) -> str:
        """The life in which addresses may be given now; empty: none may."""
        epoch = self.epoch
        return epoch.id if epoch is not None and epoch.state == READY and epoch.id == self.ours else ""

    @property
    def closed(self) -> str:
        """Why no address may be given now; empty when it may."""
        if self.epoch is None:
            return "it is not known yet whether the address records are new or were lost"
        if self.epoch.state != READY:
            missing = self.epoch.missing
            names = ", ".join(missing[:NAMED]) + (f" and {len(missing) - NAMED} more" if len(missing) > NAMED else "")
            awaited = f"; the agents of these nodes have not said yet what they hold: {names}" if missing else ""
            return f"the bus lost the address records, they are read back from the nodes{awaited}"
        return "" if self.token else "the address records were begun anew and have not been read yet"
