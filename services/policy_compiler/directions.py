"""Directions that name so many rules that attachments only name them.

    Direction -- fold --> itself, or Direction(shared=id) -- in attachments --> counted -- flush --> SharedDirection

One is written while an attachment that was told names it, and removed after the last one that did.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from bus_schemas.ids import DirectionId
from bus_schemas.policy import Attachment, Direction, HostAttachment, SharedDirection
from bus_schemas.shared_directions import direction_id, directions_of, rules_named

LONGEST = 32
"""So many rules stand in the attachment itself: about one kilobyte. For less than that, a message of its own, and a
further key for each agent to read before the pod has its policy, would save nothing. Few clusters have a pod under more
policies, so that for most there are no shared directions at all."""


@dataclass
class _Shared:
    direction: Direction
    users: int = 0
    told: bool = False


class Directions:
    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._shared: dict[DirectionId, _Shared] = {}
        self._touched: set[DirectionId] = set()

    def __len__(self) -> int:
        return len(self._shared)

    def fold(self, direction: Direction) -> Direction:
        """As it is to stand in an attachment; good until the next flush, and after it while something uses it."""
        if next(islice(rules_named(direction), self._longest, None), None) is None:
            return direction
        id = direction_id(direction)
        if id not in self._shared:
            self._shared[id] = _Shared(direction)
            self._touched.add(id)
        return Direction(shared=id)

    def count(self, before: Attachment | HostAttachment | None, after: Attachment | HostAttachment | None) -> None:
        """What is told of an endpoint changed."""
        for attachment, difference in ((before, -1), (after, 1)):
            if attachment is not None:
                for direction in directions_of(attachment):
                    if direction.shared:
                        self._shared[direction.shared].users += difference
                        self._touched.add(direction.shared)

    def flush(self) -> dict[DirectionId, SharedDirection | None]:
        """What differs from the last flush. Those that nothing uses are forgotten."""
        changed: dict[DirectionId, SharedDirection | None] = {}
        touched, self._touched = self._touched, set()
        for id in touched:
            shared = self._shared[id]
            if not shared.users:
                del self._shared[id]
                if shared.told:
                    changed[id] = None
            elif not shared.told:
                shared.told = True
                changed[id] = SharedDirection(direction=shared.direction)
        return changed
