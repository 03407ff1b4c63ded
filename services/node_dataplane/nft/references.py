"""Who uses what: a target exists while somebody names it."""

from __future__ import annotations

from collections.abc import KeysView, Set
from typing import Generic, NamedTuple, TypeVar

U = TypeVar("U")
T = TypeVar("T")


class Shift(NamedTuple, Generic[T]):
    gained: frozenset[T]
    """Targets that nobody used before."""
    lost: frozenset[T]
    """Targets that nobody uses any more."""


class References(Generic[U, T]):
    def __init__(self) -> None:
        self._targets: dict[U, frozenset[T]] = {}
        self._users: dict[T, set[U]] = {}

    def set(self, user: U, targets: frozenset[T]) -> Shift[T]:
        """`user` names exactly these from now on; none: it is forgotten."""
        before = self._targets.get(user, frozenset())
        if targets:
            self._targets[user] = targets
        else:
            self._targets.pop(user, None)
        gained, lost = [], []
        for target in targets - before:
            users = self._users.get(target)
            if users is None:
                users = self._users[target] = set()
                gained.append(target)
            users.add(user)
        for target in before - targets:
            users = self._users[target]
            users.discard(user)
            if not users:
                del self._users[target]
                lost.append(target)
        return Shift(frozenset(gained), frozenset(lost))

    def users(self, target: T) -> Set[U]:
        return self._users.get(target, frozenset())

    @property
    def used(self) -> KeysView[T]:
        return self._users.keys()
