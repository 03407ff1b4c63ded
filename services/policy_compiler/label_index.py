"""Who matches what, kept up to date from both sides without looking at everybody.

    an item changed                                         a selection came
        |  its labels                                           |  its rarest restriction
        v                                                       v
    waiting:  label -> value -> selections                  postings: label -> value -> items
              label -> None  -> selections (any value)
              unrestricted selections
        |                                                       |
        +--> candidates, each asked once whether it matches <---+
                                 |
              matched: item -> selections     <=>     members: selection -> items

Every selection waits under one label only, the one that costs least when it is added: few items carry it, few other
selections wait there. So an item finds all selections that can match it by looking up each of its labels, and none of
them twice. Items without labels are not in the index.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Set
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

from bus_schemas.ids import GroupId
from services.policy_compiler.labels import NAMESPACE, Labels
from services.policy_compiler.selection import Selection

SMALL_NAMESPACE = 64
"""A namespace with at most so many items is key enough; other restrictions are not looked at."""

Item = TypeVar("Item", bound=Hashable)


class Difference(NamedTuple):
    """How an item's selections changed."""

    gained: Set[GroupId]
    lost: Set[GroupId]


NOTHING: frozenset[GroupId] = frozenset()


class _Posting(Generic[Item]):
    """The items that carry one label."""

    __slots__ = ("by_value", "count")

    def __init__(self) -> None:
        self.by_value: dict[str, set[Item]] = {}
        self.count = 0


class _Entry(Generic[Item]):
    __slots__ = ("holders", "keys", "label", "members", "selection")

    def __init__(self, selection: Selection, label: str | None, keys: tuple[str | None, ...]) -> None:
        self.selection = selection
        self.label = label
        """Where it waits; None: unrestricted."""
        self.keys = keys
        """The values under which it waits; (None,): any value; (): nothing can match."""
        self.members: set[Item] = set()
        self.holders = 1


class LabelIndex(Generic[Item]):
    def __init__(self, small_namespace: int = SMALL_NAMESPACE) -> None:
        self._small_namespace = small_namespace
        self._labels: dict[Item, Labels] = {}
        self._matched: dict[Item, set[GroupId]] = {}
        self._postings: dict[str, _Posting[Item]] = {}
        self._entries: dict[GroupId, _Entry[Item]] = {}
        self._waiting: dict[str, dict[str | None, dict[GroupId, Selection]]] = {}
        self._unrestricted: dict[GroupId, Selection] = {}

    def __len__(self) -> int:
        """How many selections there are."""
        return len(self._entries)

    def matched(self, item: Item) -> Set[GroupId]:
        """The selections that the item matches."""
        return self._matched.get(item, NOTHING)

    def members(self, selection: GroupId) -> Set[Item]:
        """The items that match a selection that somebody holds."""
        return self._entries[selection].members

    def relabel(self, item: Item, labels: Labels | None) -> Difference:
        """The item's labels are now these; None: it is gone."""
        before = self._matched.get(item, NOTHING)
        self._post(item, self._labels.get(item, {}), labels or {})
        if labels is None:
            self._labels.pop(item, None)
            self._matched.pop(item, None)
            after: set[GroupId] = set()
        else:
            self._labels[item] = labels
            after = {uid for uid, selection in self._candidates(labels) if selection.matches(labels)}
            self._matched[item] = after
        if after == before:
            return Difference(NOTHING, NOTHING)
        gained, lost = after - before, before - after
        for uid in gained:
            self._entries[uid].members.add(item)
        for uid in lost:
            self._entries[uid].members.discard(item)
        return Difference(gained, lost)

    def hold(self, selection: Selection) -> None:
        """The selection is wanted once more. The first holder makes it: its members are looked up."""
        entry = self._entries.get(selection.uid)
        if entry is not None:
            entry.holders += 1
            return
        label, keys = self._key(selection)
        entry = self._entries[selection.uid] = _Entry(selection, label, keys)
        if label is None:
            self._unrestricted[selection.uid] = selection
        else:
            for key in keys:
                self._waiting.setdefault(label, {}).setdefault(key, {})[selection.uid] = selection
        # Who waits under its namespace (and not under another that its selector names) finds only items of it.
        found_there = label == NAMESPACE and keys == (selection.namespace,)
        matches = selection.selector.matches if found_there else selection.matches
        for item in self._carriers(label, keys):
            if matches(self._labels[item]):
                entry.members.add(item)
                self._matched[item].add(selection.uid)

    def release(self, selection: GroupId) -> None:
        """One holder less. The last one takes the selection away."""
        entry = self._entries[selection]
        entry.holders -= 1
        if entry.holders:
            return
        del self._entries[selection]
        for item in entry.members:
            self._matched[item].discard(selection)
        if entry.label is None:
            del self._unrestricted[selection]
            return
        for key in entry.keys:
            waiting = self._waiting[entry.label]
            del waiting[key][selection]
            if not waiting[key]:
                del waiting[key]
            if not waiting:
                del self._waiting[entry.label]

    # --- items

    def _post(self, item: Item, before: Labels, after: Labels) -> None:
        for label, value in before.items():
            if after.get(label) != value:
                posting = self._postings[label]
                posting.by_value[value].discard(item)
                if not posting.by_value[value]:
                    del posting.by_value[value]
                posting.count -= 1
                if not posting.count:
                    del self._postings[label]
        for label, value in after.items():
            if before and before.get(label) == value:
                continue
            found = self._postings.get(label)
            if found is None:
                found = self._postings[label] = _Posting()
            carriers = found.by_value.get(value)
            if carriers is None:
                found.by_value[value] = {item}
            else:
                carriers.add(item)
            found.count += 1

    def _candidates(self, labels: Labels) -> Iterator[tuple[GroupId, Selection]]:
        yield from self._unrestricted.items()
        for label, value in labels.items():
            waiting = self._waiting.get(label)
            if waiting is not None:
                if value in waiting:
                    yield from waiting[value].items()
                if None in waiting:
                    yield from waiting[None].items()

    # --- selections

    def _key(self, selection: Selection) -> tuple[str | None, tuple[str | None, ...]]:
        """The label and values that are cheapest to wait under. Ties go to the namespace."""
        best: tuple[str | None, tuple[str | None, ...]] = (None, ())
        least: int | None = None
        if selection.namespace:
            best, least = (NAMESPACE, (selection.namespace,)), self._cost(NAMESPACE, (selection.namespace,))
            if least <= self._small_namespace:
                return best
        for label, restriction in selection.selector.restrictions.items():
            keys: tuple[str | None, ...]
            if restriction.one_of is not None:
                keys = tuple(restriction.one_of)
            elif restriction.must_be_present:
                keys = (None,)
            else:
                continue
            cost = self._cost(label, keys)
            if least is None or cost < least:
                best, least = (label, keys), cost
        return best

    def _cost(self, label: str, keys: tuple[str | None, ...]) -> int:
        """How many items carry the label with one of the values, and how many selections wait there already."""
        cost = 0
        waiting, posting = self._waiting.get(label), self._postings.get(label)
        for key in keys:
            if waiting is not None:
                cost += len(waiting.get(key, ()))
            if posting is not None:
                cost += posting.count if key is None else len(posting.by_value.get(key, ()))
        return cost

    def _carriers(self, label: str | None, keys: tuple[str | None, ...]) -> Iterable[Item]:
        """The items among which a selection with this key has its members."""
        if label is None:
            return self._labels
        posting = self._postings.get(label)
        if posting is None:
            return ()
        if None in keys:
            return chain.from_iterable(posting.by_value.values())
        return chain.from_iterable(posting.by_value.get(key, ()) for key in keys if key is not None)
