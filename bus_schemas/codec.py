"""msgpack on the wire: tagged maps that any msgpack reader understands.

A message is a frozen Struct encoded as a map whose `type` entry names its kind and version (`"block/1"`). Unknown
fields are ignored, so a field may be added without a new version; an unknown tag or a wrong type is a `Malformed`,
never a half-read message. An empty payload is a tombstone and never reaches this module.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Base of everything that travels. Subclasses give `tag="<kind>/<version>"`."""


class Malformed(ValueError):
    """The bytes are not the message that their subject promises; the text says what is wrong."""


M = TypeVar("M")

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(payload: bytes, type_: type[M]) -> M:
    """`payload` as a `type_` (a Message, or a union of Messages told apart by tag). Raises Malformed."""
    decoder = _decoders.get(type_)
    if decoder is None:
        decoder = _decoders[type_] = msgspec.msgpack.Decoder(type_)
    try:
        return decoder.decode(payload)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(str(error)) from error
