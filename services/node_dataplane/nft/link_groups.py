"""Which group of devices each pod's link is in: the number by which the table in the kernel tells one link from others.

To look up a packet's device by its name costs the packet more than by a number: the name is copied, padded and hashed.
An index would be as cheap as a group, but the kernel gives it, and not before the link is there. A group is ours to
give, before the link is made and to one that exists.

    0x40000000                LINK_GROUP: of a link with a pod's name that nobody knows
    0x40000001                DOOMED: what is about to be deleted
    0x40000002 - 0x7fffffff   one link each: a hash of its name, and the next free number when another link has that

No element of the table names the first two, so such links are closed. What an earlier life of the agent gave is kept
(`adopt`), so a number changes hands only after its link is gone. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from services.node_dataplane.nft.names import LINK_GROUP, LINK_GROUP_MASK

DOOMED = LINK_GROUP | 1
_FIRST, _NUMBERS = LINK_GROUP | 2, (1 << 30) - 2


def first_choice(link: str) -> int:
    """The group of a link while no other link has it."""
    return _FIRST + int.from_bytes(sha256(link.encode()).digest()[:8], "big") % _NUMBERS


def is_pods(group: int) -> bool:
    """The table takes what is in it for a pod's link."""
    return group & LINK_GROUP_MASK == LINK_GROUP


class LinkGroups:
    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._links: dict[int, str] = {}

    def adopt(self, found: Mapping[str, int]) -> None:
        """Links that are there, and the groups that they are in: to be called before any is asked for."""
        for link, group in sorted(found.items()):
            if group >= _FIRST and is_pods(group) and group not in self._links and link not in self._of:
                self._take(link, group)

    def of(self, link: str) -> int:
        """The link's group from now on."""
        group = self._of.get(link)
        if group is None:
            group = first_choice(link)
            while group in self._links:
                group = group + 1 if group + 1 < _FIRST + _NUMBERS else _FIRST
            self._take(link, group)
        return group

    def release(self, link: str) -> None:
        group = self._of.pop(link, None)
        if group is not None:
            del self._links[group]

    def right(self, link: str, group: int) -> int:
        """Where a link belongs that is in `group`. One that nobody knows stays, as long as it is closed there."""
        if link in self._of:
            return self._of[link]
        return group if is_pods(group) and group not in self._links else LINK_GROUP

    def _take(self, link: str, group: int) -> None:
        self._of[link] = group
        self._links[group] = link
