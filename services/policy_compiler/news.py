"""Faults and changed policies as events: every replica finds them, the one whose part the object is tells them.

Which part is whose may be decided a moment after a fault was found (a replica that starts has its leases one by one),
so what nobody could tell yet is kept for a while. Older news is not told again: whoever took over then did, or the
fault stands in the policy's status.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from bus_schemas.events import Event
from bus_schemas.ids import GroupId
from bus_schemas.subjects import Key
from services.policy_compiler.core import Changes, Governed, PolicyChange
from services.policy_compiler.faults import Fault

KEPT_S = 10.0
"""Longer than it takes until a lease that nobody renews is taken by another."""


EXACT = 20
"""So many policies of one flush are told with whom they govern; to count is work."""
NODES = 20
"""Nodes that an event names."""


class News:
    def __init__(
        self,
        emit: Callable[[Event], None],
        covers: Callable[[], Callable[[Key], bool]],
        governed: Callable[[GroupId | None], Governed],
    ) -> None:
        """`covers()` says, as of now, whether a key is this replica's; `governed`: see `Core.governed`."""
        self._emit = emit
        self._covers = covers
        self._governed = governed
        self._untold: dict[Hashable, tuple[Key, Event]] = {}
        """By what they tell of; with the key that decides whose it is."""

    def tell(self, changes: Changes, now: float, *, first: bool = False) -> None:
        """`now`: Unix time in seconds. `first`: of this life, when every policy is new here and no news."""
        for fault in changes.raised:
            self._untold[fault] = (fault.object,), _event("not_compiled", fault, fault.message, now)
        for fault in changes.cleared:
            self._untold[fault] = (fault.object,), _event("resolved", fault, f"no longer: {fault.message}", now)
        for at, change in enumerate(() if first else changes.policies):
            governed = self._governed(change.subject) if at < EXACT else None
            self._untold[change.policy] = (change.policy,), _compiled(change, governed, now)
        self.look_again(now)

    def look_again(self, now: float) -> None:
        """After a lease was taken: perhaps it is ours to tell now."""
        covers = self._covers()
        for of, (key, event) in list(self._untold.items()):
            mine = covers(key)
            if mine:
                self._emit(event)
            if mine or event.time < now - KEPT_S:
                del self._untold[of]


def _event(what: str, fault: Fault, message: str, time: float) -> Event:
    return Event(time=time, domain="policy", what=what, object=fault.object, message=message)


def _compiled(change: PolicyChange, governed: Governed | None, time: float) -> Event:
    detail = {"policy": change.title, "change": change.change}
    whom = ""
    if change.change == "removed":
        whom = ": it governs nobody any more"
    elif change.subject is not None and governed is not None:
        nodes = sorted(governed.nodes)
        detail |= {"endpoints": str(governed.endpoints), "nodes": ",".join(nodes[:NODES])}
        where = f" on {len(nodes)} node{'s' if len(nodes) != 1 else ''}" if nodes else ""
        whom = f": it governs {governed.endpoints} endpoint{'s' if governed.endpoints != 1 else ''}{where}"
    message = f"{change.title} was {change.change}{whom}."
    return Event(time=time, domain="policy", what="compiled", object=change.title, message=message, detail=detail)
