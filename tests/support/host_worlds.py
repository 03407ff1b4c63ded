"""Builders for host endpoints: what the compiler says of them, and what the node has for devices."""

from __future__ import annotations

from bus_schemas.policy import Direction, HostAttachment
from bus_schemas.subjects import HOST_ATTACHMENT, Fact
from tests.support.nft_worlds import NODE, OPEN

CLOSED = Direction()
NOTHING_SAID = OPEN
"""Of forwarded traffic, and before: no policy."""


def host(
    name: str,
    interface: str = "",
    *addresses: str,
    ingress: Direction = CLOSED,
    egress: Direction = CLOSED,
    forward_ingress: Direction = NOTHING_SAID,
    forward_egress: Direction = NOTHING_SAID,
    pre_dnat: Direction = NOTHING_SAID,
    untracked_ingress: Direction = NOTHING_SAID,
    untracked_egress: Direction = NOTHING_SAID,
) -> HostAttachment:
    """Without any policy unless told: closed to and from the node, open to what is forwarded."""
    return HostAttachment(
        node=NODE,
        name=name,
        interface=interface,
        addresses=addresses,
        ingress=ingress,
        egress=egress,
        forward_ingress=forward_ingress,
        forward_egress=forward_egress,
        pre_dnat_ingress=pre_dnat,
        untracked_ingress=untracked_ingress,
        untracked_egress=untracked_egress,
    )


def hosted(attachment: HostAttachment) -> Fact:
    return Fact(HOST_ATTACHMENT, (NODE, attachment.name), attachment)


def unhosted(name: str) -> Fact:
    return Fact(HOST_ATTACHMENT, (NODE, name), None)
