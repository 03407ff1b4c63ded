"""One connection's life, and the only module that speaks to the client library.

A `Session` is opened, used, and ends once: by a lost connection, a missed echo, or `close`. Nothing outlives it, so
there is no reconnect inside: no write waits in a buffer for a server that may come back, every request in flight fails
at once, and whoever follows something starts again on the next session (`bus` keeps opening them).

The client library is not believed about its own health. Its read loop may die while it reports "connected", and its
flush succeeds then. The proof of life is an `echo`: a message of ours to our own inbox, there and back, every
`ECHO_INTERVAL_S`. Its queues with their limits (which drop messages without a trace) are passed by; back pressure is
ours: callbacks are synchronous, run where a message is parsed, and only fill one slot per key. It swallows
cancellations while it writes, so every call of it runs `heedful`, and deadlines of answers are timers, not
cancellations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from chassis.delivery import Delivery, server_address
from chassis.errors import Rejected, Unavailable

ECHO_INTERVAL_S = 2.0
ECHO_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 1.0


class NobodyAnswers(Unavailable):
    """The server knows of no subscriber of a request's subject."""


Callback = Callable[[Delivery], None]


@contextmanager
def heedful() -> Iterator[None]:
    """A cancellation that arrives inside is raised at the end, even when it was swallowed or became another error."""
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        yield
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError


class _Client(Client):
    """The library's client, with every message handed over where it is parsed.

    Its own way is a queue and a task for each subscription: a burst waits behind the reading, and beyond a limit it is
    dropped. `tests/bus` would notice if a later version no longer came by here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deliver: dict[int, Callback] = {}

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        callback = self.deliver.get(sid)
        if callback is not None:
            callback(Delivery(subject.decode(), reply.decode(), headers, data))


class Subscribed:
    """A live subscription. After `unsubscribe` no callback runs; after `leave` only those for messages on their way."""

    def __init__(self, session: Session, inner: Subscription) -> None:
        self._session = session
        self._sid = inner._id
        self._inner: Subscription | None = inner

    async def unsubscribe(self) -> None:
        self._session.client.deliver.pop(self._sid, None)
        await self.leave()

    async def leave(self) -> None:
        """Tells the server, and goes on listening: what it sent before it knew is here after an `echo`."""
        inner, self._inner = self._inner, None
        if inner is None or self._session.ended.is_set():
            return
        try:
            with heedful():
                await inner.unsubscribe()
        except nats.errors.ConnectionClosedError:
            return  # it ended with the connection


class Session:
    """An open connection. Made by `Session.open`; `ended` is set when it is over, `reason` then says why."""

    def __init__(self, client: _Client, inbox: str) -> None:
        self.client = client
        self.ended = asyncio.Event()
        self.reason = ""
        self.bug: Exception | None = None
        self.on_denied: Callable[[str], None] = lambda _: None
        """Called with the server's words when it denies us a subject."""
        self.complaint = ""
        """The last asynchronous error of the server or the library, a denied permission for example."""
        self._inbox = inbox
        self._tokens = count(1)
        self._waiting: dict[str, Callback] = {}
        self._futures: set[asyncio.Future[Any]] = set()
        self._unused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        """Tells the library that a subscription needs neither its queue nor its task."""
        self._at_end: list[Callable[[], None]] = []

    @classmethod
    async def open(cls, server: str, *, name: str, inbox: str, credentials: str) -> Session:
        """Connects to one server (a URL). Raises Unavailable with a sentence when it cannot."""
        client = _Client()
        session = cls(client, inbox)

        async def on_closed() -> None:
            session.end("the connection was lost" + (f": {session.complaint}" if session.complaint else ""))

        async def on_error(error: Exception) -> None:
            session.complaint = str(error) or type(error).__name__
            if "permissions violation" in session.complaint:
                session.on_denied(session.complaint)

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                with heedful():
                    await client.connect(
                        [server],
                        name=name,
                        allow_reconnect=False,
                        max_reconnect_attempts=1,
                        reconnect_time_wait=0,
                        connect_timeout=2,
                        closed_cb=on_closed,
                        error_cb=on_error,
                        ping_interval=30,
                        user_credentials=credentials or None,
                        pending_size=64 * 1024 * 1024,
                    )
            await session.subscribe(f"{inbox}.*", session._on_inbox)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            text = session.complaint or str(error) or type(error).__name__
            await session.close()
            raise Unavailable(f"no connection to {server_address(server)}: {text}") from error
        except BaseException:
            await session.close()
            raise
        return session

    @property
    def server_version(self) -> str:
        return str(self.client._server_info.get("version", "0"))

    @property
    def server(self) -> str:
        url = self.client.connected_url
        return server_address(url.geturl()) if url is not None else "nats-server"

    @property
    def max_payload(self) -> int:
        return self.client.max_payload

    def end(self, reason: str) -> None:
        """The session is over: wakes everybody who waits on it."""
        if self.ended.is_set():
            return
        self.reason = reason
        self.ended.set()
        for future in self._futures:
            if not future.done():
                future.set_exception(Unavailable(reason))
        self._futures.clear()
        self._waiting.clear()
        self._let_go()
        for callback in self._at_end:
            callback()

    def _let_go(self) -> None:
        """Whoever waits for the library to write goes on: its writing task ends and tells nobody in its queue."""
        queue = self.client._flush_queue
        while queue is not None and not queue.empty():
            written = queue.get_nowait()
            if not written.done():
                written.set_result(None)

    def when_ended(self, callback: Callable[[], None]) -> None:
        """`callback` runs once, when the session is over; at once when it is already."""
        if self.ended.is_set():
            callback()
        else:
            self._at_end.append(callback)

    def fail(self, bug: Exception) -> None:
        """A callback broke: the owner of the session re-raises `bug`."""
        self.bug = self.bug or bug
        self.end(f"{type(bug).__name__}: {bug}")

    async def close(self) -> None:
        """Ends the session and frees the connection, in bounded time even when the server does not read any more."""
        if self.ended.is_set():
            self._abort()
        self.end("closed")
        self._unused.cancel()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                with heedful():
                    await self.client.close()
        except TimeoutError:
            self._abort()

    def _abort(self) -> None:
        """Drops the connection without sending what is buffered."""
        writer = getattr(self.client._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        # the library's close would write it after all, which uvloop takes for a bug of ours
        self.client._pending = []
        self.client._pending_data_size = 0

    async def watch(self) -> None:
        """Returns when the session has ended; ends it when an echo does not come back."""
        while not self.ended.is_set():
            try:
                await self.echo(ECHO_TIMEOUT_S)
            except Unavailable as error:
                self.end(f"the echo was not heard: {error}")
                return
            try:
                async with asyncio.timeout(ECHO_INTERVAL_S):
                    await self.ended.wait()
            except TimeoutError:
                continue

    async def echo(self, timeout_s: float) -> None:
        """A message to ourselves, there and back. Everything that the server sent us before has then arrived."""
        future, token = self._expect()
        await self._exchange(f"{self._inbox}.{token}", b"", None, "", future, token, timeout_s)

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, reply: str = ""
    ) -> None:
        """Hands the message to the socket. Raises Unavailable when the session is over, Rejected when too large."""
        if self.ended.is_set():
            raise Unavailable(self.reason)
        self.check_size(subject, payload, headers)

        async def send() -> None:
            await self.client.publish(subject, payload, reply=reply, headers=headers)

        await self._sent(send)

    async def request_many(
        self, messages: Sequence[tuple[str, bytes, Mapping[str, str]]], *, timeout_s: float
    ) -> Delivery:
        """Many messages (subject, payload, headers) in one piece; the answer to the last of them.

        In one piece, so that nothing of ours comes between; and in the protocol's own words
        (https://docs.nats.io/reference/reference-protocols/nats-protocol), because the library's publish would cost
        more than all the rest. Headers and subjects are ours and hold no line end.
        """
        future, token = self._expect()
        replies = [""] * (len(messages) - 1) + [f"{self._inbox}.{token} "]
        parts: list[bytes] = []
        for (subject, payload, headers), reply in zip(messages, replies, strict=True):
            lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
            head = f"NATS/1.0\r\n{lines}\r\n"
            parts.append(f"HPUB {subject} {reply}{len(head)} {len(head) + len(payload)}\r\n{head}".encode())
            parts.append(payload)
            parts.append(b"\r\n")

        async def send() -> None:
            await self.client._send_command(b"".join(parts))
            await self.client._flush_pending()

        return await self._answer(send, messages[-1][0], future, token, timeout_s)

    def check_size(self, subject: str, payload: bytes, headers: Mapping[str, str] | None) -> None:
        """Raises Rejected for a message that the server would answer by closing the connection."""
        size = len(payload) + sum(len(key) + len(value) + 4 for key, value in (headers or {}).items()) + 16
        if size > self.max_payload:
            raise Rejected(f"{subject}: {size} bytes are more than the {self.max_payload} that the server takes")

    async def subscribe(self, subject: str, callback: Callback, *, queue: str = "") -> Subscribed:
        """`callback` runs for every message, in order, in the event loop; it must not block."""
        if self.ended.is_set():
            raise Unavailable(self.reason)

        def guarded(delivery: Delivery) -> None:
            if self.ended.is_set():
                return  # a message of a session that is over must not be taken for one of the next
            try:
                callback(delivery)
            except Exception as error:  # noqa: BLE001 - a bug: the owner of the session raises it
                self.fail(error)

        # the identifier that the library is about to give: no message may come before we know it
        self.client.deliver[self.client._sid + 1] = guarded
        try:
            with heedful():
                inner = await self.client.subscribe(subject, queue=queue, future=self._unused)
        except (nats.errors.ConnectionClosedError, OSError) as error:
            # ended here and now: whoever asks for a session next must not be given this one again
            self.end(f"the connection was lost: {error}")
            raise Unavailable(self.reason) from error
        assert self.client.deliver.get(inner._id) is guarded
        return Subscribed(self, inner)

    async def request(
        self, subject: str, payload: bytes, *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> Delivery:
        """One answer. Raises Unavailable (no responder, no answer in time, the session ended), Rejected (too large)."""
        self.check_size(subject, payload, headers)
        future, token = self._expect()
        reply = f"{self._inbox}.{token}"
        answer = await self._exchange(subject, payload, headers, reply, future, token, timeout_s)
        if answer.status == "503":
            raise NobodyAnswers(f"nobody answers {subject}")
        return answer

    def stream(self, consumer: str = "") -> Answers:
        """An inbox for requests with many answers. `consumer`: they are messages of this JetStream consumer."""
        return Answers(self, consumer)

    def _expect(self) -> tuple[asyncio.Future[Delivery], str]:
        if self.ended.is_set():
            raise Unavailable(self.reason)
        future: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        token = str(next(self._tokens))

        def answered(delivery: Delivery) -> None:
            if not future.done():
                future.set_result(delivery)

        self._waiting[token] = answered
        self._futures.add(future)
        return future, token

    async def _exchange(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None,
        reply: str,
        future: asyncio.Future[Delivery],
        token: str,
        timeout_s: float,
    ) -> Delivery:
        async def send() -> None:
            await self.client.publish(subject, payload, reply=reply, headers=headers)

        return await self._answer(send, subject, future, token, timeout_s)

    async def _answer(
        self,
        send: Callable[[], Awaitable[None]],
        subject: str,
        future: asyncio.Future[Delivery],
        token: str,
        timeout_s: float,
    ) -> Delivery:
        def expire() -> None:
            if not future.done():
                future.set_exception(Unavailable(f"{subject} was not answered within {timeout_s:g} s"))

        timer = asyncio.get_running_loop().call_later(timeout_s, expire)
        try:
            await self._sent(send)
            return await future
        finally:
            timer.cancel()
            self._waiting.pop(token, None)
            self._futures.discard(future)
            if future.done() and not future.cancelled():
                future.exception()  # seen: a future that failed after a time-out is not a surprise

    async def _sent(self, send: Callable[[], Awaitable[None]]) -> None:
        try:
            with heedful():
                await send()
        except (nats.errors.ConnectionClosedError, nats.errors.OutboundBufferLimitError, OSError) as error:
            self.end(f"the connection was lost: {error}")
            raise Unavailable(self.reason) from error

    def _on_inbox(self, delivery: Delivery) -> None:
        if delivery.subject.startswith(self._inbox):
            callback = self._waiting.get(delivery.subject.rpartition(".")[2])
        else:  # a consumer's message keeps the subject that it was stored under
            tokens = delivery.reply.split(".")
            callback = self._waiting.get(tokens[3] if len(tokens) < 11 else tokens[5])
        if callback is not None:
            callback(delivery)


class Answers:
    """Answers of one request, in order, as an async iterator source; used as a context manager."""

    def __init__(self, session: Session, consumer: str) -> None:
        self._session = session
        self._token = str(next(session._tokens))
        self._keys = (self._token, consumer) if consumer else (self._token,)
        self._queue: list[Delivery] = []
        self._arrived: asyncio.Future[None] | None = None
        self.reply = f"{session._inbox}.{self._token}"

    def __enter__(self) -> Answers:
        if self._session.ended.is_set():
            raise Unavailable(self._session.reason)
        for key in self._keys:
            self._session._waiting[key] = self._on_delivery
        return self

    def __exit__(self, *_: object) -> None:
        for key in self._keys:
            self._session._waiting.pop(key, None)

    def _on_delivery(self, delivery: Delivery) -> None:
        self._queue.append(delivery)
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def next(self, timeout_s: float) -> list[Delivery]:
        """Everything that has arrived, at least one. Raises Unavailable."""
        if not self._queue:
            if self._session.ended.is_set():
                raise Unavailable(self._session.reason)
            self._arrived = asyncio.get_running_loop().create_future()
            self._session._futures.add(self._arrived)
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived
            except TimeoutError as error:
                raise Unavailable(f"no answer within {timeout_s:g} s") from error
            finally:
                self._session._futures.discard(self._arrived)
        queue, self._queue = self._queue, []
        return queue
