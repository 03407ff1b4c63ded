"""Attachments with their shared directions in place, before anything else of the node hears of them. Pure.

    ATTACHMENT, HOST_ATTACHMENT ----+--> Directions --> the same, whole
    DIRECTION (of those wanted) ----+        |
                                             +--> held back: an attachment that names what is not known yet

What is held back changes nothing: a pod keeps the policy that it had, and one that had none is closed. A host endpoint
that had none would leave its devices open, so its attachment is told with what is not known closed.
"""

from __future__ import annotations

from typing import Any

from bus_schemas.ids import DirectionId
from bus_schemas.policy import Direction, SharedDirection
from bus_schemas.shared_directions import shared_by, unfold
from bus_schemas.subjects import DIRECTION, HOST_ATTACHMENT, Fact, Family, Key
from services.node_dataplane.nft.references import References

_Place = tuple[str, Key]
"""Family of an attachment, and its key without the node."""


class Directions:
    def __init__(self) -> None:
        self._known: dict[DirectionId, Direction] = {}
        self._uses: References[_Place, DirectionId] = References()
        self._held_back: dict[_Place, Fact] = {}
        self._hosts: set[_Place] = set()
        """Host endpoints that were told of."""
        self._wanted: frozenset[DirectionId] | None = frozenset()
        """None: it is to be worked out anew."""

    def take(self, fact: Fact) -> list[Fact]:
        """What a fact about an attachment or a direction comes to: attachments, whole or absent."""
        if fact.family == DIRECTION:
            return self._learn(DirectionId(fact.key[0]), fact.value)
        place = _place(fact.family, *fact.key[1:])
        shift = self._uses.set(place, frozenset() if fact.value is None else shared_by(fact.value))
        if shift.gained or shift.lost:
            self._wanted = None
        self._held_back.pop(place, None)
        if fact.value is None:
            self._hosts.discard(place)
            return [fact]
        return self._told(place, fact)

    def wanted(self) -> frozenset[DirectionId]:
        """What to follow now; the same object while it is the same. Everything else is forgotten."""
        if self._wanted is None:
            self._wanted = frozenset(self._uses.used)
            for id in self._known.keys() - self._wanted:
                del self._known[id]
        return self._wanted

    def lacking(self, family: Family[Any], *key: str) -> str:
        """Why the attachment of this key, without the node, is held back; empty: it is not."""
        fact = self._held_back.get(_place(family, *key))
        if fact is None:
            return ""
        return f"directions not known yet: {', '.join(sorted(shared_by(fact.value) - self._known.keys()))}"

    def _learn(self, id: DirectionId, shared: SharedDirection | None) -> list[Fact]:
        if shared is None or shared.direction.shared:
            self._known.pop(id, None)
            return []
        self._known[id] = shared.direction
        users = self._uses.users(id)
        if not users:
            self._wanted = None
        waiting = [(place, self._held_back.pop(place)) for place in sorted(users & self._held_back.keys())]
        return [whole for place, fact in waiting for whole in self._told(place, fact)]

    def _told(self, place: _Place, fact: Fact) -> list[Fact]:
        host = fact.family == HOST_ATTACHMENT
        if not shared_by(fact.value) <= self._known.keys():
            self._held_back[place] = fact
            if not host or place in self._hosts:
                return []
        if host:
            self._hosts.add(place)
        return [fact._replace(value=unfold(fact.value, self._known))]


def _place(family: Family[Any], *key: str) -> _Place:
    return family.name, key
