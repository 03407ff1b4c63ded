"""What had to be set aside, by object: what is new, what is over, and what a resource's status says."""

from __future__ import annotations

from typing import NamedTuple

from bus_schemas.policy import PolicyStatus
from bus_schemas.resources import Resource

Where = tuple[str, ...]
"""The kind (of a resource: its token) and the key."""


class Fault(NamedTuple):
    object: str
    """`<kind token>/<namespace>/<name>`."""
    message: str


class StatusKey(NamedTuple):
    kind: str
    """The token."""
    namespace: str
    name: str


class FaultChanges(NamedTuple):
    """What differs from the last flush."""

    raised: tuple[Fault, ...]
    cleared: tuple[Fault, ...]
    statuses: dict[StatusKey, PolicyStatus | None]
    """Of resources alone. None: there is nothing to say any more."""


class Faults:
    def __init__(self) -> None:
        self._now: dict[Where, dict[str, None]] = {}
        """By object, as of the last flush."""
        self._next: dict[Where, dict[str, None]] = {}
        """Objects that changed since, and their faults now."""
        self._statuses: dict[Where, tuple[StatusKey, str]] = {}
        """Objects of `_next` that have a status, and how they are called in it."""

    def all(self) -> list[Fault]:
        return sorted(Fault(_title(where), message) for where, messages in self._now.items() for message in messages)

    def __len__(self) -> int:
        return sum(map(len, self._now.values()))

    def found(self, where: Where, faults: tuple[str, ...]) -> None:
        """All that is wrong with the object now."""
        if faults or where in self._now or where in self._next:
            self._next[where] = dict.fromkeys(faults)

    def found_in(self, kind: type[Resource], key: tuple[str, ...], faults: tuple[str, ...]) -> None:
        """The same of a resource, which has a status."""
        where = (kind.TOKEN, *key)
        self.found(where, faults)
        if where in self._next:
            self._statuses[where] = (StatusKey(*where), "/".join(filter(None, (kind.KIND, *key))))

    def flush(self) -> FaultChanges:
        raised: list[Fault] = []
        cleared: list[Fault] = []
        statuses: dict[StatusKey, PolicyStatus | None] = {}
        for where, now in self._next.items():
            before = self._now.pop(where, {})
            if now:
                self._now[where] = now
            title = _title(where)
            raised += sorted(Fault(title, message) for message in now.keys() - before.keys())
            cleared += sorted(Fault(title, message) for message in before.keys() - now.keys())
            if where in self._statuses and list(before) != list(now):
                key, policy = self._statuses[where]
                statuses[key] = PolicyStatus(policy=policy, faults=tuple(now)) if now else None
        self._next, self._statuses = {}, {}
        return FaultChanges(tuple(raised), tuple(cleared), statuses)


def _title(where: Where) -> str:
    return "/".join(filter(None, where))
