"""The keys that a service derives, kept equal to what it wants.

    want(...), complete() ──▶ wanted ─┐
                                      ├─ differ? ──▶ atomic batches, each write on the sequence that we know
    feed of our own keys ───▶ known ──┘

Writes go in the order of the interests (groups before the rules that name them before the attachments), removals after
them in the reverse order. What somebody else changed, or a wiped stream lost, is written again. Nothing is written
before our own keys have been read once, and nothing while another replica holds the lease: the standby goes on wanting,
and writes what differs when it takes over. Every write is compare-and-swap, so a writer that lost its lease without
noticing cannot overwrite its successor.

Where several replicas write, each its part of the keys (`chassis.shares`), the order holds among them, too: what names
a key that another replica has yet to write waits until it is there, and a key that something on the bus still names,
which another replica has yet to change, is not removed before. Each replica wants all keys and follows all of them, so
it knows both without asking.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from bus_schemas.codec import Message, encode
from bus_schemas.events import Event
from bus_schemas.subjects import Family, Key, family_of
from chassis.bus import Bus, Write
from chassis.errors import Conflict, Rejected, Unavailable, Unreadable
from chassis.feed import Batch, Feed, Interest
from chassis.jetstream import MAX_BATCH
from chassis.metrics import REPAIRS

BATCH_BYTES = 4 * 1024 * 1024
"""A batch is cut here, so that one does not stall the server's log."""
RETRY_S = 0.2
RETRY_MAX_S = 2.0
CONFLICT_PAUSE_S = 0.02
"""At most so long between two looks at keys that somebody else is writing too."""

FEW = 4
"""So many writes go one by one. It is as fast as a batch where a batch is fast, and three times as fast where it is not
(`benchmarks.atomic_batch`); readers see the same order, of which a batch too is only a piece."""

ORDERING_PART = 4
"""What waits for other replicas is looked at again so many times later than the looking takes."""

_Id = tuple[int, Key]
"""A key, and its family by its place in the interests."""


class _Known(NamedTuple):
    sequence: int
    message: Message | None


_NOTHING = _Known(0, None)
_GARBAGE = Event(time=0, domain="", what="", message="what cannot be read is equal to nothing that is wanted")


class Mandate(Protocol):
    """What this replica may write: all of it or nothing (`Lease`), or a part (`Shares`)."""

    @property
    def held(self) -> bool:
        """It may write something."""

    def covers(self) -> Callable[[Key], bool]:
        """Whether it may write a key, as of now."""

    def on_change(self, callback: Callable[[bool], None]) -> None: ...


def _names_nothing(message: Message) -> Iterable[str]:
    return ()


def _spares_nothing(family: Family[Any], key: Key, message: Message) -> bool:
    return False


class Publication:
    """An async context manager; `run` must be running for `flush` to get anywhere."""

    def __init__(
        self,
        bus: Bus,
        interests: Sequence[Interest],
        *,
        lease: Mandate | None = None,
        independent: bool = False,
        names: Callable[[Message], Iterable[str]] = _names_nothing,
        spared: Callable[[Family[Any], Key, Message], bool] = _spares_nothing,
    ) -> None:
        """`interests` in the order of dependency: what others refer to comes first, and is removed last. `names`: the
        leading tokens of the keys that a message refers to. `spared`: of what is on the bus and not wanted, what is not
        ours to remove; when it would say otherwise than before, call `look_again`.

        `independent`: the keys say nothing about one another, so each is written by itself, many side by side. A
        server without replicas stages every batch of two or more in files of its own, which costs some syncs.
        """
        self._bus = bus
        self._lease = lease
        self._independent = independent
        self._names = names
        self._spared = spared
        self._moved = False
        """Something was wanted since the order of writing was made."""
        self._waits = False
        """Something of ours waits for another replica."""
        self._ordering_s = 0.0
        """How long it took to find out."""
        self._interests = list(interests)
        self._place = {interest.family.name: i for i, interest in enumerate(self._interests)}
        self._wanted: dict[_Id, Message | None] = {}
        self._known: dict[_Id, _Known] = {}
        self._dirty: dict[_Id, None] = {}
        self._refused: dict[_Id, str] = {}
        self._complete = False
        self._feed: Feed | None = None
        self.on_equal: Callable[[], None] = lambda: None
        """Called when what is wanted is on the bus, all of it, whoever wrote it; after every change anew."""
        self._replaced: dict[_Id, Message | None] = {}
        """What the writes under way are written over."""
        self.on_written: Callable[[Family[Any], Key, Message | None, Message | None], None] = lambda *_: None
        """Called with family, key, the value before and the value now, when we wrote a key."""
        self._synced = asyncio.Event()
        self._due = asyncio.Event()
        self._writing = asyncio.Lock()
        if lease is not None:
            lease.on_change(lambda _held: self._due.set())

    async def __aenter__(self) -> Publication:
        self._feed = self._bus.follow(*self._interests)
        await self._feed.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._feed is not None
        await self._feed.__aexit__(*exc_info)

    # --- what is wanted

    def want(self, family: Family[Any], key: Key, message: Message | None) -> None:
        """The value that the key shall have; None: it shall not exist. Takes effect with the present or the next flush.

        Keys of the first interest are written in the order in which they were last wanted; where very many are to be
        written, of the others the latest first, so that one change does not wait for a hundred thousand."""
        id_ = (self._place[family.name], tuple(key))
        self._refused.pop(id_, None)
        if message is None and self._complete:
            self._wanted.pop(id_, None)
        else:
            self._wanted[id_] = message
        self._dirty.pop(id_, None)  # written in the order in which the keys were last wanted
        self._moved = True
        self._compare(id_)

    def complete(self) -> None:
        """The wanted keys are all there are: from now on what is on the bus and not wanted is removed."""
        if self._complete:
            return
        self._complete = True
        for id_ in [id_ for id_, message in self._wanted.items() if message is None]:
            del self._wanted[id_]
        for id_ in self._known:
            self._compare(id_)

    def look_again(self, family: Family[Any]) -> None:
        """`spared` may say otherwise of the family's keys now."""
        place = self._place[family.name]
        for id_ in [id_ for id_ in self._known if id_[0] == place]:
            if self._compare(id_):
                self._due.set()

    def _spares(self, id_: _Id, known: Message) -> bool:
        return self._spared(self._interests[id_[0]].family, id_[1], known)

    @property
    def synced(self) -> bool:
        """Our own keys have been read once."""
        return self._synced.is_set()

    @property
    def pending(self) -> int:
        """How many keys differ from what is wanted."""
        return len(self._dirty)

    def _compare(self, id_: _Id) -> bool:
        known = self._known.get(id_, _NOTHING).message
        if id_ in self._wanted:
            wanted = self._wanted[id_]
        elif self._complete and not (known is not None and self._spares(id_, known)):
            wanted = None
        else:
            wanted = known
        if wanted == known or id_ in self._refused:
            self._dirty.pop(id_, None)
            if known is not None and wanted is not None and wanted is not known:
                self._known[id_] = self._known[id_]._replace(message=wanted)  # one object, not two equal ones
            return False
        self._dirty[id_] = None
        return True

    # --- what is on the bus

    async def run(self) -> None:
        """Follows our own keys, repairs what differs. For ever."""
        assert self._feed is not None, "use it as a context manager"
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repair())
            while True:
                self._learn(await self._feed.next())

    def _learn(self, batch: Batch) -> None:
        differs = False
        for fact in batch.facts:
            id_ = (self._place[fact.family.name], fact.key)
            known = self._known.get(id_, _NOTHING)
            if fact.sequence and fact.sequence <= known.sequence:
                continue  # our own write, come back
            self._known[id_] = _Known(fact.sequence, fact.value)
            if self._compare(id_):
                differs = True
                if self._synced.is_set():
                    REPAIRS.inc()
            elif self._waits:
                differs = True  # it may be what we wait for
            self._forget_absent(id_)
        for fact in batch.lost:
            id_ = (self._place[fact.family.name], fact.key)
            self._known.pop(id_, None)
            if self._compare(id_):
                differs = True
                REPAIRS.inc()
        for unreadable in batch.unreadable:
            if self._learn_garbage(unreadable):
                differs = True
        if batch.in_sync and not self._synced.is_set():
            self._synced.set()
            differs = True
        if differs:
            self._due.set()
        elif self._complete and not self._dirty:
            self.on_equal()

    def _learn_garbage(self, unreadable: Unreadable) -> bool:
        found = family_of(unreadable.subject, (interest.family for interest in self._interests))
        if found is None:
            return False
        family, key = found
        id_ = (self._place[family.name], key)
        self._known[id_] = _Known(unreadable.sequence, _GARBAGE)
        return self._compare(id_)

    def _forget_absent(self, id_: _Id) -> None:
        known = self._known[id_]
        if known.message is None and id_ not in self._dirty and id_ not in self._wanted:
            del self._known[id_]  # `expected=0` finds a tombstone by itself

    async def _repair(self) -> None:
        await self._synced.wait()
        while True:
            await self._due.wait()
            if self._waits:
                await asyncio.sleep(ORDERING_PART * self._ordering_s)
            self._due.clear()
            if self._complete or self._wanted:
                await self.flush()

    # --- writing

    async def write(self) -> None:
        """As `flush`, but what takes long is left to `run`: whoever wants more meanwhile can say so."""
        if len(self._dirty) > MAX_BATCH:
            self._due.set()
        else:
            await self.flush()

    async def flush(self) -> None:
        """Writes what differs, and returns when it is written, or at once while it is not ours to write.

        An outage is waited for and a conflict looked at again; neither is raised. A message that the server refuses for
        good (too large) is set aside and named in health until it is wanted differently.
        """
        async with self._writing:
            pause = RETRY_S
            while self._dirty and self._may_write():
                await self._synced.wait()
                todo = self._ours()
                if not todo:
                    break
                try:
                    await self._flush_once(todo)
                    pause = RETRY_S
                except Unavailable:
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(pause * 2, RETRY_MAX_S)
            self._name_refused()

    async def verify(self) -> None:
        """Reads every wanted key itself: what is not there, though the feed has not said so yet, is written with the
        next flush. Raises Unavailable."""
        await self._synced.wait()
        async with self._writing:
            wanted = [id_ for id_, message in self._wanted.items() if message is not None]
            for place in range(len(self._interests)):
                ids = [id_ for id_ in wanted if id_[0] == place]
                if ids:
                    await self._look(ids)

    @property
    def refused(self) -> frozenset[Key]:
        """Keys whose wanted value the server does not take."""
        return frozenset(key for _, key in self._refused)

    def _may_write(self) -> bool:
        return self._lease is None or self._lease.held

    def _ours(self) -> list[_Id]:
        """What differs, is ours, and waits for nobody; in the order in which it is to be written."""
        self._moved = False
        if self._lease is None:
            return self._ordered(self._dirty)
        covers = self._lease.covers()
        ours: list[_Id] = []
        others: list[_Id] = []
        for id_ in self._dirty:
            (ours if covers(id_[1]) else others).append(id_)
        loop = asyncio.get_running_loop()
        began = loop.time()
        ordered = self._ordered(ours)
        ready = self._ready(ordered, others) if others else ordered
        self._waits = len(ready) < len(ordered)
        self._ordering_s = loop.time() - began
        return ready

    def _ordered(self, ids: Iterable[_Id]) -> list[_Id]:
        writes: list[_Id] = []
        removals: list[_Id] = []
        for id_ in ids:
            (writes if self._wanted.get(id_) is not None else removals).append(id_)
        if len(writes) > MAX_BATCH:
            first = [id_ for id_ in writes if id_[0] == 0]
            writes = [*first, *(id_ for id_ in reversed(writes) if id_[0] > 0)]
        writes.sort(key=lambda id_: id_[0])
        removals.sort(key=lambda id_: -id_[0])
        return writes + removals

    def _ready(self, ordered: Sequence[_Id], others: Iterable[_Id]) -> list[_Id]:
        """Without what names a key that is yet to come, and without the removal of what something still names."""
        coming: set[str] = set()
        named: set[str] = set()

        def waits(id_: _Id) -> None:
            known = self._known.get(id_, _NOTHING).message
            if known is not None:
                named.update(self._names(known))
            elif self._wanted.get(id_) is not None:
                coming.add(id_[1][0])

        for id_ in others:
            waits(id_)
        ready: list[_Id] = []
        for id_ in ordered:
            message = self._wanted.get(id_)
            if id_[1][0] in named if message is None else coming and not coming.isdisjoint(self._names(message)):
                waits(id_)  # and so does what depends on it
            else:
                ready.append(id_)
        return ready

    async def _flush_once(self, todo: Sequence[_Id]) -> None:
        """One pass in order. Stops early, to be called again, when anything turned out different."""
        few = len(todo) <= FEW and not self._independent
        self._replaced.clear()
        while todo and self._may_write():
            ids, writes = self._cut(todo[:1] if few else todo)
            todo = todo[len(ids) :]
            if self._independent:
                if not await self._write_apart(ids, writes):
                    return
                continue
            try:
                sequences = await self._bus.batch(writes)
            except Conflict:
                await self._look(ids)
                await asyncio.sleep(random.uniform(0, CONFLICT_PAUSE_S))
                return
            except Unavailable:
                await self._look(ids)  # it may have happened
                raise
            except Rejected as error:
                await self._refuse(ids, writes, error)
                return
            for id_, write, sequence in zip(ids, writes, sequences, strict=True):
                self._written(id_, write, sequence)
            if self._moved:
                return

    def _written(self, id_: _Id, write: Write, sequence: int) -> None:
        if self._known.get(id_, _NOTHING).sequence < sequence:
            self._known[id_] = _Known(sequence, write.message)
        self.on_written(write.family, write.key, self._replaced.pop(id_, None), write.message)
        self._compare(id_)
        self._forget_absent(id_)

    async def _write_apart(self, ids: Sequence[_Id], writes: Sequence[Write]) -> bool:
        """Each by itself. False: some key turned out different. Raises Unavailable."""
        outcomes = await asyncio.gather(*(self._bus.batch([write]) for write in writes), return_exceptions=True)
        unsure: list[_Id] = []
        fault: Unavailable | None = None
        for id_, write, outcome in zip(ids, writes, outcomes, strict=True):
            match outcome:
                case Conflict():
                    unsure.append(id_)
                case Unavailable():
                    unsure.append(id_)
                    fault = outcome
                case Rejected():
                    await self._refuse([id_], [write], outcome)
                case BaseException():
                    raise outcome
                case [sequence]:
                    self._written(id_, write, sequence)
        if unsure:
            await self._look(unsure)
        if fault is not None:
            raise fault
        if unsure:
            await asyncio.sleep(random.uniform(0, CONFLICT_PAUSE_S))
        return not unsure

    def _cut(self, todo: Sequence[_Id]) -> tuple[list[_Id], list[Write]]:
        """The next batch: one stream, bounded in number and bytes."""
        ids: list[_Id] = []
        writes: list[Write] = []
        size = 0
        stream = self._interests[todo[0][0]].family.stream
        for id_ in todo:
            family = self._interests[id_[0]].family
            message = self._wanted.get(id_)
            size += len(encode(message)) if message is not None else 0
            if family.stream is not stream or len(ids) == MAX_BATCH or (ids and size > BATCH_BYTES):
                break
            ids.append(id_)
            known = self._known.get(id_, _NOTHING)
            self._replaced[id_] = known.message
            writes.append(Write(family, id_[1], message, known.sequence))
        return ids, writes

    async def _look(self, ids: Sequence[_Id]) -> None:
        """Reads the keys again, all of them in few requests."""
        families = [self._interests[id_[0]].family for id_ in ids]
        facts = await self._bus.get_many([(f, id_[1]) for f, id_ in zip(families, ids, strict=True)])
        for id_, fact in zip(ids, facts, strict=True):
            value = _GARBAGE if isinstance(fact, Unreadable) else fact.value
            self._known[id_] = _Known(fact.sequence, value)
            self._compare(id_)

    async def _refuse(self, ids: Sequence[_Id], writes: Sequence[Write], error: Rejected) -> None:
        """Finds out which of a refused batch the server does not take, and sets only those aside."""
        if len(ids) == 1:
            family = writes[0].family
            self._refused[ids[0]] = f"{family.subject(*writes[0].key)}: {error}"
            self._compare(ids[0])
            self._name_refused()
            return
        half = len(ids) // 2
        for part in (slice(0, half), slice(half, None)):
            some, changes = ids[part], writes[part]
            try:
                sequences = await self._bus.batch(changes)
            except Rejected as again:
                await self._refuse(some, changes, again)
                continue
            except Conflict:
                await self._look(some)
                continue
            for id_, write, sequence in zip(some, changes, sequences, strict=True):
                self._known[id_] = _Known(sequence, write.message)
                self._compare(id_)

    def _name_refused(self) -> None:
        texts = sorted(self._refused.values())
        self._bus.health.note(
            "refused", f"{len(texts)} messages are refused by the server: {'; '.join(texts[:3])}" if texts else None
        )
