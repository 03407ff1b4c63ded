"""What is read at the start lives as long as the process: the cyclic collector is kept from walking it again and again.

The collector's full runs cost half as much again as all of the compiling when a large cluster is read. Nothing that the
core keeps is a cycle, so nothing is lost: `keep` after every batch of the snapshot, `first_flush` once it is whole.
"""

from __future__ import annotations

import gc

from services.policy_compiler.core import Changes, Core


def keep() -> None:
    """What exists now stays: it is not walked again."""
    gc.freeze()


def first_flush(core: Core) -> Changes:
    """The flush that makes everything, without the collector running in between."""
    gc.disable()
    try:
        return core.flush()
    finally:
        gc.enable()
        keep()
