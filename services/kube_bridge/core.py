"""The objects of Kubernetes as they are now, and what of the bus follows from them. Pure.

    Listed (all of a source), Changed, Gone, Absent --apply--> objects --flush--> Changes(wanted, troubles)

Snapshot and stream end in one place: a list replaces what was known of its source, whatever is not in it is gone. What
cannot be read is not gone: its last good value stays wanted. Of two objects with one key the one of the source that
comes first in `sources` counts, the other one is in trouble.

    _objects   source -> name -> Seen
    _claims    (kind, key) -> the Seen that want to be it, most often one
    _wanted    (kind, key) -> resource, as of the last flush: what may be kept when its object cannot be read any more

A kind is *complete* once every source of it has been listed or is known to be absent (and one has been listed). Before,
and for whatever is absent, forbidden or silent later, nothing is taken away from the bus.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bus_schemas.resources import IPPool, Resource
from services.kube_bridge.mirror import Name, Seen
from services.kube_bridge.overlaps import settle
from services.kube_bridge.sources import RANK, SOURCES, Source

Kind = type[Resource]
Id = tuple[Kind, tuple[str, str]]


class Listed(NamedTuple):
    """Everything that the source has."""

    source: Source
    objects: Sequence[Seen]


class Changed(NamedTuple):
    seen: Seen


class Gone(NamedTuple):
    source: Source
    name: Name


class Absent(NamedTuple):
    """The server does not have the resource at all: no word about its objects."""

    source: Source


Fact = Listed | Changed | Gone | Absent


class Trouble(NamedTuple):
    """An object that is not mirrored as it is."""

    source: Source
    name: Name
    uid: str
    what: str
    """`invalid`, or `shadowed`: another object has its key."""
    reasons: tuple[str, ...]
    instead: str
    """What stands in its place, as the end of a sentence."""

    @property
    def display(self) -> str:
        return "/".join(filter(None, (self.source.kind, *self.name)))


@dataclass
class Changes:
    wanted: dict[Id, Resource | None] = field(default_factory=dict)
    """None: it shall not exist."""
    completed: list[Kind] = field(default_factory=list)
    raised: list[Trouble] = field(default_factory=list)
    cleared: list[Trouble] = field(default_factory=list)


class Core:
    def __init__(self) -> None:
        self._objects: dict[Source, dict[Name, Seen]] = {source: {} for source in SOURCES}
        self._claims: dict[Id, tuple[Seen, ...]] = {}
        self._wanted: dict[Id, Resource] = {}
        self._recalled: dict[Id, Resource | None] = {}
        """Of objects that could not be read when they were first seen: what the bus had."""
        self._troubles: dict[tuple[Source, Name], Trouble] = {}
        self._listed: set[Source] = set()
        self._absent: set[Source] = set()
        self._complete: set[Kind] = set()
        self._dirty: dict[Id, None] = {}
        self._left: list[tuple[Source, Name]] = []
        """Objects that are gone, or have another key, since the last flush."""

    # --- what is so

    def apply(self, fact: Fact) -> None:
        match fact:
            case Listed(source, objects):
                self._list(source, objects)
            case Changed(seen):
                self._put(seen)
            case Gone(source, name):
                self._remove(source, name)
            case Absent(source):
                self._absent.add(source)

    def _list(self, source: Source, objects: Sequence[Seen]) -> None:
        self._listed.add(source)
        self._absent.discard(source)
        names = {seen.name for seen in objects}
        for name in [name for name in self._objects[source] if name not in names]:
            self._remove(source, name)
        for seen in objects:
            self._put(seen)

    def _put(self, seen: Seen) -> None:
        objects = self._objects[seen.source]
        before = objects.get(seen.name)
        objects[seen.name] = seen
        if before is not None and before.resource is not None and before.resource == seen.resource:
            seen = objects[seen.name] = seen._replace(resource=before.resource)  # one object, not two equal ones
        self._unclaim(before, unless=seen)
        id_ = (seen.source.resource, seen.key)
        others = tuple(other for other in self._claims.get(id_, ()) if _where(other) != _where(seen))
        self._claims[id_] = tuple(sorted((*others, seen), key=_precedence)) if others else (seen,)
        self._dirty[id_] = None

    def _remove(self, source: Source, name: Name) -> None:
        self._unclaim(self._objects[source].pop(name, None))

    def _unclaim(self, seen: Seen | None, unless: Seen | None = None) -> None:
        if seen is None or (unless is not None and unless.key == seen.key):
            return
        id_ = (seen.source.resource, seen.key)
        rest = tuple(other for other in self._claims.get(id_, ()) if _where(other) != _where(seen))
        if rest:
            self._claims[id_] = rest
        else:
            self._claims.pop(id_, None)
        self._dirty[id_] = None
        if unless is None:
            self._left.append(_where(seen))

    # --- what cannot be decided from Kubernetes alone

    def unsure(self) -> list[Id]:
        """Objects that cannot be read and never could since the start: what does the bus have of them?"""
        return [id_ for id_ in self._dirty if self._is_unsure(id_)]

    def _is_unsure(self, id_: Id) -> bool:
        claims = self._claims.get(id_, ())
        unreadable = bool(claims) and all(seen.resource is None for seen in claims)
        return unreadable and id_ not in self._wanted and id_ not in self._recalled

    def recall(self, id_: Id, resource: Resource | None) -> None:
        """What the bus has."""
        self._recalled[id_] = resource

    # --- what follows

    def flush(self) -> Changes:
        """What differs from the last flush. Objects that are `unsure` wait."""
        changes = Changes()
        dirty, self._dirty = self._dirty, {}
        ids = dict.fromkeys(dirty)
        if any(kind is IPPool for kind, _ in ids):
            ids.update(dict.fromkeys(id_ for id_ in self._claims if id_[0] is IPPool))
        pools = self._settle_pools() if any(kind is IPPool for kind, _ in ids) else {}
        for source, name in self._left:
            if name not in self._objects[source]:
                self._trouble((source, name), None, changes)
        self._left.clear()
        for id_ in ids:
            if self._is_unsure(id_):
                self._dirty[id_] = None
            else:
                self._decide(id_, pools, changes)
        changes.completed = self._completed()
        return changes

    def _decide(self, id_: Id, pools: Mapping[Id, tuple[str, ...]], changes: Changes) -> None:
        claims = self._claims.get(id_, ())
        good = None if pools.get(id_) else next((seen for seen in claims if seen.resource is not None), None)
        wanted = good.resource if good is not None else self._instead(id_, claims)
        for seen in claims:
            self._trouble(_where(seen), self._judge(seen, good, id_, pools, wanted), changes)
        before = self._wanted.get(id_)
        if wanted is None:
            self._wanted.pop(id_, None)
        else:
            self._wanted[id_] = wanted
        if good is not None or not claims:
            self._recalled.pop(id_, None)
        if wanted != before or (wanted is None and not claims):
            changes.wanted[id_] = wanted

    def _instead(self, id_: Id, claims: Sequence[Seen]) -> Resource | None:
        """What stands for objects of which none can be read."""
        if not claims:
            return None
        kept = self._wanted.get(id_) or self._recalled.get(id_)
        return kept if kept is not None else next((seen.stand_in for seen in claims if seen.stand_in), None)

    def _judge(
        self, seen: Seen, good: Seen | None, id_: Id, pools: Mapping[Id, tuple[str, ...]], wanted: Resource | None
    ) -> Trouble | None:
        if good is not None and _where(good) == _where(seen):
            return None
        faults = seen.faults or (pools.get(id_, ()) if seen.resource is not None else ())
        if good is not None and not seen.faults:
            reason = f"{good.source.name} has an object of this name, too, which counts"
            return Trouble(seen.source, seen.name, seen.uid, "shadowed", (reason,), "the other one is in force")
        instead = "nothing of it is in force"
        if wanted is not None:
            closed = seen.stand_in is not None and wanted == seen.stand_in
            instead = "what it isolates is closed" if closed else "what it was before stays in force"
        return Trouble(seen.source, seen.name, seen.uid, "invalid", faults, instead)

    def _trouble(self, where: tuple[Source, Name], trouble: Trouble | None, changes: Changes) -> None:
        before = self._troubles.get(where)
        if before == trouble:
            return
        if trouble is None:
            assert before is not None
            del self._troubles[where]
            changes.cleared.append(before)
        else:
            self._troubles[where] = trouble
            changes.raised.append(trouble)

    def _settle_pools(self) -> dict[Id, tuple[str, ...]]:
        """What is wrong with each pool beside the others: the older one stays."""
        candidates = {
            id_: seen.resource
            for id_, claims in self._claims.items()
            if id_[0] is IPPool
            for seen in [next((seen for seen in claims if seen.resource is not None), claims[0])]
            if isinstance(seen.resource, IPPool)
        }
        before = {id_: pool for id_, pool in self._wanted.items() if isinstance(pool, IPPool)}
        return settle(candidates, before)

    def _completed(self) -> list[Kind]:
        fresh = []
        for kind in dict.fromkeys(source.resource for source in SOURCES):
            sources = [source for source in SOURCES if source.resource is kind]
            if kind in self._complete or not any(source in self._listed for source in sources):
                continue
            if all(source in self._listed or source in self._absent for source in sources):
                self._complete.add(kind)
                fresh.append(kind)
        return fresh

    # --- for the shell

    def may_remove(self, kind: Kind, key: tuple[str, str]) -> bool:
        """Whether what is not wanted is really gone from Kubernetes."""
        return kind in self._complete and (kind, key) not in self._claims

    def get(self, source: Source, name: Name) -> Seen | None:
        return self._objects[source].get(name)

    def objects(self, source: Source) -> Iterable[Seen]:
        return self._objects[source].values()

    def count(self, source: Source) -> int:
        return len(self._objects[source])

    def trouble(self, source: Source, name: Name) -> Trouble | None:
        return self._troubles.get((source, name))

    @property
    def troubles(self) -> Iterator[Trouble]:
        return iter(self._troubles.values())

    def claims(self, kind: Kind, key: tuple[str, str]) -> tuple[Seen, ...]:
        return self._claims.get((kind, key), ())

    def leftovers(self) -> dict[Source, int]:
        """Objects that are kept though the server does not have their resource any more."""
        return {source: len(self._objects[source]) for source in self._absent if self._objects[source]}


def _where(seen: Seen) -> tuple[Source, Name]:
    return seen.source, seen.name


def _precedence(seen: Seen) -> tuple[int, Name]:
    return RANK[seen.source], seen.name
