"""Compiled policy held in memory, by id: the `World` of whoever has read it whole.

Groups are kept as they arrive, in segments, and joined when they are first asked for. A group without its segment 0, or
without any other of its segments, is not known; see `policy.Group`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bus_schemas.ids import GroupId, RulesId
from bus_schemas.policy import ADDRESS4, ADDRESS6, NET4, NET6, PORT4, PORT6, Group, Match, Rule, Rules


@dataclass(frozen=True)
class Members:
    """One whole group."""

    selector: str
    keys: frozenset[bytes]
    """Packed addresses; of a `ports` group with protocol and port."""
    nets: Mapping[tuple[int, int], frozenset[int]]
    """(bytes of the address, bits that a network leaves open) -> prefixes."""

    def __contains__(self, key: bytes) -> bool:
        if key in self.keys:
            return True
        if not self.nets:
            return False
        number = int.from_bytes(key, "big")
        return any(size == len(key) and number >> free in found for (size, free), found in self.nets.items())


class Snapshot:
    def __init__(self) -> None:
        self._rules: dict[RulesId, Rules] = {}
        self._segments: dict[GroupId, dict[int, Group]] = {}
        self._members: dict[GroupId, Members | None] = {}
        """Those that were asked for since they last changed."""

    def set_rules(self, id: RulesId, rules: Rules | None) -> None:
        if rules is None:
            self._rules.pop(id, None)
        else:
            self._rules[id] = rules

    def set_group(self, id: GroupId, segment: int, group: Group | None) -> None:
        self._members.pop(id, None)
        if group is not None:
            self._segments.setdefault(id, {})[segment] = group
        elif segment in (segments := self._segments.get(id, {})):
            del segments[segment]
            if not segments:
                del self._segments[id]

    # --- the World of `verdicts`

    def rules(self, id: RulesId) -> Rules | None:
        return self._rules.get(id)

    def in_group(self, group: GroupId, key: bytes) -> bool | None:
        members = self.members(group)
        return None if members is None else key in members

    # --- for people

    def members(self, group: GroupId) -> Members | None:
        """None: not known, or not whole."""
        if group not in self._members:
            self._members[group] = _join(self._segments.get(group, {}))
        return self._members[group]

    def selector(self, group: GroupId) -> str:
        """Its canonical selector; empty when it is not known."""
        first = self._segments.get(group, {}).get(0)
        return "" if first is None else first.selector


def groups_of(rules: Iterable[Rule]) -> Iterator[GroupId]:
    """Every group that the rules name, as often as they do."""
    for rule in rules:
        for match in (rule.source, rule.destination):
            yield from groups_of_match(match)


def groups_of_match(match: Match) -> tuple[GroupId, ...]:
    return (*match.groups, *match.not_groups, *match.named_ports, *match.not_named_ports)


def _join(segments: Mapping[int, Group]) -> Members | None:
    if not segments:
        return None
    count = max(group.segments for group in segments.values())
    if any(number not in segments for number in range(count)):
        return None
    keys: set[bytes] = set()
    nets: dict[tuple[int, int], set[int]] = {}
    for number in range(count):
        group = segments[number]
        width4, width6 = (ADDRESS4, ADDRESS6) if group.of == "addresses" else (PORT4, PORT6)
        keys.update(_cut(group.v4, width4), _cut(group.v6, width6))
        for packed in (*_cut(group.nets4, NET4), *_cut(group.nets6, NET6)):
            size = len(packed) - 1
            free = 8 * size - packed[-1]
            nets.setdefault((size, free), set()).add(int.from_bytes(packed[:-1], "big") >> free)
    return Members(segments[0].selector, frozenset(keys), {shape: frozenset(found) for shape, found in nets.items()})


def _cut(packed: bytes, width: int) -> list[bytes]:
    return [packed[at : at + width] for at in range(0, len(packed), width)]
