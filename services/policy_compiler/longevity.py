"""What is read at the start lives as long as the process: the cyclic collector is kept from walking it again and again.

The collector's full runs cost half as much again as all of the compiling when a large cluster is read, and each of them
stops everything for a third of a second. Nothing that the core or the publication keeps is a cycle, so nothing is lost:
`keep` after every batch of the snapshot, `first_flush` once it is whole, `settle` when what came of it is written.
"""

from __future__ import annotations

import gc

from services.policy_compiler.core import Changes, Core


def keep() -> None:
    """What exists now stays: it is not walked again."""
    gc.freeze()


def first_flush(core: Core) -> Changes:
    """The flush that makes everything. The collector does not run from here on until things have settled."""
    gc.disable()
    changes = core.flush()
    keep()
    return changes


def settle() -> None:
    """What the first flush made is on the bus, and was heard from there. At any later time: nothing."""
    if not gc.isenabled():
        keep()
        gc.enable()
