"""What a compiled message names, as its writer must know when others write what is named."""

from __future__ import annotations

from collections.abc import Iterator

from bus_schemas.codec import Message
from bus_schemas.policy import Attachment, Direction, HostAttachment, Rules


def names(message: Message) -> Iterator[str]:
    """The ids of groups in rules, the ids of rules in attachments; each perhaps more than once."""
    match message:
        case Rules():
            for rule in (*message.ingress, *message.egress):
                for end in (rule.source, rule.destination):
                    yield from end.groups
                    yield from end.not_groups
                    yield from end.named_ports
                    yield from end.not_named_ports
        case Attachment():
            yield from _rules(message.ingress, message.egress)
        case HostAttachment():
            yield from _rules(
                *(message.ingress, message.egress, message.forward_ingress, message.forward_egress),
                *(message.pre_dnat_ingress, message.untracked_ingress, message.untracked_egress),
            )


def _rules(*directions: Direction) -> Iterator[str]:
    for direction in directions:
        yield from direction.profiles
        for tier in (*direction.tiers, *(direction.preview or ())):
            yield from tier.rules
