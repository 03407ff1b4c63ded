"""Directions that attachments only name: their identity, and how they are put back in place. Pure.

    Attachment -- ingress.shared = d:5f.. --> SharedDirection d:5f.. -- direction --> tiers, profiles, preview

Ten thousand policies that each govern every pod would stand in full in every attachment. Whoever reads attachments
unfolds them first; nothing behind that knows shared directions.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha224
from typing import TypeVar

import msgspec

from bus_schemas.ids import DirectionId, RulesId
from bus_schemas.policy import Attachment, Direction, HostAttachment, TierRules

A = TypeVar("A", Attachment, HostAttachment)

_encoder = msgspec.msgpack.Encoder()


def direction_id(direction: Direction) -> DirectionId:
    """From its contents, so every replica says the same, and nothing ever changes under an id."""
    digest = sha224(_encoder.encode(direction)).digest()
    return DirectionId("d:" + urlsafe_b64encode(digest).rstrip(b"=").decode())


def rules_named(direction: Direction) -> Iterator[RulesId]:
    """Every policy that it names in place, as often as it does."""
    for tier in (*direction.tiers, *(direction.preview or ())):
        yield from tier.rules
    yield from direction.profiles


def directions_of(attachment: Attachment | HostAttachment) -> Iterator[Direction]:
    for name in attachment.DIRECTIONS:
        yield getattr(attachment, name)


def shared_by(attachment: Attachment | HostAttachment) -> frozenset[DirectionId]:
    """Those that it only names."""
    return frozenset(direction.shared for direction in directions_of(attachment) if direction.shared)


def unfold(attachment: A, known: Mapping[DirectionId, Direction]) -> A:
    """With every direction in place; one that is not known is closed."""
    shared = {name: id for name in attachment.DIRECTIONS if (id := getattr(attachment, name).shared)}
    if not shared:
        return attachment
    return msgspec.structs.replace(attachment, **{name: known.get(id) or closed(id) for name, id in shared.items()})


def closed(id: DirectionId) -> Direction:
    """In place of a direction that is not known. It names rules that nobody has, which drops everything, and that at
    every stage of a host endpoint: a mere default of `deny` counts for nothing before the last of them."""
    return Direction(tiers=(TierRules(tier="", rules=(RulesId(f"direction {id}"),)),))
