"""The elements of one map of merged rules, while members of the groups come and go.

    (member of a group) x (what follows the address: protocol, port)  ->  counter, or deny chain, of who decides

Several rules can claim a key; the first in order has it, and when its member goes the key falls to the next. Only keys
with several claims keep a list of them: nearly all others have one, which is what the map says.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bus_schemas.ids import GroupId


class Lookup:
    __slots__ = ("_orders", "_rivals", "_users", "_verdicts")

    def __init__(self) -> None:
        self._verdicts: list[str] = []
        """In order: the earlier one decides."""
        self._orders: dict[str, int] = {}
        self._users: dict[GroupId, list[tuple[int, Sequence[bytes]]]] = {}
        """Group -> (place of the verdict, suffixes) of each rule that names it."""
        self._rivals: dict[bytes, list[int]] = {}
        """Key with several claims -> places of their verdicts, ascending, as often as claimed."""

    def order(self, verdict: str) -> int:
        """To be asked in order, before any rule is added."""
        place = self._orders.setdefault(verdict, len(self._verdicts))
        if place == len(self._verdicts):
            self._verdicts.append(verdict)
        return place

    def add(
        self, group: GroupId, verdict: str, suffixes: Sequence[bytes], members: Iterable[bytes], rows: dict[bytes, str]
    ) -> None:
        """One rule more: its keys into `rows`."""
        place = self._orders[verdict]
        self._users.setdefault(group, []).append((place, suffixes))
        for member in members:
            for suffix in suffixes:
                key = member + suffix
                if key not in rows:
                    rows[key] = verdict
                else:
                    rows[key] = self._claim(key, rows[key], place)

    @property
    def groups(self) -> Iterable[GroupId]:
        return self._users.keys()

    def move(
        self, group: GroupId, added: Iterable[bytes], removed: Iterable[bytes], rows: Mapping[bytes, str]
    ) -> Iterator[tuple[bytes, str | None]]:
        """(key, verdict or None for none) of what changes. `rows` are the elements as they are; each change has to be
        in them before the next one is asked for."""
        users = self._users.get(group, ())
        for member in added:
            for place, suffixes in users:
                for suffix in suffixes:
                    key = member + suffix
                    present = rows.get(key)
                    yield key, self._verdicts[place] if present is None else self._claim(key, present, place)
        for member in removed:
            for place, suffixes in users:
                for suffix in suffixes:
                    yield member + suffix, self._release(member + suffix, place)

    def _claim(self, key: bytes, present: str, place: int) -> str:
        rivals = self._rivals.get(key)
        if rivals is None:
            rivals = self._rivals[key] = [self._orders[present]]
        insort(rivals, place)
        return self._verdicts[rivals[0]]

    def _release(self, key: bytes, place: int) -> str | None:
        rivals = self._rivals.get(key)
        if rivals is None:
            return None
        rivals.remove(place)
        if len(rivals) == 1:
            del self._rivals[key]
        return self._verdicts[rivals[0]]
