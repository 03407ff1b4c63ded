"""What a compiled message names, as its writer must know when others write what is named."""

from __future__ import annotations

from collections.abc import Iterator

from bus_schemas.codec import Message
from bus_schemas.policy import Attachment, HostAttachment, Rules, SharedDirection
from bus_schemas.shared_directions import directions_of, rules_named


def names(message: Message) -> Iterator[str]:
    """The ids of groups in rules, of rules and shared directions in attachments; each perhaps more than once."""
    match message:
        case Rules():
            for rule in (*message.ingress, *message.egress):
                for end in (rule.source, rule.destination):
                    yield from end.groups
                    yield from end.not_groups
                    yield from end.named_ports
                    yield from end.not_named_ports
        case SharedDirection():
            yield from rules_named(message.direction)
        case Attachment() | HostAttachment():
            for direction in directions_of(message):
                yield from rules_named(direction)
                if direction.shared:
                    yield direction.shared
