"""How many events one sender tells: a storm becomes a few events and a number. Pure; told the time, in seconds of any
clock.

    see(event) --few of its kind lately--> told at once
               --more--> counted --settle()--> one event: how many more, and the first of them by name

Each kind (domain, what) has an allowance (`Happening.at_once`) that is earned back in WINDOW_S. What is beyond it is
told as a number every SETTLE_S: five thousand routes are twenty events and one that says "4,980 more".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bus_schemas.events import Event
from bus_schemas.happenings import BY_NAME

WINDOW_S = 10.0
SETTLE_S = 2.0
"""So long after the first that was counted, the number is told."""
UNKNOWN = 200
"""The allowance of an event that is not in the table."""
NAMED = 5
"""Objects that a sum names."""


@dataclass
class _Kind:
    allowance: float
    counted_at: float
    more: int = 0
    due: float = 0.0
    last: Event | None = None
    objects: dict[str, None] = field(default_factory=dict)


class EventPacing:
    def __init__(self, limit: Callable[[str, str], int | None] | None = None) -> None:
        """`limit(domain, what)`: events at once and per WINDOW_S; None: no limit."""
        self._limit = limit or _at_once
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def see(self, event: Event, now: float) -> Event | None:
        """The event, if it is to be told by itself now; None: it is counted."""
        limit = self._limit(event.domain, event.what)
        if limit is None:
            return event
        kind = self._kinds.setdefault((event.domain, event.what), _Kind(float(limit), now))
        kind.allowance = min(float(limit), kind.allowance + max(0.0, now - kind.counted_at) * limit / WINDOW_S)
        kind.counted_at = now
        if not kind.more and kind.allowance >= 1:
            kind.allowance -= 1
            return event
        if not kind.more:
            kind.due = now + SETTLE_S
        kind.more += _count(event)
        kind.last = event
        if event.object and len(kind.objects) < NAMED:
            kind.objects[event.object] = None
        return None

    @property
    def due(self) -> float | None:
        """When there will be something to settle."""
        return min((kind.due for kind in self._kinds.values() if kind.more), default=None)

    def settle(self, now: float) -> list[Event]:
        """What was counted and is due."""
        told = []
        for kind in self._kinds.values():
            if kind.more and kind.due <= now and kind.last is not None:
                told.append(_sum(kind.last, kind.more, list(kind.objects)))
                kind.more, kind.last = 0, None
                kind.objects.clear()
        return told


def _at_once(domain: str, what: str) -> int | None:
    known = BY_NAME.get((domain, what))
    return UNKNOWN if known is None else known.at_once


def _count(event: Event) -> int:
    text = event.detail.get("count", "")
    return int(text) if text.isdecimal() else 1


def _sum(last: Event, more: int, objects: list[str]) -> Event:
    named = ", ".join(objects) + (" ..." if more > len(objects) else "")
    which = f": {named}" if named else ""
    return Event(
        time=last.time,
        domain=last.domain,
        what=last.what,
        node=last.node,
        message=f"{more:,} more of {last.domain}.{last.what} came and are not told one by one{which}.",
        detail={"count": str(more)},
    )
