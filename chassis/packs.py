"""All keys of a large family in a handful of messages, for the many that read it whole.

A thousand agents that start together each read every route: key by key that is the price of a message for each of them
times all of them, on a server that has better things to do. So the service that writes or follows the family keeps a
*pack* of it beside the keys, compressed, and a reader asks for that and for what is newer:

    packer: stream is at `upto`, every key ──▶ pack.<family>.<part>     (now and then, by the replica that leads)
    reader: parts of one `upto` ──▶ keys;  stream after `upto` ──▶ newer values and tombstones ──▶ Ledger

A pack is a cache, never an authority. What it says has the keys' own sequences, so whatever is newer wins in whatever
order it comes. It is passed over, and every key read, when a part is missing, when it is of another life of the
stream, ahead of it, or of a time of which the stream holds nothing any more. It expires (TTL_S) before a tombstone does
(TOMBSTONE_TTL_S), so a key that was removed since is always known to be.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from bus_schemas.codec import Malformed, decode
from bus_schemas.packs import Pack
from bus_schemas.subjects import PACK, TOMBSTONE_TTL_S, Family
from chassis import jetstream
from chassis.jetstream import Stored, StreamInfo, TooManyResults
from chassis.session import Session

PART_KEYS = 4096
TTL_S = 2700.0

assert TTL_S + 600 < TOMBSTONE_TTL_S


class Packed(NamedTuple):
    """A whole pack, as read."""

    created: str
    upto: int
    parts: list[list[Stored]]

    def holds_for(self, info: StreamInfo) -> bool:
        """Whether it and what is newer are all that the stream holds."""
        state = info.state
        return self.created == info.created and state.messages > 0 and state.first_seq <= self.upto <= state.last_seq


def pack(created: str, upto: int, messages: Sequence[Stored]) -> list[Pack]:
    chunks = [messages[i : i + PART_KEYS] for i in range(0, len(messages), PART_KEYS)]
    return [
        Pack(
            created=created,
            upto=upto,
            part=number,
            parts=len(chunks),
            keys=len(chunk),
            packed=zlib.compress(msgspec.msgpack.encode(chunk), 1),
        )
        for number, chunk in enumerate(chunks)
    ]


def unpack(parts: Sequence[Pack]) -> Packed | None:
    """The latest pack of which all parts are there."""
    found: dict[tuple[str, int], dict[int, Pack]] = {}
    for part in parts:
        found.setdefault((part.created, part.upto), {})[part.part] = part
    whole = [(upto, some) for (_, upto), some in found.items() if len(some) == next(iter(some.values())).parts]
    if not whole:
        return None
    upto, latest = max(whole, key=lambda one: one[0])
    try:
        keys = [_keys.decode(zlib.decompress(latest[number].packed)) for number in sorted(latest)]
    except (zlib.error, msgspec.DecodeError):
        return None
    return Packed(latest[0].created, upto, keys)


_keys = msgspec.msgpack.Decoder(list[Stored])


async def read(session: Session, families: Sequence[Family[Any]]) -> dict[str, Packed]:
    """By name, the packs that there are. Raises Unavailable, Rejected."""
    filters = [PACK.filter(family.name) for family in families]
    try:
        messages = await jetstream.last_of_each(session, PACK.stream, filters)
    except TooManyResults:
        return {}
    parts: dict[str, list[Pack]] = {}
    for message in messages:
        key = PACK.parse(message.subject)
        if key is None or not message.payload:
            continue
        try:
            parts.setdefault(key[0], []).append(decode(message.payload, Pack))
        except Malformed:
            return {}  # a cache that cannot be read is none
    unpacked = {name: unpack(some) for name, some in parts.items()}
    return {name: packed for name, packed in unpacked.items() if packed is not None}
