"""What is on the bus under some interests: first the last value of every key, then in sync, then the changes.

A feed subscribes to the live subjects first (every stored message is republished as a plain core message with its
sequence), then reads the snapshot, and merges the two in a `Ledger` by sequence per key. It begins again with every
session, and yields the differences only, deletions of what vanished included.

    session ──▶ subscribe live ──▶ snapshot ──▶ sweep ──▶ in sync ──▶ every CHECK_S: behind the stream? ──▶ snapshot
                     │                 │                                    (a live message was lost)
                     └──────┬──────────┘
                        Ledger ──▶ pending: one slot per key ──▶ next()

Broad interests (a whole family) are read through one pulled consumer per stream; narrow ones that come and go by the
hundred (an agent's rules and groups) by direct get, which leaves nothing on the server; what thousands read whole, from
packs of it (`chassis.packs`). See ARCHITECTURE section 3,
rules 2, 3, 6, 7 and 8.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from bus_schemas.codec import Malformed, decode
from bus_schemas.subjects import TOMBSTONE_TTL_S, Fact, Family, Key, Stream, live, stored
from chassis import jetstream, packs
from chassis.delivery import Delivery
from chassis.errors import Rejected, Unavailable, Unreadable, Unusable
from chassis.jetstream import Stored, TooManyResults
from chassis.ledger import Ledger, disjoint
from chassis.metrics import GAPS
from chassis.session import Session, Subscribed

if TYPE_CHECKING:
    from chassis.bus import Bus

MAX_FACTS = 4096
"""Facts of one batch: the reader's loop gets its turn in between."""
MAX_PENDING = 16384
"""A snapshot waits while more slots than this are pending."""
FIRST_CHECK_S = 1.0
CHECK_S = 5.0
"""How often a feed compares itself with the streams."""
SETTLE_S = 0.25
"""A message that is stored but not yet heard may be on its way for this long."""
CONSUMER_FILTERS = 250
"""Filters of one consumer: the server compares them in pairs."""
DIRECT_FILTERS = 200
"""Filters of one direct get."""
NARROW = 16
"""More narrow interests than this are checked a few at a time."""
CHECKED_AT_ONCE = 64
REREAD_S = 600.0
"""Everything is read again this often: a lost message that a later one of another key hides is found at last."""


class Interest(NamedTuple):
    """Every key of a family whose first tokens are `leading`."""

    family: Family[Any]
    leading: Key = ()

    @property
    def filter(self) -> str:
        return self.family.filter(*self.leading)

    @property
    def is_narrow(self) -> bool:
        """A few keys: those of one node, or the only one of its family."""
        return bool(self.leading) or not self.family.key


class Batch(NamedTuple):
    """What is new since the last one, in the order in which the keys first changed."""

    facts: list[Fact]
    synced: frozenset[Interest]
    """Interests whose snapshot is complete with this batch."""
    in_sync: bool
    """All interests have had their snapshot."""
    lost: tuple[Fact, ...] = ()
    """Keys that a wiped or re-created stream no longer holds (sequence 0, no value). They still stand for whoever reads
    them: silence never deletes. Their writer has to write them again."""
    unreadable: tuple[Unreadable, ...] = ()
    """What was kept out because it is not a message of its family; already counted and named in health. For a reader
    it does not exist, the last good value stands. Its writer may replace it."""


@dataclass(eq=False)
class _Followed:
    """One interest, as it is followed."""

    interest: Interest
    ledger: Ledger = field(default_factory=Ledger)
    subscribed: Subscribed | None = None
    checked: int = 0
    """Up to this sequence the stream holds nothing that was not heard; as the server said to a check, not as a snapshot
    ended: one that ends early is found by the check."""
    read: bool = False
    """Its snapshot was read in this session."""
    synced: bool = False
    """Its snapshot was read once at all."""
    discarded: bool = False
    """What still comes for it is not told to anybody."""

    @property
    def stream(self) -> Stream:
        return self.interest.family.stream


class _Slot(NamedTuple):
    followed: _Followed
    sequence: int
    payload: bytes
    """Empty: the key is absent."""
    ordinal: int
    """Its place in the order of first changes."""


class Feed:
    """Made by `Bus.follow`; an async context manager, read by one task with `next`."""

    def __init__(self, bus: Bus, interests: Sequence[Interest], name: str, *, packed: bool = False) -> None:
        """`packed`: whole families are read from their packs where there are any (`chassis.packs`)."""
        self._bus = bus
        self._packed = packed
        self._name = name
        self._followed: dict[Interest, _Followed] = {i: _Followed(i) for i in interests}
        self._dropped: list[_Followed] = []
        self._pending: dict[str, _Slot] = {}
        self._ordinal = count()
        self._marks: list[tuple[int, _Followed]] = []
        self._lost: dict[str, Fact] = {}
        self._created: dict[Stream, str] = {}
        """When each stream was made: which life of it our sequences belong to."""
        self._news = asyncio.Event()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._sessions = 0
        self._read_at: int | None = None
        """The ordinal from which on everything is newer than what the present session began with."""
        self.on_read: Callable[[], None] = lambda: None
        """Called when all interests have been read in a session, the first and every later one."""
        self._rotation = 0
        self._reread_at = asyncio.get_running_loop().time() + REREAD_S * random.uniform(0.8, 1.2)

    # --- for the reader

    async def __aenter__(self) -> Feed:
        self._task = self._bus.spawn(self._run(), f"feed {self._name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for followed in [*self._followed.values(), *self._dropped]:
            if followed.subscribed is not None:
                await followed.subscribed.unsubscribe()
        self._bus.parked.forget(self)
        self._bus.health.note(f"feed {self._name}", None)
        self._bus.health.note(f"feed {self._name} waits", None)

    @property
    def in_sync(self) -> bool:
        """All interests have had their snapshot, and it has been yielded."""
        return not self._marks and all(followed.synced for followed in self._followed.values())

    @property
    def current(self) -> int:
        """The number of the present session once everything that the bus held when it began has been yielded, else 0.

        In sync is for good, this is not: a reader that was cut off knows what was so then."""
        if self._session is None or self._session.ended.is_set() or self._read_at is None or not self.in_sync:
            return 0
        first = next(iter(self._pending.values()), None)
        return self._sessions if first is None or first.ordinal > self._read_at else 0

    def add(self, *interests: Interest) -> None:
        """More to follow; their last values come with the next batches."""
        for interest in interests:
            if interest not in self._followed:
                self._followed[interest] = _Followed(interest)
                self._changed.set()

    def discard(self, *interests: Interest) -> None:
        """Less to follow: the keys are forgotten, and nothing is said about them any more."""
        for interest in interests:
            followed = self._followed.pop(interest, None)
            if followed is None:
                continue
            followed.discarded = True
            self._dropped.append(followed)
            for subject in [s for s, slot in self._pending.items() if slot.followed is followed]:
                del self._pending[subject]
            self._marks = [mark for mark in self._marks if mark[1] is not followed]
            self._changed.set()
        self._news.set()  # what was still missing may have been only this

    async def next(self) -> Batch:
        """Waits until something is pending: facts, or interests that came in sync."""
        told = self.in_sync
        while True:
            await asyncio.sleep(0)  # a reader that is always behind must not keep everybody else waiting
            await self._news.wait()
            self._news.clear()
            batch = self._take()
            if batch.facts or batch.synced or batch.lost or batch.unreadable or batch.in_sync != told:
                return batch

    def _take(self) -> Batch:
        facts: list[Fact] = []
        unreadable: list[Unreadable] = []
        pending = self._pending
        for subject in list(islice(pending, MAX_FACTS)):
            told = self._told(subject, pending.pop(subject))
            if told is None:
                continue
            if isinstance(told, Unreadable):
                unreadable.append(told)
            else:
                facts.append(told)
        first = next(iter(pending.values()), None)
        done = [mark for mark in self._marks if first is None or mark[0] < first.ordinal]
        self._marks = self._marks[len(done) :]
        if pending:
            self._news.set()
        if len(pending) < MAX_PENDING:
            self._room.set()
        lost, self._lost = self._lost, {}
        synced = frozenset(followed.interest for _, followed in done)
        return Batch(facts, synced, self.in_sync, tuple(lost.values()), tuple(unreadable))

    def _told(self, subject: str, slot: _Slot) -> Fact | Unreadable | None:
        """The slot as the reader is told it. What cannot be read is parked: the last good value stands. None: a subject
        that is no key is gone."""
        family = slot.followed.interest.family
        key = family.parse(subject)
        if key is None and not slot.payload:
            self._bus.parked.release(self, subject)
            return None
        try:
            if key is None:
                raise Malformed("the subject is not an escaped key")
            value = decode(slot.payload, family.message) if slot.payload else None
        except Malformed as error:
            self._bus.parked.park(self, subject, family.stream, str(error))
            return Unreadable(subject, slot.sequence, str(error))
        self._bus.parked.release(self, subject)
        return Fact(family, key, value, slot.sequence)

    # --- from the bus

    def _heard(self, followed: _Followed, message: Stored) -> None:
        if followed.discarded:
            return
        now = asyncio.get_running_loop().time()
        tombstone = not message.payload
        was_kept = message.subject in followed.ledger.kept
        if followed.ledger.heard(
            message.subject, message.sequence, tombstone=tombstone, now=now, ttl_s=TOMBSTONE_TTL_S
        ):
            self._tell(followed, message)
            if tombstone:
                self._bus.tombstones.remember(message.subject, message.sequence)
            if was_kept and not followed.ledger.kept:
                self._name_kept()  # the last of them: it is all on the bus again

    def _tell(self, followed: _Followed, message: Stored) -> None:
        subject = message.subject
        self._lost.pop(subject, None)
        waiting = self._pending.get(subject)
        if waiting is not None and not message.payload and waiting.payload:
            # a removal takes no earlier place: what was written to stand for the key is told first
            del self._pending[subject]
            waiting = None
        ordinal = waiting.ordinal if waiting is not None else next(self._ordinal)
        self._pending[subject] = _Slot(followed, message.sequence, message.payload, ordinal)
        if len(self._pending) >= MAX_PENDING:
            self._room.clear()
        self._news.set()

    def _on_live(self, followed: _Followed, delivery: Delivery) -> None:
        sequence = delivery.number("Nats-Sequence")
        if sequence is not None:
            self._heard(followed, Stored(stored(delivery.subject), sequence, delivery.payload))

    async def _run(self) -> None:
        while True:
            session = await self._bus.session()
            if session is not self._session:
                self._begin(session)
            try:
                await self._follow(session)
            except (Unavailable, Unusable, Rejected) as error:
                if not session.ended.is_set():
                    # the server is there but a stream is not, or it refuses to be read: read all of it again soon
                    self._bus.health.note(f"feed {self._name} waits", str(error))
                    self._read_at = None
                    for followed in self._followed.values():
                        followed.read = False
                    await asyncio.sleep(SETTLE_S)

    def _begin(self, session: Session) -> None:
        """A new session: what was subscribed ended with the last one, and everything is to be read again."""
        self._session = session
        self._sessions += 1
        self._read_at = None
        for followed in self._followed.values():
            followed.subscribed = None
            followed.read = False
        self._dropped.clear()

    async def _follow(self, session: Session) -> None:
        """One session, to its end."""
        loop = asyncio.get_running_loop()
        session.when_ended(self._changed.set)
        check_at = loop.time() + FIRST_CHECK_S
        while not session.ended.is_set():
            self._changed.clear()
            await self._unsubscribe_dropped()
            unread = [f for f in self._followed.values() if not f.read]
            if unread:
                await self._read(session, unread)
                continue
            self._bus.health.note(f"feed {self._name} waits", None)
            if self._read_at is None:
                self._read_at = next(self._ordinal)
                self.on_read()
            try:
                async with asyncio.timeout_at(check_at):
                    await self._changed.wait()
            except TimeoutError:
                await self._check(session)
                check_at = loop.time() + CHECK_S

    async def _unsubscribe_dropped(self) -> None:
        while self._dropped:
            followed = self._dropped.pop()
            if followed.subscribed is not None:
                await followed.subscribed.unsubscribe()
                followed.subscribed = None
            self._name_kept()

    # --- snapshots

    async def _read(self, session: Session, unread: Sequence[_Followed]) -> None:
        """Subscribes and reads the last values of these interests, sweeps, and declares them in sync."""
        for followed in unread:
            if followed.subscribed is None:
                followed.subscribed = await self._subscribe(session, followed)
        by_stream: dict[Stream, list[_Followed]] = {}
        for followed in unread:
            by_stream.setdefault(followed.stream, []).append(followed)
        for stream, group in by_stream.items():
            await self._read_stream(session, stream, group)

    async def _subscribe(self, session: Session, followed: _Followed) -> Subscribed:
        def on_live(delivery: Delivery) -> None:
            self._on_live(followed, delivery)

        return await session.subscribe(live(followed.interest.filter), on_live)

    async def _read_stream(self, session: Session, stream: Stream, group: list[_Followed]) -> None:
        # before asking: what is heard while the answer is on its way may be newer than the answer
        known = [followed for followed in self._followed.values() if followed.stream is stream]
        highest = max((followed.ledger.highest for followed in known), default=0)
        holding = any(len(followed.ledger) > len(followed.ledger.kept) for followed in known)
        info = await jetstream.stream_info(session, stream)
        if info is None:
            await self._bus.repair_streams(session)
            raise Unavailable(f"stream {stream} did not exist")
        anew = self._created.get(stream, info.created) != info.created
        self._created[stream] = info.created
        # made anew, restored from the past, or emptied while we know keys
        if anew or info.state.last_seq < highest or (holding and info.state.messages == 0):
            self._lose(stream, known)
        upto = info.state.last_seq
        by_filter: dict[str, list[_Followed]] = {}
        for followed in group:
            by_filter.setdefault(followed.interest.filter, []).append(followed)
        seen: dict[str, set[str]] = {filter_: set() for filter_ in by_filter}

        narrow = [f.interest.filter for f in group if f.interest.is_narrow]
        broad = [f.interest.filter for f in group if not f.interest.is_narrow]
        for i in range(0, len(narrow), DIRECT_FILTERS):
            chunk = narrow[i : i + DIRECT_FILTERS]
            try:
                messages = await jetstream.last_of_each(session, stream, chunk)
            except TooManyResults:
                broad.extend(chunk)
                continue
            self._absorb(messages, chunk, by_filter, seen)
            await self._room.wait()
        if self._packed:
            broad = await self._read_packed(session, info, broad, by_filter, seen)
        for chunk in disjoint(broad, CONSUMER_FILTERS):
            async for messages in jetstream.snapshot(session, stream, chunk):
                self._absorb(messages, chunk, by_filter, seen)
                await self._room.wait()

        if any(followed.ledger.missing(seen[followed.interest.filter], upto) for followed in group):
            # before anything is taken away: was the stream wiped while we read it?
            again = await jetstream.stream_info(session, stream)
            if again is None or again.created != info.created or again.state.messages == 0:
                self._lose(stream, known)
                raise Unavailable(f"stream {stream} was wiped while it was read")
        for followed in group:
            self._sweep(followed, seen[followed.interest.filter], upto)

    async def _read_packed(
        self,
        session: Session,
        info: jetstream.StreamInfo,
        broad: Sequence[str],
        by_filter: dict[str, list[_Followed]],
        seen: dict[str, set[str]],
    ) -> list[str]:
        """Takes families from their packs and what is newer, and small ones without a consumer, of which a server makes
        only so many at once; the filters that are left to be read through one."""
        families = {f: by_filter[f][0].interest.family for f in broad if not by_filter[f][0].interest.leading}
        found = await packs.read(session, list(families.values())) if families else {}
        left = []
        for filter_ in broad:
            pack = found.get(families[filter_].name) if filter_ in families else None
            if pack is None or not pack.holds_for(info):
                left.append(filter_)
                continue
            for messages in pack.parts:
                self._absorb(messages, [filter_], by_filter, seen)
                await self._room.wait()
            async for messages in jetstream.since(session, families[filter_].stream, filter_, pack.upto + 1):
                self._absorb(messages, [filter_], by_filter, seen)
                await self._room.wait()
        if not left:
            return left
        try:
            messages = await jetstream.last_of_each(session, by_filter[left[0]][0].stream, left)
        except TooManyResults:
            return left
        self._absorb(messages, left, by_filter, seen)
        return []

    def _absorb(
        self,
        messages: Sequence[Stored],
        chunk: Sequence[str],
        by_filter: dict[str, list[_Followed]],
        seen: dict[str, set[str]],
    ) -> None:
        route = _Routes(chunk)
        for message in messages:
            for filter_ in chunk if len(chunk) == 1 else route.of(message.subject):
                seen[filter_].add(message.subject)
                for followed in by_filter[filter_]:
                    self._heard(followed, message)

    def _sweep(self, followed: _Followed, seen: set[str], upto: int) -> None:
        if followed.discarded:
            return
        for subject in followed.ledger.sweep(seen, upto):
            self._tell(followed, Stored(subject, 0, b""))
        followed.read = True
        followed.checked = 0
        if not followed.synced:
            followed.synced = True
            self._marks.append((next(self._ordinal), followed))
        self._name_kept()
        self._news.set()

    def _lose(self, stream: Stream, known: Sequence[_Followed]) -> None:
        """The stream was wiped: what we know of it stands until the next positive word, and its writers are told."""
        self._bus.stream_wiped(stream)
        for followed in known:
            followed.ledger.lose()
            followed.read = False
            family = followed.interest.family
            for subject in followed.ledger.kept:
                key = family.parse(subject)
                if key is not None:
                    self._lost[subject] = Fact(family, key, None, 0)
        self._name_kept()
        self._news.set()

    def _name_kept(self) -> None:
        kept = [subject for f in self._followed.values() for subject in f.ledger.kept]
        text = None
        if kept:
            streams = sorted({str(f.stream) for f in self._followed.values() if f.ledger.kept})
            text = (
                f"{', '.join(streams)} was wiped or re-created: {len(kept)} keys are kept until they are written or "
                f"deleted again ({', '.join(sorted(kept)[:3])}{' ...' if len(kept) > 3 else ''})"
            )
        self._bus.health.note(f"feed {self._name}", text)

    # --- self-check

    async def _check(self, session: Session) -> None:
        """Compares with the streams, and reads again what is behind."""
        now = asyncio.get_running_loop().time()
        followed = list(self._followed.values())
        for one in followed:
            one.ledger.expire(now)
        if now >= self._reread_at:
            self._reread_at = now + REREAD_S * random.uniform(0.8, 1.2)
            for one in followed:
                one.read = False
            return
        narrow = [one for one in followed if one.interest.leading]
        if len(narrow) > NARROW:
            followed = [one for one in followed if not one.interest.leading]
            await self._check_some(session, narrow)
        behind = [one for one in followed if await self._behind(session, one)]
        if behind:
            await asyncio.sleep(SETTLE_S)
        for one in behind:
            if await self._behind(session, one):
                self._gap(one)

    def _gap(self, followed: _Followed) -> None:
        GAPS.labels(followed.stream).inc()
        followed.read = False

    async def _behind(self, session: Session, followed: _Followed) -> bool:
        info = await jetstream.stream_info(session, followed.stream)
        if info is None:
            raise Unavailable(f"stream {followed.stream} does not exist")
        if self._created.get(followed.stream, info.created) != info.created:
            return True
        if 0 < followed.ledger.oldest < info.state.first_seq:
            return True  # it was emptied of what we know
        upto = info.state.last_seq
        start = max(followed.checked, followed.ledger.highest) + 1
        if start > upto:
            return False
        unheard = await jetstream.first_from(session, followed.stream, followed.interest.filter, start)
        if unheard is not None:
            return unheard.sequence > followed.ledger.highest
        followed.checked = upto
        return False

    async def _check_some(self, session: Session, narrow: Sequence[_Followed]) -> None:
        """Many narrow interests: the next few in turn, by reading them. What is on its way is only read early."""
        start = self._rotation % len(narrow)
        self._rotation += CHECKED_AT_ONCE
        some = [*narrow[start:], *narrow[:start]][:CHECKED_AT_ONCE]
        for stream in {one.stream for one in some}:
            by_filter = {one.interest.filter: [one] for one in some if one.stream is stream}
            try:
                messages = await jetstream.last_of_each(session, stream, list(by_filter))
            except TooManyResults:
                for (one,) in by_filter.values():
                    if await self._behind(session, one):
                        self._gap(one)
                continue
            self._absorb(messages, list(by_filter), by_filter, {filter_: set() for filter_ in by_filter})


class _Routes:
    """Which of some filters a subject matches, by the positions of their wildcards."""

    def __init__(self, filters: Sequence[str] | dict[str, Any]) -> None:
        self._shapes: dict[tuple[int, int], dict[tuple[str, ...], str]] = {}
        for filter_ in filters:
            tokens = filter_.split(".")
            fixed = len(tokens) - tokens.count("*")
            self._shapes.setdefault((len(tokens), fixed), {})[tuple(tokens[:fixed])] = filter_

    def of(self, subject: str) -> list[str]:
        tokens = subject.split(".")
        found = []
        for (length, fixed), heads in self._shapes.items():
            if length == len(tokens):
                filter_ = heads.get(tuple(tokens[:fixed]))
                if filter_ is not None:
                    found.append(filter_)
        return found
