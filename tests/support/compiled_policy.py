"""What the compiler has written, as an agent would hold it, and the verdict that follows from that alone.

No code of the compiler is used: groups, rules and attachments are those of the messages, and what they mean is what
`bus_schemas.verdicts` says. Whatever is missing (an attachment, rules, a group) denies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Literal

from bus_schemas import verdicts
from bus_schemas.ids import DirectionId, GroupId, RulesId
from bus_schemas.policy import (
    ADDRESS4,
    ADDRESS6,
    NET4,
    NET6,
    PORT4,
    PORT6,
    Attachment,
    Direction,
    Group,
    HostAttachment,
    PolicyStatus,
    Rules,
    SharedDirection,
)
from bus_schemas.policy_snapshot import Snapshot, groups_of
from bus_schemas.shared_directions import closed, directions_of, rules_named, shared_by
from bus_schemas.subjects import ATTACHMENT, DIRECTION, GROUP, HOST_ATTACHMENT, POLICY_STATUS, RULES, Fact, Family
from bus_schemas.verdicts import Flow, Verdict
from services.policy_compiler.core import Changes

Way = Literal["ingress", "egress"]
NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPv6": 58}


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection."""

    source: str
    destination: str
    protocol: int
    port: int = 0
    """Destination port; for ICMP the type."""
    source_port: int = 40000
    code: int = 0

    @property
    def flow(self) -> Flow:
        source, destination = ip_address(self.source).packed, ip_address(self.destination).packed
        if self.protocol in (NUMBERS["ICMP"], NUMBERS["ICMPv6"]):
            return Flow(source, destination, self.protocol, icmp_type=self.port, icmp_code=self.code)
        return Flow(source, destination, self.protocol, self.source_port, self.port)


@dataclass
class CompiledPolicy:
    """The state of the POLICY stream."""

    groups: dict[tuple[GroupId, int], Group] = field(default_factory=dict)
    rules: dict[RulesId, Rules] = field(default_factory=dict)
    directions: dict[DirectionId, SharedDirection] = field(default_factory=dict)
    attachments: dict[tuple[str, ...], Attachment] = field(default_factory=dict)
    hosts: dict[tuple[str, ...], HostAttachment] = field(default_factory=dict)
    statuses: dict[tuple[str, str, str], PolicyStatus] = field(default_factory=dict)
    _world: Snapshot = field(default_factory=Snapshot, compare=False)

    def take(self, changes: Changes) -> None:
        for fact in facts_of(changes):
            self.learn(fact)

    def learn(self, fact: Fact) -> None:
        """One key of the stream."""
        if fact.family == GROUP:
            key = (GroupId(fact.key[0]), int(fact.key[1]))
            self._world.set_group(*key, fact.value)
            _put(self.groups, key, fact.value)
        elif fact.family == RULES:
            self._world.set_rules(RulesId(fact.key[0]), fact.value)
            _put(self.rules, RulesId(fact.key[0]), fact.value)
        elif fact.family == DIRECTION:
            _put(self.directions, DirectionId(fact.key[0]), fact.value)
        else:
            tables: dict[Family[Any], dict[Any, Any]] = {
                ATTACHMENT: self.attachments,
                HOST_ATTACHMENT: self.hosts,
                POLICY_STATUS: self.statuses,
            }
            _put(tables[fact.family], fact.key, fact.value)

    def allows(self, way: Way, attachment: tuple[str, ...], packet: Packet, *, preview: bool = False) -> bool:
        """What the policies of one direction of one pod say."""
        found = self.attachments.get(attachment)
        return found is not None and self._allows(getattr(found, way), way, packet, preview)

    def host_allows(self, direction: str, key: tuple[str, ...], packet: Packet, *, preview: bool = False) -> bool:
        """What one direction of a host endpoint says."""
        found = self.hosts.get(key)
        way: Way = "egress" if direction.endswith("egress") else "ingress"
        return found is not None and self._allows(getattr(found, direction), way, packet, preview)

    def decide(self, way: Way, direction: Direction, packet: Packet, *, preview: bool = False) -> Verdict:
        """The same with the whole path."""
        return verdicts.decide(self.whole(direction), way, packet.flow, self._world, preview=preview)

    def _allows(self, direction: Direction, way: Way, packet: Packet, preview: bool) -> bool:
        quick = verdicts.allows(self.whole(direction), way, packet.flow, self._world, preview=preview)
        assert quick == (self.decide(way, direction, packet, preview=preview).action == "allow")
        return quick

    def whole(self, direction: Direction) -> Direction:
        """What stands in its place when it is shared."""
        if not direction.shared:
            return direction
        shared = self.directions.get(direction.shared)
        return closed(direction.shared) if shared is None else shared.direction

    def complaints(self) -> list[str]:
        """References that lead nowhere, things that nobody refers to, groups that are not packed as they must be."""
        found: list[str] = []
        for key, direction in self._directions():
            tiers = (*direction.tiers, *(direction.preview or ()))
            named = set(rules_named(direction))
            found += (f"{key} names unknown rules {uid}" for uid in named if uid not in self.rules)
            found += (f"{key} has an empty tier {tier.tier}" for tier in tiers if not tier.rules)
        shared = {id_ for key in (self.attachments, self.hosts) for one in key.values() for id_ in shared_by(one)}
        found += (f"somebody names unknown direction {id_}" for id_ in shared - self.directions.keys())
        found += (f"nobody names direction {id_}" for id_ in self.directions.keys() - shared)
        used: set[GroupId] = set()
        for uid, rules in self.rules.items():
            named_groups = set(groups_of((*rules.ingress, *rules.egress)))
            found += (
                f"{uid} names unknown group {group}" for group in named_groups if self._world.members(group) is None
            )
            used |= named_groups
        for (id_, at), group in self.groups.items():
            if id_ not in used:
                found.append(f"nobody names group {id_}")
            elif at >= self.groups[id_, 0].segments:
                found.append(f"segment {at} of group {id_} is left over")
            found += (f"segment {at} of group {id_}: {complaint}" for complaint in _malformed(group))
        return found

    def _directions(self) -> Iterator[tuple[object, Direction]]:
        for held in (self.attachments, self.hosts):
            for key, attachment in held.items():
                for direction in directions_of(attachment):
                    yield key, direction
        for id_, shared in self.directions.items():
            yield id_, shared.direction


def facts_of(changes: Changes) -> list[Fact]:
    """In the order in which they may be read."""
    return [
        *(Fact(GROUP, (id_, str(segment)), value) for (id_, segment), value in changes.groups.items()),
        *(Fact(RULES, (id_,), value) for id_, value in changes.rules.items()),
        *(Fact(DIRECTION, (id_,), value) for id_, value in changes.directions.items()),
        *(Fact(ATTACHMENT, tuple(key), value) for key, value in changes.attachments.items()),
        *(Fact(HOST_ATTACHMENT, tuple(key), value) for key, value in changes.hosts.items()),
        *(Fact(POLICY_STATUS, tuple(key), value) for key, value in changes.statuses.items()),
    ]


def _put(mine: dict[Any, Any], key: Any, value: Any) -> None:
    if value is None:
        mine.pop(key, None)
    else:
        mine[key] = value


def _malformed(group: Group) -> Iterator[str]:
    addresses = group.of == "addresses"
    for packed, width in (
        (group.v4, ADDRESS4 if addresses else PORT4),
        (group.v6, ADDRESS6 if addresses else PORT6),
        (group.nets4, NET4),
        (group.nets6, NET6),
    ):
        members = [packed[at : at + width] for at in range(0, len(packed), width)]
        if len(packed) % width or members != sorted(set(members)):
            yield "members are not ascending and distinct"
    if not addresses and (group.nets4 or group.nets6):
        yield "networks among ports"
