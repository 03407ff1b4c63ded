"""Tells of what was put right, and when to leave something alone because somebody keeps breaking it.

Between the drivers, which mend, and the events, which a person reads: one event an object, a handful in full where
thousands were lost at once, and one that says when an object is fought for and how to find out by whom.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import Counter

from services.node_dataplane.contention import Contention

REPAIRS = Counter("tortie_node_repairs", "Kernel objects found changed by others and put right")

Report = Callable[[str, str, str], None]
"""what, object, message"""

NAMED = 20
"""So many objects that were lost together are events of their own."""


class Repair(NamedTuple):
    key: Hashable
    object: str
    message: str
    watch: str
    """The command that shows who breaks it."""


@dataclass
class Repairs:
    now: Callable[[], float]
    """Seconds, monotonic."""

    def __post_init__(self) -> None:
        self._contention = Contention()
        self._names: dict[Hashable, str] = {}

    def rests(self, key: Hashable) -> bool:
        return self._contention.rests(key, self.now())

    def tell(self, made: Iterable[Repair], report: Report) -> int:
        """Events of these repairs; how many they are."""
        made = list(made)
        now = self.now()
        for repair in made[:NAMED]:
            report("repaired", repair.object, repair.message)
        if len(made) > NAMED:
            more = len(made) - NAMED
            report("repaired", made[NAMED].object, f"{more} more had been changed or deleted; they were put right.")
        for repair in made:
            if self._contention.repaired(repair.key, now):
                self._names[repair.key] = repair.object
                times = self._contention.repairs(repair.key)
                report(
                    "contested",
                    repair.object,
                    f"{repair.object} was put right {times} times and is broken again and again: from now on with "
                    f"longer pauses. Another program fights for it; `{repair.watch}` on the node shows when it acts.",
                )
        return len(made)

    def settle(self, report: Report) -> None:
        """Say what is not fought for any more."""
        for key in self._contention.calm(self.now()):
            name = self._names.pop(key, str(key))
            report("settled", name, f"Nobody has broken {name} for some minutes: it is not fought for any more.")

    @property
    def contested(self) -> list[str]:
        """What is fought for, one phrase each."""
        return sorted(
            f"{self._names.get(key, key)} (repaired {self._contention.repairs(key)} times, next pause {rest_s:.0f} s)"
            for key, rest_s in self._contention.contested().items()
        )
