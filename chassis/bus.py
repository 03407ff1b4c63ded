"""The bus as a service sees it: state by key, read, written, followed; requests; events.

A `Bus` opens one session after another for ever, with jittered pauses, and makes sure of the streams on each of them.
Nothing here fails because the bus is away: a write or a request waits a little for it and then raises `Unavailable`, a
feed goes on by itself, an event is buffered. Health names the cause `bus` while there is no usable session.

Compare-and-swap, exactly
- `expected` is the key's last sequence as a `Fact` told it, of a value or of a tombstone.
- `expected=0` means that the key must not exist. A tombstone on the bus is "does not exist": the chassis looks and
  swaps on the tombstone's own sequence.
- A tombstone expires (TOMBSTONE_TTL_S). A swap on the sequence of one that has expired is tried again on "nothing" when
  this process saw that it was a tombstone; otherwise it is a Conflict with `actual=0`, and `get` tells the truth.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from bus_schemas import VERSION
from bus_schemas.codec import Malformed, Message, decode, encode
from bus_schemas.events import Event
from bus_schemas.happenings import completed
from bus_schemas.ids import escape
from bus_schemas.subjects import EVENT, TOMBSTONE_TTL_S, Fact, Family, Key, Rpc, Stream
from chassis import jetstream, streams
from chassis.delivery import Delivery
from chassis.errors import Conflict, Rejected, RequestFailed, Unavailable, Unreadable, Unusable
from chassis.event_pacing import EventPacing
from chassis.feed import Feed, Interest
from chassis.health import Health
from chassis.jetstream import MAX_BATCH, Outgoing
from chassis.logs import logger
from chassis.metrics import CONFLICTS, CONNECTED, EVENTS_DROPPED, RECONNECTS, WIPED
from chassis.micro import CONCURRENT, WAITING, MicroService
from chassis.nearness import stay_near
from chassis.parked import Parked
from chassis.session import NobodyAnswers, Session
from chassis.settings import ServiceSettings
from chassis.tombstones import Tombstones

OPERATION_TIMEOUT_S = 5.0
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.5
EVENT_BUFFER = 1000
SWAP_ATTEMPTS = 4
SILENT_S = 20.0
"""So long a part of the requests whose replica does not answer at all goes to all replicas."""
DIRECT_SUBJECTS = 500
"""Subjects of one direct get."""

__all__ = ["Bus", "Interest", "Write"]


class Write(NamedTuple):
    """One change of a batch."""

    family: Family[Any]
    key: Key
    message: Message | None
    """None: a tombstone."""
    expected: int | None = None
    """As in `Bus.swap`; None: whatever is there is overwritten."""
    ttl_s: float | None = None


class Life(NamedTuple):
    """Of a stream."""

    began: float
    """Unix time in seconds, by the server's clock."""
    written: bool
    """Something was stored once, though it may be gone."""


class Bus:
    """Made by `Bus.connect`."""

    def __init__(self, settings: ServiceSettings, *, name: str, health: Health) -> None:
        self.name = name
        self.health = health
        self.parked = Parked(health)
        self.tombstones = Tombstones()
        self.instance = settings.instance or "unnamed"
        self._settings = settings
        self._servers = [server.strip() for server in settings.nats_url.split(",") if server.strip()]
        self._session: Session | None = None
        self._usable = asyncio.Event()
        self._away = asyncio.Event()
        self._away.set()
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._events: deque[tuple[str, bytes]] = deque()
        self._emitted = asyncio.Event()
        self._pacing = EventPacing()
        self._counted = asyncio.Event()
        self._log = logger(name)
        self._feeds = 0
        self._silent: dict[tuple[Rpc, int], float] = {}
        """Parts of requests whose replica is away, and until when they go to all replicas."""
        self._looking: set[tuple[Rpc, int]] = set()
        self._repairing = asyncio.Lock()

    @staticmethod
    @asynccontextmanager
    async def connect(settings: ServiceSettings, *, name: str, health: Health) -> AsyncIterator[Bus]:
        """Returns at once, whether or not there is a server. Leaving ends every task of the bus."""
        bus = Bus(settings, name=name, health=health)
        health.fail("bus", "not connected yet")
        fault: BaseException | None = None
        async with asyncio.TaskGroup() as tasks:
            bus._tasks = tasks
            bus.spawn(bus._keep_connected(), "bus")
            bus.spawn(bus._send_events(), "events")
            bus.spawn(bus._sum_events(), "event sums")
            try:
                yield bus
            except BaseException as error:  # noqa: BLE001
                fault = error  # raised as it is, not in a group, once our own tasks are gone
            for task in list(bus._running):
                task.cancel()
        if fault is not None:
            raise fault

    # --- sessions

    async def connected(self) -> None:
        """Waits for a usable bus: a session on which every stream is as it must be."""
        await self.session()

    async def away(self) -> None:
        """Waits until there is no usable bus; returns at once where there is none."""
        await self._away.wait()

    async def session(self) -> Session:
        """The usable session. For the chassis itself."""
        while True:
            await self._usable.wait()
            session = self._session
            if session is not None and not session.ended.is_set():
                return session
            await asyncio.sleep(0)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task that lives as long as the bus; its failure ends the bus. For the chassis itself."""
        assert self._tasks is not None, "the bus was left"
        task = self._tasks.create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def repair_streams(self, session: Session) -> None:
        """A stream was found missing on a living session: make it again. For the chassis itself."""
        async with self._repairing:
            await streams.ensure(session, self._settings.nats_replicas)

    def stream_wiped(self, stream: Stream) -> None:
        """A feed found that a stream was wiped or re-created. For the chassis itself."""
        WIPED.labels(stream).inc()
        self._log.warning("a stream was wiped or re-created; its keys are kept", stream=str(stream))

    async def _keep_connected(self) -> None:
        pause = RETRY_FIRST_S
        attempt = random.randrange(len(self._servers)) if self._servers else 0
        reported = ""
        while True:
            server = self._servers[attempt % len(self._servers)]
            attempt += 1
            try:
                session = await self._open(server)
            except (Unavailable, Unusable) as error:
                self.health.fail("bus", str(error))
                if str(error) != reported:
                    reported = str(error)
                    self._log.warning("no bus", reason=reported)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, RETRY_MAX_S)
                continue
            pause, reported = RETRY_FIRST_S, ""
            await self._use(session)

    async def _open(self, server: str) -> Session:
        inbox = f"_INBOX.{escape(self.name)}.{escape(self.instance)}.{uuid4().hex[:12]}"
        session = await Session.open(
            server,
            name=f"{self.name}/{self.instance}",
            inbox=inbox,
            credentials=self._settings.nats_credentials,
        )
        try:
            await streams.ensure(session, self._settings.nats_replicas)
        except BaseException:
            await session.close()
            raise
        return session

    async def _use(self, session: Session) -> None:
        RECONNECTS.inc()
        CONNECTED.set(1)
        session.on_denied = lambda text: self.health.note("denied", text)
        self.health.note("denied", None)
        self._session = session
        self._usable.set()
        self._away.clear()
        self.health.ok("bus")
        self._log.info("connected", server=session.server, version=session.server_version)
        try:
            await session.watch()
        finally:
            self._usable.clear()
            self._away.set()
            self._session = None
            CONNECTED.set(0)
            reason = session.reason
            self.health.fail("bus", reason or "closed")
            await session.close()
        self._log.warning("disconnected", reason=reason)
        if session.bug is not None:
            raise session.bug

    async def _usable_within(self, timeout_s: float) -> Session:
        session = self._session
        if session is not None and not session.ended.is_set():
            return session
        try:
            async with asyncio.timeout(timeout_s):
                return await self.session()
        except TimeoutError as error:
            raise Unavailable(self.health.causes.get("bus", "no bus")) from error

    # --- state: writing

    async def put(self, family: Family[Any], key: Key, message: Message, *, ttl_s: float | None = None) -> int:
        """Stores the value, whatever was there; its sequence. Raises Unavailable, Rejected."""
        session = await self._usable_within(OPERATION_TIMEOUT_S)
        return await self._publish(session, _outgoing(Write(family, key, message, None, ttl_s)))

    async def swap(
        self, family: Family[Any], key: Key, message: Message | None, *, expected: int, ttl_s: float | None = None
    ) -> int:
        """Stores the value (None: a tombstone) if the key is still at `expected`; its sequence.

        Raises Conflict (nothing was written), Unavailable (the outcome is unknown), Rejected.
        """
        return (await self.batch([Write(family, key, message, expected, ttl_s)]))[0]

    async def delete(self, family: Family[Any], key: Key) -> int:
        """Stores a tombstone, whatever was there; its sequence. Raises Unavailable, Rejected."""
        session = await self._usable_within(OPERATION_TIMEOUT_S)
        return await self._publish(session, _outgoing(Write(family, key, None)))

    async def batch(self, writes: Sequence[Write]) -> list[int]:
        """All of the writes or none, in one stream, at most MAX_BATCH; their sequences, in order.

        Raises Conflict naming the first key that is not as expected, Unavailable (the outcome is unknown), Rejected.
        """
        if not writes:
            return []
        stream = writes[0].family.stream
        assert all(write.family.stream is stream for write in writes), "an atomic batch lies in one stream"
        assert len(writes) <= MAX_BATCH, f"a batch has at most {MAX_BATCH} writes, not {len(writes)}"
        messages = [self._on_its_grave(_outgoing(write)) for write in writes]
        session = await self._usable_within(OPERATION_TIMEOUT_S)
        for attempt in range(SWAP_ATTEMPTS):
            try:
                return await self._publish_all(session, messages)
            except jetstream.Incomplete:
                if attempt == SWAP_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(random.uniform(0.01, 0.1) * (attempt + 1))
            except Conflict as conflict:
                CONFLICTS.inc()
                if attempt == SWAP_ATTEMPTS - 1:
                    raise
                messages = await self._reconsider(session, stream, messages, conflict)
                await asyncio.sleep(random.uniform(0, 0.01) * attempt)
        raise AssertionError("the last attempt returns or raises")

    def _on_its_grave(self, message: Outgoing) -> Outgoing:
        """What must not exist may have left a tombstone that we know: to swap on it saves a refusal."""
        if message.expected != 0:
            return message
        return message._replace(expected=self.tombstones.last(message.subject))

    async def _reconsider(
        self, session: Session, stream: Stream, messages: Sequence[Outgoing], conflict: Conflict
    ) -> list[Outgoing]:
        """The messages with the same meaning and other sequences, where only tombstones came or went between.

        Raises the Conflict of the first key that really is not as expected, with the names of all others that are not.
        """
        now: dict[str, jetstream.Stored] = {}
        subjects = [m.subject for m in messages if m.expected is not None]
        for i in range(0, len(subjects), DIRECT_SUBJECTS):
            chunk = subjects[i : i + DIRECT_SUBJECTS]
            now |= {found.subject: found for found in await jetstream.last_of_each(session, stream, chunk)}
        result = []
        conflicting: list[tuple[Outgoing, int]] = []
        for message in messages:
            found = now.get(message.subject)
            actual = found.sequence if found else 0
            if message.expected is None or message.expected == actual:
                result.append(message)
                continue
            absent = found is None or not found.payload
            believed_absent = message.expected == 0 or self.tombstones.known(message.subject, message.expected)
            if not (absent and believed_absent):
                conflicting.append((message, actual))
            result.append(message._replace(expected=actual))
        if conflicting:
            (first, actual), *others = conflicting
            raise Conflict(
                first.subject,
                expected=first.expected or 0,
                actual=actual,
                others=[other.subject for other, _ in others],
            ) from conflict
        return result

    async def _publish(self, session: Session, message: Outgoing) -> int:
        return (await self._publish_all(session, [message]))[0]

    async def _publish_all(self, session: Session, messages: Sequence[Outgoing]) -> list[int]:
        try:
            sequences = await jetstream.publish_batch(session, messages, timeout_s=OPERATION_TIMEOUT_S)
        except jetstream.NoStream:
            await self.repair_streams(session)
            sequences = await jetstream.publish_batch(session, messages, timeout_s=OPERATION_TIMEOUT_S)
        for message, sequence in zip(messages, sequences, strict=True):
            if message.payload:
                self.tombstones.forget(message.subject)
            else:
                self.tombstones.remember(message.subject, sequence)
        return sequences

    # --- state: reading

    async def get(self, family: Family[Any], key: Key) -> Fact:
        """The key's last value; None with a tombstone's sequence, or with 0 when there is nothing at all.

        Raises Unavailable, and Malformed when the value cannot be read.
        """
        session = await self._usable_within(OPERATION_TIMEOUT_S)
        subject = family.subject(*key)
        found = await jetstream.last(session, family.stream, subject)
        if found is None:
            return Fact(family, key, None, 0)
        if not found.payload:
            self.tombstones.remember(subject, found.sequence)
            return Fact(family, key, None, found.sequence)
        return Fact(family, key, decode(found.payload, family.message), found.sequence)

    async def get_many(self, keys: Sequence[tuple[Family[Any], Key]]) -> list[Fact | Unreadable]:
        """As `get`, for many keys of one stream in few requests; what cannot be read is Unreadable."""
        session = await self._usable_within(OPERATION_TIMEOUT_S)
        subjects = [family.subject(*key) for family, key in keys]
        found: dict[str, jetstream.Stored] = {}
        for i in range(0, len(subjects), DIRECT_SUBJECTS):
            chunk = subjects[i : i + DIRECT_SUBJECTS]
            found |= {s.subject: s for s in await jetstream.last_of_each(session, keys[0][0].stream, chunk)}
        facts: list[Fact | Unreadable] = []
        for (family, key), subject in zip(keys, subjects, strict=True):
            message = found.get(subject)
            if message is None or not message.payload:
                facts.append(Fact(family, key, None, message.sequence if message else 0))
                continue
            try:
                facts.append(Fact(family, key, decode(message.payload, family.message), message.sequence))
            except Malformed as error:
                facts.append(Unreadable(subject, message.sequence, str(error)))
        return facts

    def follow(self, *interests: Interest, packed: bool = False) -> Feed:
        """All keys of the interests, for as long as the feed is open. `packed`: for one of very many readers of whole
        families; not for the writer of a family, who must see what the stream itself holds."""
        self._feeds += 1
        return Feed(self, interests, f"{self._feeds}", packed=packed)

    async def life(self, stream: Stream) -> Life:
        """When the stream was made, and whether it ever held anything. Raises Unavailable."""
        session = await self._usable_within(OPERATION_TIMEOUT_S)
        info = await jetstream.stream_info(session, stream)
        if info is None:
            raise Unavailable(f"stream {stream} does not exist")
        first = int(info.config.get("first_seq") or 1)
        return Life(datetime.fromisoformat(info.created).timestamp(), info.state.last_seq >= first)

    # --- requests

    async def request(self, rpc: Rpc, message: Message, *, timeout_s: float) -> Any:
        """The answer of whichever replica took it, of the near one if there is one (see `nearness`). Raises Unavailable
        (RequestFailed when the handler failed)."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        session = await self._usable_within(timeout_s)
        answer = await self._ask(session, rpc, message, deadline)
        error = answer.headers.get("Nats-Service-Error-Code")
        if error:
            raise RequestFailed(f"{rpc.name}: {answer.headers.get('Nats-Service-Error', error)}")
        try:
            return decode(answer.payload, rpc.reply)
        except Malformed as fault:
            raise RequestFailed(f"{rpc.name}: the answer cannot be read: {fault}") from fault

    async def _ask(self, session: Session, rpc: Rpc, message: Message, deadline: float) -> Delivery:
        loop = asyncio.get_running_loop()
        payload = encode(message)
        part = rpc.part_of(message)
        if part is not None and self._silent.get((rpc, part), 0.0) <= loop.time():
            near = rpc.part(part)
            half = (deadline - loop.time()) / 2
            late = loop.call_later(half, lambda: self.spawn(self._look(session, rpc, part, half), f"near {near}"))
            try:
                return await session.request(near, payload, timeout_s=max(0.001, deadline - loop.time()))
            except NobodyAnswers:
                pass  # then any will do
            finally:
                late.cancel()
        return await session.request(rpc.subject, payload, timeout_s=max(0.001, deadline - loop.time()))

    async def _look(self, session: Session, rpc: Rpc, part: int, within_s: float) -> None:
        """Is the near replica away, or only busy? Who asks a busy one's fellows instead makes them collide with it."""
        if (rpc, part) in self._looking:
            return
        self._looking.add((rpc, part))
        try:
            await session.request(rpc.part(part), b"", timeout_s=within_s)
        except Unavailable:
            self._silent[rpc, part] = asyncio.get_running_loop().time() + SILENT_S
        finally:
            self._looking.discard((rpc, part))

    @asynccontextmanager
    async def serve(
        self,
        handlers: Mapping[Rpc, Callable[[Any], Awaitable[Any]]],
        *,
        concurrent: int = CONCURRENT,
        waiting: int = WAITING,
    ) -> AsyncIterator[None]:
        """Answers requests while it is open, on every session. The queue group is the service's name. `concurrent`
        handlers run at a time, `waiting` more requests wait for one; others are told that there are too many."""
        service = MicroService(self.name, VERSION, handlers, self.spawn, concurrent=concurrent, waiting=waiting)
        running = [self.spawn(self._serve(service), "serve")]
        if any(rpc.by for rpc in handlers):
            running.append(self.spawn(stay_near(self, service), "nearness"))
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            await service.stop()

    async def _serve(self, service: MicroService) -> None:
        while True:
            session = await self.session()
            try:
                await service.start(session)
            except Unavailable:
                continue
            await session.ended.wait()

    # --- events

    def emit(self, event: Event) -> None:
        """Buffers the event for sending, with the advice of its kind; never blocks, never raises. Many of one kind
        become a number (`event_pacing`). Dropped, and counted, when the buffer is full."""
        told = self._pacing.see(event, asyncio.get_running_loop().time())
        if told is not None:
            self._buffer(told)
        else:
            self._counted.set()

    def _buffer(self, event: Event) -> None:
        if len(self._events) >= EVENT_BUFFER:
            EVENTS_DROPPED.inc()
            return
        subject = EVENT.subject(event.domain, event.what, event.node or "")
        self._events.append((subject, encode(completed(event))))
        self._emitted.set()

    async def _sum_events(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._counted.wait()
            self._counted.clear()
            while (due := self._pacing.due) is not None:
                await asyncio.sleep(max(0.0, due - loop.time()))
                for event in self._pacing.settle(loop.time()):
                    self._buffer(event)

    async def _send_events(self) -> None:
        while True:
            await self._emitted.wait()
            session = await self.session()
            try:
                while self._events:
                    try:
                        await session.publish(*self._events[0])
                    except Rejected:
                        EVENTS_DROPPED.inc()
                    self._events.popleft()
            except Unavailable:
                continue
            self._emitted.clear()


def _outgoing(write: Write) -> Outgoing:
    subject = write.family.subject(*write.key)
    if write.message is None:
        return Outgoing(subject, b"", write.expected, write.ttl_s or TOMBSTONE_TTL_S)
    return Outgoing(subject, encode(write.message), write.expected, write.ttl_s)
