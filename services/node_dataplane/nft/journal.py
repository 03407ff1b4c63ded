"""A mapping that knows what changed since it was last settled.

It keeps what it shall be, and for each touched key what it was; whoever flushes asks for the differences. So nothing
needs a second copy of the kernel's state: the kernel holds `now` less the changes.
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Journal(Generic[K, V]):
    __slots__ = ("_was", "now")

    def __init__(self) -> None:
        self.now: dict[K, V] = {}
        self._was: dict[K, V | None] = {}

    def put(self, key: K, value: V) -> None:
        old = self.now.get(key)
        if old != value:
            self._was.setdefault(key, old)
            self.now[key] = value

    def discard(self, key: K) -> None:
        old = self.now.pop(key, None)
        if old is not None:
            self._was.setdefault(key, old)

    def clear(self) -> None:
        for key in list(self.now):
            self.discard(key)

    def settle(self) -> list[tuple[K, V | None, V | None]]:
        """(key, before, after) of what differs since the last settlement, in the order of first touch; None: absent."""
        changes = [
            (key, old, new)
            for key, old, new in ((key, old, self.now.get(key)) for key, old in self._was.items())
            if old != new
        ]
        self._was.clear()
        return changes

    @property
    def touched(self) -> bool:
        return bool(self._was)
