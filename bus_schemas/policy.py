"""The words that policy is compiled to: group, rules, shared direction, attachment (of a pod, of a host endpoint).

    Attachment (one pod)  --------+--names--> Rules (one policy) --name--> Group (one selector's members, in segments)
    HostAttachment (one device) --+             ^
                                  +--names--> SharedDirection, where a direction names many rules

They are written in that dependency's order (groups first) in atomic batches, and removed in the reverse order. An
agent that lacks any link of the chain drops what the missing part would have covered.

Members of groups are packed big-endian bytes without separators, exactly as the kernel's sets want them.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from bus_schemas.codec import Message
from bus_schemas.ids import DirectionId, GroupId, NodeName, RulesId

SEGMENT_MEMBERS = 256
"""How many members a segment should hold at most: what one change rewrites."""

ADDRESS4 = 4
ADDRESS6 = 16
"""Bytes per member of an `addresses` group: the address."""
PORT4 = 8
PORT6 = 20
"""Bytes per member of a `ports` group: the address, one byte of IP protocol, one byte of zero, two bytes of port."""
NET4 = 5
NET6 = 17
"""Bytes per network of an `addresses` group: the masked address, one byte of prefix length."""

Way = Literal["ingress", "egress"]


class Group(Message, tag="group/1", frozen=True, kw_only=True):
    """One segment of a group. Segment 0 always exists, even when the group is empty: absence means unknown, not empty.

    A member may for a moment be in two segments (never in none) while a group is split: readers count.
    """

    of: Literal["addresses", "ports"] = "addresses"
    v4: bytes = b""
    """Packed IPv4 members, 4 or 8 bytes each, ascending, distinct."""
    v6: bytes = b""
    """Packed IPv6 members, 16 or 20 bytes each, ascending, distinct."""
    nets4: bytes = b""
    """Packed IPv4 networks, 5 bytes each, ascending, distinct, of an `addresses` group: whatever lies in one is a
    member. They may overlap one another and the addresses. A /32 stands among the addresses."""
    nets6: bytes = b""
    """Packed IPv6 networks, 17 bytes each; a /128 stands among the addresses."""
    segments: int = 1
    """In segment 0: how many segments the group has. In the others 1: they do not change with it."""
    selector: str = ""
    """Canonical selector (with ` :<port name>` for `ports`), for people; in segment 0 only."""


class PortRange(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    first: int
    last: int


class Match(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Conditions on one end of a connection. Fields are ANDed, lists of the positive fields are ORed, except `groups`,
    of which the address must be in every one."""

    groups: tuple[GroupId, ...] = ()
    not_groups: tuple[GroupId, ...] = ()
    """In none of them."""
    nets: tuple[str, ...] = ()
    """In one of these CIDRs; of either family, but all of one family."""
    not_nets: tuple[str, ...] = ()
    ports: tuple[PortRange, ...] = ()
    """`ports` and `named_ports` together are one positive list."""
    named_ports: tuple[GroupId, ...] = ()
    """`ports` groups: (address, protocol, port) must be a member of one."""
    not_ports: tuple[PortRange, ...] = ()
    not_named_ports: tuple[GroupId, ...] = ()


class Icmp(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: int
    code: int | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    action: Literal["allow", "deny", "pass", "log"]
    ip_version: Literal[4, 6] | None = None
    protocol: int | None = None
    """IP protocol number (RFC 5237 registry): 6 TCP, 17 UDP, 132 SCTP, 1 ICMP, 58 ICMPv6."""
    not_protocol: int | None = None
    icmp: Icmp | None = None
    not_icmp: Icmp | None = None
    source: Match = Match()
    destination: Match = Match()
    never: str = ""
    """Non-empty: the rule could not be compiled, for this reason. A deny of what its other fields cover."""
    index: int = 0
    """The place of the manifest's rule in its list: several of these rules can be one of the manifest's."""
    name: str = ""
    """The manifest's name for the rule, where its kind has one."""


class Rules(Message, tag="rules/1", frozen=True, kw_only=True):
    """One policy, both directions. A direction that the policy does not govern is simply not named by attachments."""

    policy: str
    """`<Kind>/<namespace>/<name>` or `<Kind>/<name>`, for people."""
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    cut: bool = False
    """Connections that live when these rules change (or begin or cease to govern) are cut where they are no longer
    allowed. Otherwise they go on until they end."""
    keep: bool = False
    """They go on, whatever the configuration says of all policies."""


class TierRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    tier: str
    rules: tuple[RulesId, ...]
    """In the order of evaluation; never empty."""
    default: Literal["deny", "pass"] = "deny"
    """When no rule of the tier decided."""


class Direction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    tiers: tuple[TierRules, ...] = ()
    profiles: tuple[RulesId, ...] = ()
    """After the last tier: rules of profiles, in order, as if of one more tier that passes."""
    default: Literal["allow", "deny"] = "deny"
    """After the profiles. Of a pod it is what its namespace's profile says (known: allow; unknown: deny)."""
    preview: tuple[TierRules, ...] | None = None
    """The tiers as they would be with the staged policies in force: evaluated beside, reported, never enforced. None:
    no staged policy concerns the endpoint in this direction."""
    shared: DirectionId = DirectionId("")
    """Non-empty: all of it is the shared direction of this id, and the other fields are empty."""


class SharedDirection(Message, tag="direction/1", frozen=True, kw_only=True):
    """A direction that names so many rules that attachments only name it. Its key follows from its contents
    (`shared_directions.direction_id`), so it never changes."""

    direction: Direction
    """Not itself shared."""


class Attachment(Message, tag="attachment/1", frozen=True, kw_only=True):
    """What governs one endpoint, each way."""

    DIRECTIONS: ClassVar[tuple[str, ...]] = ("ingress", "egress")

    node: NodeName
    namespace: str
    name: str
    container: str
    """The incarnation of the endpoint that this was compiled for."""
    ingress: Direction = Direction()
    egress: Direction = Direction()


class HostAttachment(Message, tag="hostattachment/1", frozen=True, kw_only=True):
    """What governs the devices of one host endpoint. `allow` at the end of `pre_dnat_ingress` and of the two untracked
    directions only means that the packet goes on; the other directions have the last word."""

    DIRECTIONS: ClassVar[tuple[str, ...]] = (
        *("ingress", "egress", "forward_ingress", "forward_egress"),
        *("pre_dnat_ingress", "untracked_ingress", "untracked_egress"),
    )

    node: NodeName
    name: str
    interface: str
    """A device; `*`: every device that no other host endpoint of the node stands for; empty: found by `addresses`."""
    addresses: tuple[str, ...] = ()
    """expectedIPs: plain addresses."""
    ingress: Direction = Direction()
    """What the node itself receives."""
    egress: Direction = Direction()
    """What the node itself sends."""
    forward_ingress: Direction = Direction()
    """What enters by the device and is forwarded: the policies with applyOnForward. Without any, allow."""
    forward_egress: Direction = Direction()
    pre_dnat_ingress: Direction = Direction()
    untracked_ingress: Direction = Direction()
    untracked_egress: Direction = Direction()


class PolicyStatus(Message, tag="policystatus/1", frozen=True, kw_only=True):
    """What the compiler has to say about one policy. Exists only while there is something."""

    policy: str
    """`<Kind>/<namespace>/<name>` or `<Kind>/<name>`, for people."""
    faults: tuple[str, ...]
    """What could not be compiled and is closed instead: `<path>: <reason>`."""


class Hit(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Connections (first packets) that one policy decided on one node, one way, since `Hits.since`."""

    rules: str
    """A RulesId; `tier/<name>`: nothing in the tier decided, so its default did; `profile`: nothing at all decided."""
    way: Way
    allowed: int = 0
    denied: int = 0
    passed: int = 0
    would_allow: int = 0
    """By the preview with staged policies."""
    would_deny: int = 0


class Hits(Message, tag="hits/1", frozen=True, kw_only=True):
    """The counters of one node's policies, those that are not zero. With a time to live; written by that agent."""

    node: NodeName
    since: float
    """Unix time in seconds at which the counters began."""
    time: float
    """Unix time in seconds at which they were read."""
    hits: tuple[Hit, ...] = ()


CUT_ANNOTATION = "tortie.io/existing-connections"
"""`cut` or `keep` (the default): on a policy, or on the FelixConfiguration `default` for all policies."""
CUT = "cut"
KEEP = "keep"


def rules_id(kind: str, namespace: str, name: str) -> RulesId:
    """`<kind token of the resource>.<namespace>.<name>` with each part escaped: unique, and one token once escaped."""
    return RulesId(f"{kind}/{namespace}/{name}" if namespace else f"{kind}/{name}")
