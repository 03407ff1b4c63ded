"""Many keys of one family in few messages, so that whoever needs all of them need not be told each by itself.

A pack is a cache and no record: it holds what the keys of a family said when their stream had come to `upto`. A reader
takes it, and then what the stream holds after `upto`; by sequences the two make one story (`chassis.packs`).
"""

from __future__ import annotations

from bus_schemas.codec import Message


class Pack(Message, tag="pack/1", frozen=True, kw_only=True):
    """One of some parts that only together are the pack."""

    created: str
    """Which life of the stream the sequences belong to: when it was made, in the server's words."""
    upto: int
    """Every key of the family that had a value at this sequence, and was not written since, is in one of the parts."""
    part: int
    """Which one of the parts: 0 is the first."""
    parts: int
    """So many parts are the pack."""
    keys: int
    """In this part."""
    packed: bytes
    """zlib (RFC 1950) of a msgpack array of [subject, sequence, value], the values as they are on the bus."""
