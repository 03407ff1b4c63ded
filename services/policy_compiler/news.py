"""Faults as events: every replica finds them, the one whose part the object is tells them.

Which part is whose may be decided a moment after a fault was found (a replica that starts has its leases one by one),
so what nobody could tell yet is kept for a while. Older news is not told again: whoever took over then did, or the
fault stands in the policy's status.
"""

from __future__ import annotations

from collections.abc import Callable

from bus_schemas.events import Event
from bus_schemas.subjects import Key
from services.policy_compiler.core import Changes
from services.policy_compiler.faults import Fault

KEPT_S = 10.0
"""Longer than it takes until a lease that nobody renews is taken by another."""


class News:
    def __init__(self, emit: Callable[[Event], None], covers: Callable[[], Callable[[Key], bool]]) -> None:
        """`covers()` says, as of now, whether a key is this replica's."""
        self._emit = emit
        self._covers = covers
        self._untold: dict[Fault, Event] = {}

    def tell(self, changes: Changes, now: float) -> None:
        """`now`: Unix time in seconds."""
        for fault in changes.raised:
            self._untold[fault] = _event("not_compiled", fault, fault.message, now)
        for fault in changes.cleared:
            self._untold[fault] = _event("resolved", fault, f"no longer: {fault.message}", now)
        self.look_again(now)

    def look_again(self, now: float) -> None:
        """After a lease was taken: perhaps it is ours to tell now."""
        covers = self._covers()
        for fault, event in list(self._untold.items()):
            mine = covers((fault.object,))
            if mine:
                self._emit(event)
            if mine or event.time < now - KEPT_S:
                del self._untold[fault]


def _event(what: str, fault: Fault, message: str, time: float) -> Event:
    return Event(time=time, domain="policy", what=what, object=fault.object, message=message)
