"""Requests answered as a NATS micro service, in a queue group: whichever replica is free answers.

Speaks the services protocol (ADR-32, https://github.com/nats-io/nats-architecture-and-design): `nats micro ls`, `info`
and `stats` see it. Handlers run concurrently, a bounded number of them; more wait, a bounded number too; beyond that
the answer is "busy". A handler that fails is answered with an error header and counted: the asker never waits in vain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from bus_schemas.codec import Malformed, decode, encode
from bus_schemas.subjects import Rpc
from chassis.delivery import Delivery
from chassis.errors import Unavailable
from chassis.logs import logger
from chassis.metrics import RPC_ERRORS
from chassis.session import Session, Subscribed

CONCURRENT = 64
WAITING = 2048
DRAIN_S = 5.0

Handler = Callable[[Any], Awaitable[Any]]


@dataclass
class _Stats:
    requests: int = 0
    errors: int = 0
    last_error: str = ""
    nanoseconds: int = 0


class MicroService:
    """The endpoints of one service, over any number of sessions one after another."""

    def __init__(
        self,
        name: str,
        version: str,
        handlers: Mapping[Rpc, Handler],
        spawn: Callable[..., Any],
        *,
        concurrent: int = CONCURRENT,
        waiting: int = WAITING,
    ) -> None:
        self._name = name
        self._version = version
        self._id = uuid4().hex
        self._handlers = handlers
        self._spawn = spawn
        self._stats = {rpc.name: _Stats() for rpc in handlers}
        self._free = asyncio.Semaphore(concurrent)
        self._most = concurrent + waiting
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._started = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self._session: Session | None = None
        self._subscribed: list[Subscribed] = []
        self._parts: frozenset[int] = frozenset()
        self._near: dict[tuple[Rpc, int], Subscribed] = {}
        self._turn = asyncio.Lock()
        self._log = logger(name)

    async def start(self, session: Session) -> None:
        """Listens on this session; the subscriptions end with it."""
        self._session = session
        self._subscribed = []
        for verb, answer in (("PING", self._ping), ("INFO", self._info), ("STATS", self._statistics)):
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{self._name}", f"$SRV.{verb}.{self._name}.{self._id}"):
                self._subscribed.append(await session.subscribe(subject, self._control(session, answer)))
        for rpc, handler in self._handlers.items():
            callback = self._endpoint(session, rpc, handler)
            self._subscribed.append(await session.subscribe(rpc.subject, callback, queue=self._name))
        async with self._turn:
            self._near = {}
            await self._listen_near(session)

    async def take(self, parts: frozenset[int]) -> None:
        """From now on these parts of the requests come here first, see `nearness`."""
        self._parts = parts
        async with self._turn:
            session = self._session
            if session is None or session.ended.is_set():
                return  # the next one begins with them
            try:
                await self._listen_near(session)
            except Unavailable as error:
                self._log.info("the bus was gone before the parts were taken", reason=str(error))

    async def _listen_near(self, session: Session) -> None:
        wanted = {(rpc, part) for rpc in self._handlers if rpc.by for part in self._parts}
        for rpc, part in sorted(wanted - self._near.keys(), key=lambda each: each[1]):
            callback = self._near_endpoint(session, rpc)
            self._near[rpc, part] = await session.subscribe(rpc.part(part), callback, queue=self._name)
        gone = [self._near.pop(each) for each in self._near.keys() - wanted]
        for subscribed in gone:
            await subscribed.leave()
        if gone:
            await session.echo(DRAIN_S)  # what was on its way is answered
        for subscribed in gone:
            await subscribed.unsubscribe()

    async def stop(self) -> None:
        """Takes no more requests and waits, a bounded time, for those that run.

        A request that the server had already handed to this replica is still answered: to drop it would cost its sender
        a whole time-out."""
        self._subscribed += self._near.values()
        self._near = {}
        for subscribed in self._subscribed:
            await subscribed.leave()
        if self._subscribed and self._session is not None and not self._session.ended.is_set():
            try:
                await self._session.echo(DRAIN_S)
            except Unavailable as error:
                self._log.info("the bus was gone before the last requests were", reason=str(error))
        for subscribed in self._subscribed:
            await subscribed.unsubscribe()
        self._subscribed = []
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._idle.wait()
        except TimeoutError:
            self._log.warning("requests were still running at the end", requests=self._open)

    # --- requests

    def _near_endpoint(self, session: Session, rpc: Rpc) -> Callable[[Delivery], None]:
        """As `_endpoint`; one that asks nothing wants to know whether anybody is there."""
        on_request = self._endpoint(session, rpc, self._handlers[rpc])

        def on_near_request(delivery: Delivery) -> None:
            if delivery.payload:
                on_request(delivery)
            else:
                self._spawn(self._respond(session, delivery, b""), f"near {rpc.name}")

        return on_near_request

    def _endpoint(self, session: Session, rpc: Rpc, handler: Handler) -> Callable[[Delivery], None]:
        def on_request(delivery: Delivery) -> None:
            if self._open >= self._most:
                self._spawn(self._refuse(session, rpc, delivery, "503", "busy: too many requests are waiting"), "busy")
                return
            self._open += 1
            self._idle.clear()
            self._spawn(self._answer(session, rpc, handler, delivery), f"rpc {rpc.name}")

        return on_request

    async def _answer(self, session: Session, rpc: Rpc, handler: Handler, delivery: Delivery) -> None:
        started = time.perf_counter_ns()
        stats = self._stats[rpc.name]
        stats.requests += 1
        try:
            async with self._free:
                try:
                    request = decode(delivery.payload, rpc.request)
                except Malformed as error:
                    await self._refuse(session, rpc, delivery, "400", f"not a {rpc.name} request: {error}")
                    return
                try:
                    reply = encode(await handler(request))
                except Exception as error:  # noqa: BLE001 - the asker is told, the error is counted and logged
                    self._log.exception("a request failed", endpoint=rpc.name)
                    await self._refuse(session, rpc, delivery, "500", f"{type(error).__name__}: {error}")
                    return
                await self._respond(session, delivery, reply)
        finally:
            stats.nanoseconds += time.perf_counter_ns() - started
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def _refuse(self, session: Session, rpc: Rpc, delivery: Delivery, code: str, text: str) -> None:
        stats = self._stats[rpc.name]
        stats.errors += 1
        stats.last_error = text
        RPC_ERRORS.labels(rpc.name, code).inc()
        # a header is one line
        headers = {"Nats-Service-Error": " ".join(text.split()), "Nats-Service-Error-Code": code}
        await self._respond(session, delivery, b"", headers)

    async def _respond(
        self, session: Session, delivery: Delivery, payload: bytes, headers: dict[str, str] | None = None
    ) -> None:
        if not delivery.reply:
            return
        try:
            await session.publish(delivery.reply, payload, headers)
        except Unavailable:
            # the asker's wait ended with the session, and asks again on the next one
            self._log.info("an answer came after the connection was lost", subject=delivery.subject)

    # --- the services protocol

    def _control(self, session: Session, answer: Callable[[], dict[str, Any]]) -> Callable[[Delivery], None]:
        def on_request(delivery: Delivery) -> None:
            payload = msgspec.json.encode(answer())
            self._spawn(self._respond(session, delivery, payload), "services protocol")

        return on_request

    def _identity(self, kind: str) -> dict[str, Any]:
        return {
            "type": f"io.nats.micro.v1.{kind}_response",
            "name": self._name,
            "id": self._id,
            "version": self._version,
            "metadata": {},
        }

    def _ping(self) -> dict[str, Any]:
        return self._identity("ping")

    def _info(self) -> dict[str, Any]:
        endpoints = [
            {"name": rpc.name, "subject": rpc.subject, "queue_group": self._name, "metadata": {}}
            for rpc in self._handlers
        ]
        return self._identity("info") | {"description": f"Tortie {self._name}", "endpoints": endpoints}

    def _statistics(self) -> dict[str, Any]:
        endpoints = []
        for rpc in self._handlers:
            stats = self._stats[rpc.name]
            endpoints.append(
                {
                    "name": rpc.name,
                    "subject": rpc.subject,
                    "queue_group": self._name,
                    "num_requests": stats.requests,
                    "num_errors": stats.errors,
                    "last_error": stats.last_error,
                    "processing_time": stats.nanoseconds,
                    "average_processing_time": stats.nanoseconds // max(1, stats.requests),
                }
            )
        return self._identity("stats") | {"started": self._started, "endpoints": endpoints}
