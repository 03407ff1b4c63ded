"""What the compiler keeps is kept for long: the cyclic collector is prevented from walking it again and again.

The collector's full runs cost half as much again as all of the compiling when a large cluster is read, and once it is
read each of them stops everything for a third of a second. Nothing that the core or the publication keeps is a cycle:
counting references frees it. So what exists is taken out of the collector's sight: after every batch of the snapshot
(`keep`), when what was made of it is on the bus (`settle`), and then again whenever a hundred facts have replaced
others: not while one of them is being compiled (`hear`), but when what came of them is on the bus, too. Before that the
young are collected, as what is kept while it is garbage in a cycle stays for ever.
"""

from __future__ import annotations

import gc

from services.policy_compiler.core import Changes, Core

RENEW_FACTS = 100
"""After so many facts: some thousands of objects, which are walked in a millisecond."""
OVERDUE_FACTS = 20 * RENEW_FACTS
"""After so many it is done although nothing settles, as on a bus that is away."""
YOUNG = 1
"""The generations of the collector that hold what is new."""


class Longevity:
    """Of one process: there is one collector."""

    def __init__(self) -> None:
        self._facts = 0

    def keep(self) -> None:
        """What exists now stays: it is not walked again."""
        gc.freeze()

    def first_flush(self, core: Core) -> Changes:
        """The flush that makes everything. The collector rests from here on until `settle`."""
        gc.disable()
        changes = core.flush()
        gc.freeze()
        return changes

    def settle(self) -> None:
        """What was made is on the bus, and was heard from there."""
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        elif self._facts >= RENEW_FACTS:
            self._renew()

    def hear(self, facts: int) -> None:
        """So many facts came in after the snapshot."""
        self._facts += facts
        if self._facts >= OVERDUE_FACTS and gc.isenabled():
            self._renew()

    def _renew(self) -> None:
        self._facts = 0
        gc.collect(YOUNG)
        gc.freeze()
