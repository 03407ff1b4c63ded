"""What one watcher of the desired state has been told, and what it is to be told next.

A slow reader costs one pending slot a key, never a queue: it sees the last state of each object, and the words ADDED,
MODIFIED and DELETED compare that with what it was told before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from bus_schemas.resources import Resource
from services.api.core import Stored
from services.api.kinds import Kind

Where = tuple[Kind, tuple[str, str]]


class Told(NamedTuple):
    event: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Stored


class Watch:
    def __init__(self, wanted: Callable[[Kind, Resource], bool], first: Iterable[Stored]) -> None:
        """`wanted` says what the watcher asked for; `first` is the state at the start, each to be told as ADDED."""
        self._wanted = wanted
        self._told: dict[Where, Stored] = {}
        self._pending: dict[Where, Stored | None] = {
            (type(stored.resource), stored.resource.key): stored for stored in first
        }

    def change(self, kind: Kind, key: tuple[str, str], stored: Stored | None) -> bool:
        """An object's new state (None: it is gone); whether the watcher is to be woken."""
        where = (kind, key)
        if stored is not None and not self._wanted(kind, stored.resource):
            stored = None
        if stored is None and where not in self._told:
            self._pending.pop(where, None)
            return False
        self._pending[where] = stored
        return True

    def take(self) -> list[Told]:
        """Everything pending, as seen from what was told before."""
        events: list[Told] = []
        for where, stored in self._pending.items():
            before = self._told.get(where)
            if stored is None:
                if before is not None:
                    events.append(Told("DELETED", before))
                    del self._told[where]
            elif before is None:
                events.append(Told("ADDED", stored))
                self._told[where] = stored
            elif before.resource != stored.resource:
                events.append(Told("MODIFIED", stored))
                self._told[where] = stored
        self._pending = {}
        return events
