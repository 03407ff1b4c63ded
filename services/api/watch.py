"""What one watcher of the desired state has been told, and what it is to be told next.

A slow reader costs one pending slot a key, never a queue: it sees the last state of each object, and the words ADDED,
MODIFIED and DELETED compare that with what it was told before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from bus_schemas.resources import Resource
from services.api.kinds import Kind
from services.api.requests import Stored

Where = tuple[Kind, tuple[str, str]]


class Told(NamedTuple):
    event: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Stored


class _Shown(NamedTuple):
    """What a document is made of."""

    stored: Stored
    beside: object


class Watch:
    def __init__(self, wanted: Callable[[Kind, Resource], bool], first: Iterable[tuple[Stored, object]]) -> None:
        """`wanted` says what the watcher asked for; `first` is the state at the start, each to be told as ADDED, with
        what is said beside it."""
        self._wanted = wanted
        self._told: dict[Where, _Shown] = {}
        self._pending: dict[Where, _Shown | None] = {
            (type(stored.resource), stored.resource.key): _Shown(stored, beside) for stored, beside in first
        }

    def change(self, kind: Kind, key: tuple[str, str], stored: Stored | None, beside: object = None) -> bool:
        """An object's new state (None: it is gone) and what is said beside it; whether the watcher is to be woken."""
        where = (kind, key)
        if stored is not None and not self._wanted(kind, stored.resource):
            stored = None
        if stored is None and where not in self._told:
            self._pending.pop(where, None)
            return False
        self._pending[where] = None if stored is None else _Shown(stored, beside)
        return True

    def take(self) -> list[Told]:
        """Everything pending, as seen from what was told before."""
        events: list[Told] = []
        for where, shown in self._pending.items():
            before = self._told.get(where)
            if shown is None:
                if before is not None:
                    events.append(Told("DELETED", before.stored))
                    del self._told[where]
                continue
            if before is None:
                events.append(Told("ADDED", shown.stored))
            elif (before.stored.resource, before.beside) != (shown.stored.resource, shown.beside):
                events.append(Told("MODIFIED", shown.stored))
            else:
                continue
            self._told[where] = shown
        self._pending = {}
        return events
