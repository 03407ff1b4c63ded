"""The maps of merged rules that exist, by the rule group whose they are; and where each member of a group has to go.

rule group --> maps (hash, interval)           written with the rule group's chains
group -------> hash maps with its members      changed element by element
      -------> rule groups with its networks   written anew when they change
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from bus_schemas.ids import GroupId
from services.node_dataplane.nft.groups import Delta
from services.node_dataplane.nft.merge import ROWS, Merged
from services.node_dataplane.nft.references import References
from services.node_dataplane.nft.ruleset import Ruleset


class Lookups:
    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        self._made: dict[str, Sequence[Merged]] = {}
        self._members: References[str, GroupId] = References()
        self._watched: References[str, GroupId] = References()

    def set(self, owner: str, merged: Sequence[Merged]) -> None:
        """`owner` needs exactly these lookups from now on."""
        before = {name for each in self._made.pop(owner, ()) for name in each.maps}
        maps = {name: content for each in merged for name, content in each.maps.items()}
        for name in before - maps.keys():
            self._ruleset.close(name)
        for name, (spec, rows) in maps.items():
            self._ruleset.open(name, spec, rows)
        if merged:
            self._made[owner] = merged
        looked = (group for each in merged for _, lookup in each.lookups.values() for group in lookup.groups)
        self._members.set(owner, frozenset(looked))
        self._watched.set(owner, frozenset(group for each in merged for group in each.watched))
        for each in merged:
            for content in each.maps.values():
                content[1].clear()  # From now on the ruleset has them.

    def watching(self, group: GroupId) -> Set[str]:
        return self._watched.users(group)

    def move(self, group: GroupId, delta: Delta) -> Iterable[str]:
        """Members came and went. The rule groups whose maps have thereby outgrown their room."""
        outgrown = []
        for owner in self._members.users(group):
            for merged in self._made[owner]:
                for name, (shape, lookup) in merged.lookups.items():
                    six = shape.family == 6
                    added, removed = (delta.added6, delta.removed6) if six else (delta.added4, delta.removed4)
                    rows = self._ruleset.elements(name)
                    for key, verdict in lookup.move(group, added, removed, rows):
                        if verdict is None:
                            self._ruleset.discard(name, key)
                        else:
                            self._ruleset.put(name, key, verdict)
                    if len(rows) > 2 * ROWS:
                        outgrown.append(owner)
        return outgrown
