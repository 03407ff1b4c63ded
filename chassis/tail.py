"""A log on the bus, read in order from a moment on: every message, not the last of each key.

A feed coalesces; whoever reads events wants all of them. So this is a pull consumer: the server keeps the place, hands
over what is asked for, and holds the answer back for a while when there is nothing new. A slow reader costs nothing,
and after a lost connection reading goes on behind the last message that was read.

    Tail(bus, EVENT, since=unix time | None) ── next() ──▶ facts, oldest first; empty after WAIT_S without news
                                             ── past(n) ─▶ the last n of what there was before
                                             ── stored() ▶ what is there already; None: it has been read
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from bus_schemas.codec import Malformed, decode
from bus_schemas.subjects import Fact, Family
from chassis import jetstream
from chassis.delivery import Delivery, place
from chassis.errors import Unavailable
from chassis.metrics import MALFORMED
from chassis.session import Answers, Session

if TYPE_CHECKING:
    from chassis.bus import Bus

BATCH = 256
PAUSE_S = 1.0
"""The server is there but the stream is not: how long until it is asked again."""
WAIT_S = 5.0
"""How long `next` waits for news."""
LOOK_BACK = 1000
"""How many messages of the stream `past` looks through."""
INACTIVE_S = 60
"""A consumer that nobody pulls from for so long is the server's to remove."""

_encode = msgspec.json.Encoder().encode


class _Made(msgspec.Struct, frozen=True):
    name: str = ""
    num_pending: int = 0
    error: jetstream.ApiError | None = None


class Tail:
    """Reads one family of a log stream. Not for several tasks at once; `close` gives the consumer back early."""

    def __init__(
        self, bus: Bus, family: Family[Any], *leading: str, since: float | None, after: int | None = None
    ) -> None:
        """`since` is a unix time in seconds; None: from now on. `after`: behind this sequence instead."""
        self._bus = bus
        self._family = family
        self._filter = family.filter(*leading)
        self._since = since
        self._after = after
        self._session: Session | None = None
        self._consumer = ""
        self._inbox = ExitStack()
        self._answers: Answers | None = None
        self._wanted = 0
        """Messages that the request under way may still bring."""
        self._pending = 0
        """How many messages are there that have not been read."""
        self._gap = False

    @property
    def place(self) -> int | None:
        """The sequence behind which reading goes on; None: not known yet."""
        return self._after

    def took_gap(self) -> bool:
        """Whether messages behind the last one read are gone from the stream, unread; asking again says no."""
        gap, self._gap = self._gap, False
        return gap

    async def stored(self) -> list[Fact] | None:
        """The next of what is there, without waiting for news; None when all of it has been read. Waits for a bus."""
        try:
            await self._connected()
        except Unavailable:
            return []
        return await self.next() if self._pending else None

    async def past(self, count: int, wanted: Callable[[Fact], bool]) -> list[Fact]:
        """The last messages that are wanted, at most `count`, of the last LOOK_BACK; for the first call of all, and for
        a tail from now on. Nothing while there is no bus."""
        assert self._since is None
        assert self._after is None
        found: deque[Fact] = deque(maxlen=count)
        try:
            await self._connected(back=LOOK_BACK)
        except Unavailable:
            return []
        while self._pending:
            found.extend(filter(wanted, await self.next()))
        return list(found)

    async def next(self) -> list[Fact]:
        """What has come since the last call, at most BATCH; an empty list when nothing came for WAIT_S."""
        try:
            session = await self._connected()
        except Unavailable:
            return []
        try:
            return await self._pull(session)
        except Unavailable:
            if not session.ended.is_set():
                await asyncio.sleep(PAUSE_S)
            self._consumer = ""
            return []

    async def _connected(self, *, back: int = 0) -> Session:
        """The session, with a consumer on it. Raises Unavailable when there is none for WAIT_S."""
        try:
            async with asyncio.timeout(WAIT_S):
                session = await self._bus.session()
        except TimeoutError as error:
            raise Unavailable("no bus") from error
        if session is self._session and self._consumer:
            return session
        self._consumer, self._wanted, self._pending = "", 0, 0
        self._session = session
        try:
            self._consumer = await self._begin(session, back)
        except Unavailable:
            if not session.ended.is_set():
                await asyncio.sleep(PAUSE_S)
            raise
        return session

    async def close(self) -> None:
        session, self._session = self._session, None
        self._inbox.close()
        if session is not None and self._consumer and not session.ended.is_set():
            await session.publish(f"$JS.API.CONSUMER.DELETE.{self._family.stream}.{self._consumer}", b"")

    async def _begin(self, session: Session, back: int) -> str:
        """A consumer at the place where reading stopped, or begins."""
        info = await jetstream.stream_info(session, self._family.stream)
        if info is None:
            raise Unavailable(f"stream {self._family.stream} does not exist")
        if self._after is not None and info.state.last_seq < self._after:
            self._after = 0  # the stream was wiped: all of it is new
            self._gap = True
        if self._after is not None and info.state.first_seq > self._after + 1:
            self._gap = self._gap or self._after > 0
        name = f"tortie-{uuid4().hex}"
        config: dict[str, Any] = {
            "name": name,
            "ack_policy": "none",
            "filter_subject": self._filter,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": INACTIVE_S * 1_000_000_000,
            **self._place(max(0, info.state.last_seq - back)),
        }
        body = {"stream_name": self._family.stream, "config": config}
        answer = await jetstream.api(session, f"CONSUMER.CREATE.{self._family.stream}.{name}", body)
        made = msgspec.json.decode(answer, type=_Made)
        if made.error is not None:
            raise Unavailable(made.error.description)
        self._pending = made.num_pending
        return name

    def _place(self, last: int) -> dict[str, Any]:
        if self._after is None and self._since is not None:
            start = datetime.fromtimestamp(self._since, UTC).isoformat().replace("+00:00", "Z")
            return {"deliver_policy": "by_start_time", "opt_start_time": start}
        if self._after is None:
            self._after = last
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": self._after + 1}

    async def _pull(self, session: Session) -> list[Fact]:
        """The next answers to a request for BATCH messages; asks again once the request has had its fill or its time.

        The inbox of a request stays open until then: what the server sends to a closed one would be lost."""
        if self._wanted == 0:
            self._inbox.close()
            self._answers = self._inbox.enter_context(session.stream(self._consumer))
            self._wanted = BATCH
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._family.stream}.{self._consumer}"
            wait = {"batch": BATCH, "expires": int(WAIT_S * 1e9)}
            await session.publish(subject, _encode(wait), reply=self._answers.reply)
        assert self._answers is not None
        facts = []
        for answer in await self._answers.next(WAIT_S + jetstream.API_TIMEOUT_S):
            if answer.status in ("404", "408"):
                self._wanted = 0
            elif answer.status and answer.status != "100":
                raise Unavailable(f"{self._family.stream}: {answer.status} {answer.description}")
            elif not answer.status:
                self._wanted -= 1
                fact = self._fact(answer)
                if fact is not None:
                    facts.append(fact)
        return facts

    def _fact(self, answer: Delivery) -> Fact | None:
        _, sequence, _, self._pending = place(answer.reply)
        self._after = sequence
        key = self._family.parse(answer.subject)
        try:
            value = decode(answer.payload, self._family.message)
        except Malformed:
            MALFORMED.labels(self._family.stream).inc()
            return None
        return Fact(self._family, key, value, sequence) if key is not None else None
