"""JetStream's own requests, spoken directly: acknowledged writes, atomic batches, last values, pulled snapshots.

The client library knows neither batches nor `multi_last`, so this module sends the server's JSON itself
(https://docs.nats.io/reference/reference-protocols/nats_api_reference, ADR-31 direct get, ADR-43 time to live,
ADR-50 atomic batches). Everything is a function of a `Session`; nothing here remembers anything.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from chassis.delivery import Delivery, place
from chassis.errors import Conflict, Rejected, Unavailable
from chassis.session import NobodyAnswers, Session

API_TIMEOUT_S = 5.0
MAX_BATCH = 1000
"""Messages in one atomic batch (the server's limit)."""
MAX_LAST = 1024
"""Results of one `multi_last` (the server's limit)."""
PAGE = 1000
"""Messages of one direct get in order of sequence."""
PULL = 8192
"""Messages asked for at a time while a snapshot is read: the reader's back pressure."""
REFUSALS = 50
REFUSAL_PAUSE_S = 0.02
"""So often, and so long apart, a server may say in a row that there is nothing more although there is."""

_WRONG_LAST_SEQUENCE = frozenset({10071, 10070, 10164})
_STREAM_NOT_FOUND = 10059
_BATCH_INCOMPLETE = 10176


class ApiError(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct, frozen=True):
    stream: str = ""
    seq: int = 0
    count: int = 0
    error: ApiError | None = None


class StreamState(msgspec.Struct, frozen=True):
    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0


class StreamInfo(msgspec.Struct, frozen=True):
    config: dict[str, Any] = {}
    created: str = ""
    state: StreamState = StreamState()
    error: ApiError | None = None


class _Consumer(msgspec.Struct, frozen=True):
    name: str = ""
    num_pending: int = 0
    error: ApiError | None = None


class _Place(msgspec.Struct, frozen=True):
    subject: str
    seq: int


class _Found(msgspec.Struct, frozen=True):
    message: _Place | None = None
    error: ApiError | None = None


class Stored(NamedTuple):
    """A stored message. An empty payload is a tombstone or the server's own marker of an expired message."""

    subject: str
    sequence: int
    payload: bytes


class Outgoing(NamedTuple):
    """A message to be stored."""

    subject: str
    payload: bytes
    expected: int | None = None
    """The last sequence that the subject must have; 0: the subject must hold nothing, not even a tombstone."""
    ttl_s: float | None = None


class Incomplete(Unavailable):
    """The server had too many open batches, or dropped this one: nothing of it was written."""


class NoStream(Unavailable):
    """Nobody stores this subject: the stream is missing, or has no leader yet."""


class TooManyResults(Exception):
    """More keys under the filters than one direct get returns: read them through a consumer."""


_BATCH_HEADERS = {"headers of a batch": " " * 240}

_ack = msgspec.json.Decoder(_Ack)
_info = msgspec.json.Decoder(StreamInfo)
_consumer = msgspec.json.Decoder(_Consumer)
_found = msgspec.json.Decoder(_Found)
_encode = msgspec.json.Encoder().encode


# --- writes


def _headers(message: Outgoing) -> dict[str, str]:
    headers = {}
    if message.expected is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(message.expected)
    if message.ttl_s is not None:
        # the server's shortest is one second
        headers["Nats-TTL"] = f"{max(1000, round(message.ttl_s * 1000))}ms"
    return headers


def _checked(delivery: Delivery, messages: Sequence[Outgoing]) -> _Ack:
    ack = _ack.decode(delivery.payload)
    if ack.error is None:
        return ack
    error = ack.error
    if error.err_code in _WRONG_LAST_SEQUENCE:
        found = re.search(r"wrong last sequence: (\d+)", error.description)
        one = messages[0] if len(messages) == 1 else None
        raise Conflict(
            one.subject if one else "a batch",
            expected=one.expected or 0 if one else 0,
            actual=int(found[1]) if found else None,
        )
    if error.err_code == _BATCH_INCOMPLETE:
        raise Incomplete(error.description)
    if error.code == 503:
        raise Unavailable(error.description)
    raise Rejected(f"{messages[0].subject}: {error.description}", error.err_code)


async def publish(session: Session, message: Outgoing, *, timeout_s: float = API_TIMEOUT_S) -> int:
    """Stores one message; its sequence. Raises Conflict, Rejected, Unavailable."""
    headers = _headers(message)
    try:
        delivery = await session.request(message.subject, message.payload, headers=headers or None, timeout_s=timeout_s)
    except NobodyAnswers as error:
        raise NoStream(f"nobody stores {message.subject}") from error
    return _checked(delivery, (message,)).seq


async def publish_batch(
    session: Session, messages: Sequence[Outgoing], *, timeout_s: float = API_TIMEOUT_S
) -> list[int]:
    """Stores all messages or none (one stream, at most MAX_BATCH); their sequences, which are consecutive."""
    assert 0 < len(messages) <= MAX_BATCH
    if len(messages) == 1:
        return [await publish(session, messages[0], timeout_s=timeout_s)]
    for message in messages:  # before the first is sent: nobody would end the batch
        session.check_size(message.subject, message.payload, _BATCH_HEADERS)
    batch = uuid4().hex
    pieces = [
        (m.subject, m.payload, _headers(m) | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(i)})
        for i, m in enumerate(messages, 1)
    ]
    pieces[-1][2]["Nats-Batch-Commit"] = "1"
    delivery = await session.request_many(pieces, timeout_s=timeout_s)
    if delivery.status == "503":
        raise NoStream(f"nobody stores {messages[-1].subject}")
    ack = _checked(delivery, messages)
    assert ack.count == len(messages), f"a batch of {len(messages)} was committed as {ack.count}"
    return list(range(ack.seq - ack.count + 1, ack.seq + 1))


# --- streams


async def api(session: Session, subject: str, body: dict[str, Any] | None = None) -> bytes:
    payload = _encode(body) if body is not None else b""
    return (await session.request(f"$JS.API.{subject}", payload, timeout_s=API_TIMEOUT_S)).payload


async def stream_info(session: Session, stream: str) -> StreamInfo | None:
    """None: there is no such stream. Raises Unavailable, Rejected."""
    return _stream_answer(await api(session, f"STREAM.INFO.{stream}"))


async def create_stream(session: Session, config: dict[str, Any]) -> StreamInfo:
    return _must(_stream_answer(await api(session, f"STREAM.CREATE.{config['name']}", config)), config)


async def update_stream(session: Session, config: dict[str, Any]) -> StreamInfo:
    return _must(_stream_answer(await api(session, f"STREAM.UPDATE.{config['name']}", config)), config)


def _stream_answer(payload: bytes) -> StreamInfo | None:
    info = _info.decode(payload)
    if info.error is None:
        return info
    if info.error.err_code == _STREAM_NOT_FOUND:
        return None
    if info.error.code == 503:
        raise Unavailable(info.error.description)
    raise Rejected(info.error.description, info.error.err_code)


def _must(info: StreamInfo | None, config: dict[str, Any]) -> StreamInfo:
    if info is None:
        raise Unavailable(f"stream {config['name']} vanished while it was being made")
    return info


# --- last values


async def last(session: Session, stream: str, subject: str) -> Stored | None:
    """The last message of a subject or of everything under a filter."""
    body = _encode({"last_by_subj": subject})
    answer = await session.request(f"$JS.API.DIRECT.GET.{stream}", body, timeout_s=API_TIMEOUT_S)
    if answer.status == "404":
        return None
    if answer.status:
        raise Rejected(f"{stream}: {answer.status} {answer.description}")
    return _stored(answer)


async def first_from(session: Session, stream: str, subject: str, sequence: int) -> Stored | None:
    """The first message of everything under a filter that has this sequence or a later one. The server looks from there
    on, so near the stream's end it costs nothing, where `last` walks over all subjects under the filter."""
    body = _encode({"seq": sequence, "next_by_subj": subject})
    answer = await session.request(f"$JS.API.DIRECT.GET.{stream}", body, timeout_s=API_TIMEOUT_S)
    if answer.status == "404":
        return None
    if answer.status:
        raise Rejected(f"{stream}: {answer.status} {answer.description}")
    return _stored(answer)


async def since(session: Session, stream: str, subject: str, sequence: int) -> AsyncIterator[list[Stored]]:
    """Every message under a filter that has this sequence or a later one, in chunks, by direct get: nothing is left on
    the server, and near the stream's end it costs next to nothing."""
    while True:
        chunk: list[Stored] = []
        more = False
        with session.stream() as answers:
            body = _encode({"seq": sequence, "next_by_subj": subject, "batch": PAGE})
            await session.publish(f"$JS.API.DIRECT.GET.{stream}", body, reply=answers.reply)
            ended = False
            while not ended:
                for answer in await answers.next(API_TIMEOUT_S):
                    match answer.status:
                        case "":
                            chunk.append(_stored(answer))
                        case "204" | "404":
                            more = int(answer.headers.get("Nats-Num-Pending", "0")) > 0
                            ended = True
                        case "503":
                            raise Unavailable(f"nobody answers for stream {stream}")
                        case status:
                            raise Rejected(f"{stream}: {status} {answer.description}")
        if chunk:
            yield chunk
        if not (more and chunk):
            return
        sequence = chunk[-1].sequence + 1


async def touch(session: Session, stream: str, sequence: int) -> int | None:
    """Has the stream's leader read the first message that has this sequence or a later one, and look its subject up;
    its sequence, None: there is none. Any replica answers a direct get; this only the one that writes."""
    place = await _place(session, stream, {"seq": sequence, "next_by_subj": ">"})
    if place is not None:
        await _place(session, stream, {"last_by_subj": place.subject})
    return None if place is None else place.seq


async def _place(session: Session, stream: str, query: dict[str, Any]) -> _Place | None:
    found = _found.decode(await api(session, f"STREAM.MSG.GET.{stream}", query))
    if found.error is None:
        return found.message
    if found.error.code == 404:
        return None
    if found.error.code == 503:
        raise Unavailable(found.error.description)
    raise Rejected(f"{stream}: {found.error.description}", found.error.err_code)


async def last_of_each(session: Session, stream: str, filters: Sequence[str]) -> list[Stored]:
    """The last message of every subject under the filters, by direct get. Raises TooManyResults beyond MAX_LAST."""
    results: list[Stored] = []
    with session.stream() as answers:
        body = _encode({"multi_last": list(filters), "batch": MAX_LAST})
        await session.publish(f"$JS.API.DIRECT.GET.{stream}", body, reply=answers.reply)
        while True:
            for answer in await answers.next(API_TIMEOUT_S):
                match answer.status:
                    case "":
                        results.append(_stored(answer))
                    case "204" if int(answer.headers.get("Nats-Num-Pending", "0")) == 0:
                        return results
                    case "404":
                        return results
                    case "204" | "413":
                        raise TooManyResults
                    case "503":
                        raise Unavailable(f"nobody answers for stream {stream}")
                    case status:
                        raise Rejected(f"{stream}: {status} {answer.description}")


def _stored(answer: Delivery) -> Stored:
    return Stored(answer.headers["Nats-Subject"], int(answer.headers["Nats-Sequence"]), answer.payload)


async def _pending(session: Session, stream: str, consumer: str) -> int:
    """How many messages the consumer has yet to hand over."""
    told = _consumer.decode(await api(session, f"CONSUMER.INFO.{stream}.{consumer}"))
    if told.error is not None:
        raise Unavailable(told.error.description)
    return told.num_pending


async def snapshot(session: Session, stream: str, filters: Sequence[str]) -> AsyncIterator[list[Stored]]:
    """The last message of every subject under the filters (which must not overlap), in chunks, by sequence.

    An ephemeral pull consumer in memory: the next chunk is asked for when the caller comes back for it. The
    consumer's own numbering is checked; a hole raises Unavailable, and the caller starts again. A busy server says that
    there is nothing more (404) in the middle of it all: that is the end only when the consumer itself has none pending.
    """
    name = f"tortie-{uuid4().hex}"
    config = {
        "name": name,
        "ack_policy": "none",
        "deliver_policy": "last_per_subject",
        "filter_subjects": list(filters),
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": 30_000_000_000,
    }
    body = {"stream_name": stream, "config": config}
    made = _consumer.decode(await api(session, f"CONSUMER.CREATE.{stream}.{name}", body))
    if made.error is not None:
        if made.error.code in (503, 404):
            raise Unavailable(made.error.description)
        raise Rejected(f"{stream}: {made.error.description}", made.error.err_code)
    expected = 1
    remaining = made.num_pending
    refusals = 0
    pull = _encode({"batch": PULL, "no_wait": True})
    try:
        with session.stream(name) as answers:
            while remaining > 0:
                await session.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}", pull, reply=answers.reply)
                taken = 0
                while taken < PULL and remaining > 0:
                    chunk = []
                    for answer in await answers.next(API_TIMEOUT_S):
                        if answer.status == "404":
                            remaining = await _pending(session, stream, name)
                            refusals += 1
                            if remaining and refusals > REFUSALS:
                                raise Unavailable(f"snapshot of {stream}: {remaining} messages are not handed over")
                            taken = PULL
                            break
                        if answer.status == "408":
                            taken = PULL
                            break
                        if answer.status:
                            raise Unavailable(f"snapshot of {stream}: {answer.status} {answer.description}")
                        at = place(answer.reply)
                        if at.ordinal != expected:
                            raise Unavailable(f"snapshot of {stream}: message {expected} was lost")
                        expected += 1
                        taken += 1
                        refusals = 0
                        remaining = at.pending
                        chunk.append(Stored(answer.subject, at.sequence, answer.payload))
                    yield chunk
                if refusals and remaining:
                    await asyncio.sleep(REFUSAL_PAUSE_S)
    finally:
        if not session.ended.is_set():
            await session.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{name}", b"")
